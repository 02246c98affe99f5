//! Why nothing was published, or nobody knows: its name in the metrics, the status code, and the line that
//! says what would be right.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT_ENCODING, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::{BadBody, Fault};
use crate::config::publish::MOST_ENTRIES;
use crate::http::response::text;
use crate::source::{ErrorClass, WriteError};

/// Why.
#[derive(Debug)]
pub enum Refused {
    /// A page of another origin sent it.
    Page,
    /// The token does not allow it; the response says what a reader's would.
    Token(Box<Response<Full<Bytes>>>),
    /// The keys that may have signed the token could not be fetched.
    Keys(Duration),
    /// The principal, or the address, has published too many entries.
    Rate(Duration),
    /// The gateway stops.
    Drain(Duration),
    /// Too many bodies are being read.
    Busy,
    /// The body, or an entry in this line of it, is larger than so many bytes, a setting of this name.
    TooLarge(Option<usize>, usize, &'static str),
    /// What is wrong with the `Idempotency-Key`.
    Name(&'static str),
    /// The body stands for no entries.
    Body(String),
    /// It has more lines than there may be.
    TooMany,
    /// Not JSON where it has to be.
    ContentType,
    /// The body is compressed.
    Encoding,
    /// The body took too long.
    Slow,
    /// The body ended early.
    Cut,
    /// Redis refused, or did not answer.
    Write(WriteError),
}

/// Every reason, for metrics that start at zero.
pub const REASONS: [&str; 18] = [
    "page",
    "token",
    "keys",
    "rate",
    "drain",
    "busy",
    "too_large",
    "idempotency_key",
    "body",
    "content_type",
    "content_encoding",
    "body_timeout",
    "body_ended",
    "NOPERM",
    "WRONGTYPE",
    "source",
    "not_once",
    "unknown",
];

/// Who reads the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever may publish to a route.
    Client,
    /// Who may publish to every stream key.
    Operator,
}

impl Refused {
    /// The refusal of a body that was read, where an entry may have so many bytes by this setting.
    pub(super) fn of_body(bad: BadBody, max_bytes: usize, setting: &'static str) -> Self {
        let line = bad.line;
        match bad.fault {
            Fault::TooLarge => Self::TooLarge(line, max_bytes, setting),
            Fault::TooMany => Self::TooMany,
            Fault::Nothing => {
                Self::Body("no line has an entry; write one in each, as in {\"n\":1}".into())
            }
            Fault::Json(why, at_line, column) => {
                let line = line.unwrap_or(at_line);
                let write = "send an object, as in {\"type\":\"greeting\"}";
                Self::Body(format!(
                    "not the JSON that it has to be, at line {line}, column {column}: {why}; {write}"
                ))
            }
        }
    }

    /// One of [`REASONS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Token(_) => "token",
            Self::Keys(_) => "keys",
            Self::Rate(_) => "rate",
            Self::Drain(_) => "drain",
            Self::Busy => "busy",
            Self::TooLarge(..) | Self::TooMany => "too_large",
            Self::Name(_) => "idempotency_key",
            Self::Body(_) => "body",
            Self::ContentType => "content_type",
            Self::Encoding => "content_encoding",
            Self::Slow => "body_timeout",
            Self::Cut => "body_ended",
            Self::Write(WriteError::NotOnce) => "not_once",
            Self::Write(WriteError::Unknown(_)) => "unknown",
            Self::Write(WriteError::NotWritten(error)) => match error.code {
                "WRONGTYPE" => "WRONGTYPE",
                "NOPERM" => "NOPERM",
                _ => "source",
            },
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Page => StatusCode::FORBIDDEN,
            Self::Token(response) => response.status(),
            Self::Keys(_) | Self::Drain(_) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Rate(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge(..) | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Name(_) | Self::Body(_) | Self::Cut => StatusCode::BAD_REQUEST,
            Self::ContentType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Write(WriteError::NotOnce) => StatusCode::NOT_IMPLEMENTED,
            Self::Write(WriteError::Unknown(_)) => StatusCode::GATEWAY_TIMEOUT,
            Self::Write(WriteError::NotWritten(error)) => match (error.class, error.code) {
                (_, "WRONGTYPE") => StatusCode::CONFLICT,
                (ErrorClass::Key | ErrorClass::Login, _) => StatusCode::FORBIDDEN,
                (ErrorClass::Away | ErrorClass::TooLarge, _) => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// One line; in Redis' own words for the operator, who may know of its servers.
    fn message(&self, audience: Audience) -> String {
        match self {
            Self::Page => "a page of another origin may not publish; list it in cors.origins".into(),
            Self::Token(_) => "the token is not accepted".into(),
            Self::Keys(_) => "not now: keys".into(),
            Self::Rate(_) => "too many entries for now; try again after Retry-After".into(),
            Self::Drain(_) => "not now: drain".into(),
            Self::Busy => "not now: too many bodies are being read; try again".into(),
            Self::TooLarge(None, bytes, setting) => {
                format!("the body is larger than {bytes} bytes ({setting}); send less")
            }
            Self::TooLarge(Some(line), bytes, setting) => {
                format!("line {line} is larger than {bytes} bytes ({setting}); send less, nothing was added")
            }
            Self::TooMany => format!("more than {MOST_ENTRIES} entries; send fewer, nothing was added"),
            Self::Name(why) => format!("the Idempotency-Key {why}"),
            Self::Body(why) => why.clone(),
            Self::ContentType => {
                "this takes JSON: send content-type: application/json, or application/x-ndjson for an entry in each line".into()
            }
            Self::Encoding => "the body is compressed; send it as it is, without content-encoding".into(),
            Self::Slow => "the body took too long".into(),
            Self::Cut => "the body ended early".into(),
            Self::Write(WriteError::NotOnce) => {
                format!("{}; send it without Idempotency-Key", WriteError::NotOnce)
            }
            Self::Write(error) if audience == Audience::Operator => {
                error.to_string().replace(['\r', '\n'], " ")
            }
            Self::Write(WriteError::NotWritten(error)) => {
                format!("nothing was added: {} (the gateway's log says more)", error.code)
            }
            Self::Write(WriteError::Unknown(error)) => {
                format!("whether it was added is not known: {}; it is not sent again", error.code)
            }
        }
    }

    /// The response.
    pub fn response(self, audience: Audience) -> Response<Full<Bytes>> {
        let (status, message) = (self.status(), self.message(audience));
        let mut response = match self {
            Self::Token(ref response) => Response::clone(response),
            _ => *text(status, &message),
        };
        let headers = response.headers_mut();
        match self {
            Self::Keys(wait) | Self::Rate(wait) | Self::Drain(wait) => {
                headers.insert(RETRY_AFTER, whole_seconds(wait).into());
            }
            Self::Busy => {
                headers.insert(RETRY_AFTER, 1.into());
            }
            Self::Write(_) if status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, 1.into());
            }
            Self::Encoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            _ => {}
        }
        response
    }
}

/// Up to a whole second: sooner it would be refused again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Error;

    #[test]
    fn each_failure_of_redis_has_its_status_and_a_reason_that_is_known() {
        let written = |class, code| {
            let error = Error { class, code, message: "words\r\nof Redis".into() };
            let refused = Refused::Write(WriteError::NotWritten(error));
            assert!(REASONS.contains(&refused.reason()));
            assert!(!refused.message(Audience::Operator).contains('\n'));
            assert!(!refused.message(Audience::Client).contains("words"));
            (refused.status().as_u16(), refused.reason())
        };
        assert_eq!(written(ErrorClass::Key, "NOPERM"), (403, "NOPERM"));
        assert_eq!(written(ErrorClass::Key, "WRONGTYPE"), (409, "WRONGTYPE"));
        assert_eq!(written(ErrorClass::Login, "NOAUTH"), (403, "source"));
        for code in ["OOM", "READONLY", "IO", "FAILOVER", "ERR"] {
            assert_eq!(written(ErrorClass::Away, code), (503, "source"), "{code}");
        }
        let error = Error { class: ErrorClass::Away, code: "IO", message: String::new() };
        let unknown = Refused::Write(WriteError::Unknown(error));
        assert_eq!((unknown.status().as_u16(), unknown.reason()), (504, "unknown"));
        assert_eq!(Refused::Write(WriteError::NotOnce).status().as_u16(), 501);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        let told = |ms| {
            let response = Refused::Rate(Duration::from_millis(ms)).response(Audience::Client);
            response.headers()[RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!([1, 1000, 1001].map(told), ["1", "1", "2"]);
    }
}
