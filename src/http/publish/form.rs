//! What the head of a `POST` says of its body.

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};

use super::refused::Refused;
use crate::config::publish::BodyFields;

/// The header by which a client names an entry that it may send again.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest name.
const KEY_BYTES: usize = 255;
/// The media types of several entries.
const SEVERAL: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// A body, before it is read.
#[derive(Debug)]
pub(super) struct Form {
    /// An entry in each line.
    pub(super) several: bool,
    /// The client's name for the only entry.
    pub(super) name: Option<String>,
    /// As far as it is said.
    pub(super) length: Option<u64>,
}

impl Form {
    /// Reads the head, and refuses what cannot be read as entries.
    pub(super) fn of(headers: &HeaderMap, fields: BodyFields) -> Result<Self, Refused> {
        let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
        let is_coded = |value: &hyper::header::HeaderValue| {
            !value.to_str().is_ok_and(|codings| codings.split(',').map(str::trim).all(is_plain))
        };
        if headers.get_all(CONTENT_ENCODING).iter().any(is_coded) {
            return Err(Refused::Encoding);
        }
        let media_type = media_type(headers);
        let several = SEVERAL.contains(&&*media_type);
        if fields == BodyFields::Json && !several && !is_json(&media_type) {
            return Err(Refused::ContentType);
        }
        let name = name(headers)?;
        if several && name.is_some() {
            return Err(Refused::Name(
                "is for one entry; send each with a key of its own, or all of them without",
            ));
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse().ok());
        Ok(Self { several, name, length })
    }
}

/// In lower case, without parameters; empty where there is none.
fn media_type(headers: &HeaderMap) -> String {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    said.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    matches!(media_type, "" | "application/json" | "text/json") || media_type.ends_with("+json")
}

fn name(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let mut said = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (first, second) = (said.next(), said.next());
    let Some(first) = first else { return Ok(None) };
    if second.is_some() {
        return Err(Refused::Name("is there twice; send one"));
    }
    let text =
        first.to_str().map_err(|_| Refused::Name("has other characters than visible ASCII"))?;
    match text.trim() {
        "" => Err(Refused::Name("is empty; send a text that no other entry has, such as a UUID")),
        text if text.len() > KEY_BYTES => Err(Refused::Name("is longer than 255 bytes")),
        text => Ok(Some(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: BodyFields, pairs: &[(&str, &str)]) -> Result<Form, Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Form::of(&headers, fields)
    }

    fn status(outcome: Result<Form, Refused>) -> u16 {
        outcome.map_or_else(|refused| refused.status().as_u16(), |_| 200)
    }

    #[test]
    fn what_is_no_json_is_refused_only_where_it_has_to_be() {
        for (media_type, as_json) in [
            ("", 200),
            ("application/json", 200),
            ("Application/JSON; charset=utf-8", 200),
            ("application/cloudevents+json", 200),
            ("application/x-ndjson", 200),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("multipart/form-data; boundary=x", 415),
        ] {
            let pairs = [("content-type", media_type)];
            assert_eq!(status(form(BodyFields::Json, &pairs)), as_json, "{media_type}");
            assert_eq!(status(form(BodyFields::Payload, &pairs)), 200, "{media_type}");
        }
        assert_eq!(status(form(BodyFields::Json, &[])), 200);
        assert!(
            form(BodyFields::Payload, &[("content-type", "application/jsonl")]).unwrap().several
        );
    }

    #[test]
    fn a_coded_body_is_refused() {
        for (coding, expected) in
            [("gzip", 415), ("identity, br", 415), ("identity", 200), ("", 200)]
        {
            let pairs = [("content-encoding", coding)];
            assert_eq!(status(form(BodyFields::Payload, &pairs)), expected, "{coding}");
        }
    }

    #[test]
    fn an_idempotency_key_names_one_entry() {
        let key = |keys: &[&str]| {
            let pairs: Vec<_> = keys.iter().map(|key| ("idempotency-key", *key)).collect();
            form(BodyFields::Payload, &pairs)
        };
        assert_eq!(key(&[]).unwrap().name, None);
        assert_eq!(key(&[" \"a-1\" "]).unwrap().name.unwrap(), "\"a-1\"");
        assert_eq!(key(&[&"x".repeat(255)]).unwrap().name.unwrap().len(), 255);
        for bad in [&[""][..], &[" "], &["a", "a"], &[&"x".repeat(256)]] {
            assert_eq!(status(key(bad)), 400, "{bad:?}");
        }
        let several = [("content-type", "application/x-ndjson"), ("idempotency-key", "a")];
        assert_eq!(status(form(BodyFields::Payload, &several)), 400);
    }
}
