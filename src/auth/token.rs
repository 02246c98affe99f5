//! Finds the token in a request. The first place that has one counts, good or bad; an empty one is none.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue};
use hyper::{HeaderMap, Request};

use super::cookies::may_use_cookies;
use super::denied::Denied;
use crate::config::{Cors, TokenPlace};

/// The longest token; a cookie is shorter, and a longer head is refused anyway.
const MAX_BYTES: usize = 8 << 10;

/// The token in these headers or this query, and its place.
pub(super) fn find<'a, B>(
    places: &'a [TokenPlace],
    cors: &Cors,
    request: &'a Request<B>,
) -> Result<(&'a TokenPlace, Cow<'a, str>), Denied> {
    let (headers, query) = (request.headers(), request.uri().query());
    for place in places {
        let found = match place {
            TokenPlace::Header => bearer(headers)?,
            TokenPlace::Cookie(name) => match cookie(headers, name)? {
                Some(_) if !may_use_cookies(cors, request) => return Err(Denied::Foreign),
                found => found,
            },
            TokenPlace::Query(name) => parameter(query.unwrap_or(""), name)?,
        };
        match found {
            Some(token) if token.len() > MAX_BYTES => return Err(Denied::Malformed),
            Some(token) => return Ok((place, token)),
            None => {}
        }
    }
    Err(Denied::Missing)
}

/// The only item of `found`; several that differ are ambiguous.
fn only<T: PartialEq>(mut found: impl Iterator<Item = T>) -> Result<Option<T>, Denied> {
    let Some(first) = found.next() else { return Ok(None) };
    if found.any(|other| other != first) { Err(Denied::Ambiguous) } else { Ok(Some(first)) }
}

/// RFC 6750, 2.1. Another scheme is not meant for us; a proxy may use it.
fn bearer(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Denied> {
    const SCHEME: &[u8] = b"bearer";
    let token = |value: &'_ HeaderValue| -> Option<Result<String, Denied>> {
        let (scheme, rest) = value.as_bytes().split_at_checked(SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let text = std::str::from_utf8(rest).ok();
        let token = text.filter(|text| text.is_empty() || text.starts_with(' '));
        let token = token.map(|token| token.trim().to_owned()).ok_or(Denied::Malformed);
        (token != Ok(String::new())).then_some(token)
    };
    let found = only(headers.get_all(AUTHORIZATION).iter().filter_map(token))?;
    found.transpose().map(|token| token.map(Cow::Owned))
}

/// RFC 6265, 4.2.1. Two cookies of one name were set by two pages of a site; one may be an attacker's.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, Denied> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let named = pairs.filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..at].trim_ascii() == name.as_bytes()).then_some(pair[at + 1..].trim_ascii())
    });
    let bare = |value: &'a [u8]| {
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        quoted.unwrap_or(value)
    };
    let named = named.map(bare).filter(|value| !value.is_empty());
    let Some(value) = only(named)? else { return Ok(None) };
    let value = std::str::from_utf8(value).map_err(|_| Denied::Malformed)?;
    Ok(Some(Cow::Borrowed(value)))
}

fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Denied> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    only(pairs.filter(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value))
}
