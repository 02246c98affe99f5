//! By what a client narrows the entries that it gets: `?severity=high,critical&source=fw-01`, where its route lists these
//! names. Values compare byte for byte with those of the entries, once they are decoded; one with a comma cannot be
//! written.

use percent_encoding::percent_decode_str;

use crate::config::Rows;
use crate::sse::RowValue;

const MAX_VALUES: usize = 16;
const MAX_BYTES: usize = 1 << 10;

/// The wanted values by the number of the column; or what is wrong, and what would be right. `is_own`: whether a
/// parameter says something else. On a route without filters a query may say what it likes.
pub(super) fn filters(
    query: &str,
    rows: &Rows,
    is_own: impl Fn(&str) -> bool,
) -> Result<Vec<(usize, Vec<RowValue>)>, String> {
    let mut wanted: Vec<(usize, Vec<RowValue>)> = Vec::new();
    if rows.filters.is_empty() {
        return Ok(wanted);
    }
    for (name, value) in pairs(query) {
        let known = rows.filter_names().find(|(known, _)| known.as_bytes() == name);
        let Some((name, column)) = known else {
            if is_own(&String::from_utf8_lossy(&name)) {
                continue;
            }
            let names: Vec<_> = rows.filter_names().map(|(name, _)| name).collect();
            return Err(format!(
                "the query has a name that this route does not filter by; it filters by {}",
                names.join(", ")
            ));
        };
        if wanted.iter().any(|(known, _)| *known == column) {
            return Err(format!("{name}: named twice; write it once, as in {name}=one,other"));
        }
        wanted.push((column, values(name, &value)?));
    }
    Ok(wanted)
}

fn values(name: &str, written: &[u8]) -> Result<Vec<RowValue>, String> {
    if written.len() > MAX_BYTES {
        return Err(format!("{name}: expected at most {MAX_BYTES} bytes of values"));
    }
    let values: Vec<&[u8]> = written.split(|byte| *byte == b',').collect();
    if values.iter().any(|value| value.is_empty()) {
        return Err(format!(
            "{name}: expected values with commas between them, as in {name}=one,other, and none of them empty; leave {name} out for all"
        ));
    }
    if values.len() > MAX_VALUES {
        return Err(format!("{name}: expected at most {MAX_VALUES} values"));
    }
    Ok(values.into_iter().map(RowValue::of).collect())
}

/// The names and values of a query, as the bytes that they stand for.
fn pairs(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// As forms write it: "+" is a space, and "%" without two digits is itself.
fn decoded(written: &str) -> Vec<u8> {
    percent_decode_str(&written.replace('+', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TokenPlace, is_own_parameter};
    use crate::sse::Column;

    fn rows(filters: &[&str]) -> Rows {
        let mut rows = Rows::default();
        for name in ["tenant"].iter().chain(filters) {
            rows.columns.push(Column { field: (*name).to_owned(), payload: None });
        }
        rows.filters = (1..=filters.len()).collect();
        rows
    }

    fn asked(query: &str) -> Result<Vec<(usize, Vec<RowValue>)>, String> {
        let tokens = [TokenPlace::Query("token".into())];
        filters(query, &rows(&["severity", "source", "ü b"]), |name| {
            is_own_parameter(name, &tokens)
        })
    }

    fn wanted(column: usize, values: &[&[u8]]) -> (usize, Vec<RowValue>) {
        (column, values.iter().map(|value| RowValue::of(value)).collect())
    }

    #[test]
    fn values_have_commas_between_them_and_compare_byte_for_byte() {
        for (query, meant) in [
            ("", vec![]),
            ("&&", vec![]),
            ("last=5&since=1h&Last-Event-ID=1&lastEventId=&token=x", vec![]),
            ("severity=high", vec![wanted(1, &[b"high"])]),
            (
                "severity=high,critical&source=fw-01&",
                vec![wanted(1, &[b"high", b"critical"]), wanted(2, &[b"fw-01"])],
            ),
            ("source=a%2Cb", vec![wanted(2, &[b"a", b"b"])]),
            ("source=a,a", vec![wanted(2, &[b"a", b"a"])]),
            ("source=a+b%20c%2bd", vec![wanted(2, &[b"a b c+d"])]),
            ("source=%ff%FE,%,%zz,%4", vec![wanted(2, &[b"\xff\xfe", b"%", b"%zz", b"%4"])]),
            ("source=a=b", vec![wanted(2, &[b"a=b"])]),
            ("%73everity=%C3%BC", vec![wanted(1, &["ü".as_bytes()])]),
            ("%C3%BC+b=%00", vec![wanted(3, &[b"\0"])]),
        ] {
            assert_eq!(asked(query), Ok(meant), "{query}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_would_be_right() {
        let unlisted = "the query has a name that this route does not filter by; it filters by severity, source, ü b";
        for (query, told) in [
            ("severty=high", unlisted),
            ("tenant=acme", unlisted),
            ("Severity=high", unlisted),
            ("=high", unlisted),
            ("%ff=high", unlisted),
            ("last=5&tokens=x", unlisted),
            ("severity=a&severity=b", "severity: named twice; write it once"),
            ("severity=a&severity=a", "severity: named twice; write it once"),
            ("severity=", "severity: expected values with commas between them, as in"),
            ("severity", "severity: expected values with commas"),
            ("severity=a,,b", "severity: expected values with commas"),
            ("severity=a,", "severity: expected values with commas"),
            ("severity=,", "severity: expected values with commas"),
        ] {
            let refused = asked(query).expect_err(query);
            assert!(refused.starts_with(told), "{query}: {refused}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let several = |count: usize| format!("source={}", vec!["a"; count].join(","));
        assert_eq!(asked(&several(MAX_VALUES)).unwrap()[0].1.len(), MAX_VALUES);
        assert_eq!(asked(&several(17)), Err("source: expected at most 16 values".into()));
        let long = |bytes: usize| format!("source={}", "%61".repeat(bytes));
        assert!(asked(&long(MAX_BYTES)).is_ok());
        assert_eq!(asked(&long(1025)), Err("source: expected at most 1024 bytes of values".into()));
    }

    #[test]
    fn a_route_without_filters_takes_every_query() {
        assert_eq!(filters("tenant=x&=&severity=,,", &rows(&[]), |_| false), Ok(Vec::new()));
    }
}
