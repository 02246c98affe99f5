//! Which streams a request asks for: the one of its route, or several on one stream.

use url::form_urlencoded;

use crate::config::template::is_value;
use crate::config::{Route, Streams};
use crate::sse::{COMPOSITE_BYTES, longest_composite_bytes};

/// What a request asks for.
pub(super) struct Asked {
    /// The variables of its path, and those that it chose, one for each stream.
    pub(super) variables: Vec<(String, String)>,
    /// The stream key; of a merged stream all of them.
    pub(super) key: String,
    /// Name and stream key of each part of a merged stream.
    pub(super) parts: Vec<(String, String)>,
    /// The query that names the streams again that were chosen.
    pub(super) chosen: Option<String>,
}

/// What a request to `route` asks for; or what is wrong with its choice.
pub(super) fn asked(
    route: &Route,
    mut variables: Vec<(String, String)>,
    query: Option<&str>,
) -> Result<Asked, String> {
    let mut chosen = None;
    let parts: Vec<(String, String)> = match &route.streams {
        Streams::One(key) => {
            let key = key.key(&variables);
            return Ok(Asked { variables, key, parts: Vec::new(), chosen });
        }
        Streams::Merged(parts) => {
            let part =
                |part: &crate::config::NamedKey| (part.name.clone(), part.key.key(&variables));
            parts.iter().map(part).collect()
        }
        Streams::Chosen { query: name, key, most } => {
            let values = values(query.unwrap_or(""), name, *most)?;
            let own = variables.clone();
            let key_of = |value: &String| {
                let chosen = (name.clone(), value.clone());
                key.key(&[&own[..], &[chosen]].concat())
            };
            let parts = values.iter().map(|value| (value.clone(), key_of(value))).collect();
            let mut again = form_urlencoded::Serializer::new(String::new());
            again.extend_pairs(values.iter().map(|value| (name, value)));
            chosen = Some(again.finish());
            variables.extend(values.into_iter().map(|value| (name.clone(), value)));
            parts
        }
    };
    let keys: Vec<&str> = parts.iter().map(|(_, key)| key.as_str()).collect();
    Ok(Asked { key: keys.join(","), variables, parts, chosen })
}

/// The values that a query has for the parameter of this name.
fn values(query: &str, name: &str, most: usize) -> Result<Vec<String>, String> {
    let right = || format!("write 1 to {most} streams, as in ?{name}=a&{name}=b");
    let pairs = form_urlencoded::parse(query.as_bytes());
    let mut values: Vec<String> = Vec::new();
    for (_, value) in pairs.filter(|(parameter, _)| parameter == name) {
        if !is_value(&value) {
            return Err(format!(
                "{name}: not the name of a stream: it has 1 to 128 letters, digits, \".\", \"_\" and \"-\"; {}",
                right()
            ));
        }
        if values.iter().any(|known| *known == value) {
            return Err(format!("{name}: {value} is there twice; name each stream once"));
        }
        values.push(value.into_owned());
        if values.len() > most {
            return Err(format!("{name}: too many streams; {}", right()));
        }
    }
    if values.is_empty() {
        return Err(format!("{name}: no stream is chosen; {}", right()));
    }
    let longest = longest_composite_bytes(values.iter().map(String::as_str));
    if longest > COMPOSITE_BYTES {
        return Err(format!(
            "{name}: the last event id of these streams could have {longest} bytes, and no more than {COMPOSITE_BYTES} are taken; choose fewer streams"
        ));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_chooses_each_stream_once() {
        let chosen = |query: &str| values(query, "stream", 2);
        assert_eq!(chosen("stream=a&x=y&stream=b-1.c_"), Ok(vec!["a".into(), "b-1.c_".into()]));
        for (query, why) in [
            ("", "no stream is chosen"),
            ("x=y", "no stream is chosen"),
            ("stream=", "not the name"),
            ("stream=a&stream=", "not the name"),
            ("stream=a,b", "not the name"),
            ("stream=..", "not the name"),
            ("stream=a%0Ab", "not the name"),
            ("stream=a&stream=a", "a is there twice"),
            (
                "stream=a&stream=b&stream=c",
                "too many streams; write 1 to 2 streams, as in ?stream=a",
            ),
        ] {
            let told = chosen(query).unwrap_err();
            assert!(told.contains(why), "{query}: {told}");
        }
        let long: Vec<String> = (10..40).map(|n| format!("s={n}{}", "x".repeat(126))).collect();
        let told = values(&long.join("&"), "s", 64).unwrap_err();
        assert!(told.contains("5129 bytes"), "{told}");
        assert!(values(&long[..20].join("&"), "s", 64).is_ok());
    }
}
