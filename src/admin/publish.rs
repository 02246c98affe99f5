//! `POST /publish/{key}`: adds an entry without a Redis client.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tracing::debug;

use super::guard;
use super::response::{Full, Refusal, body};
use crate::http::response::text;
use crate::source::{Addition, ErrorClass, WriteError};
use crate::state::State;

/// The body of a request may take this long.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Adds the request's body to the stream `key`, which is still percent-encoded.
pub(super) async fn publish(
    state: &State,
    key: &str,
    request: Request<Incoming>,
) -> Result<Response<Full>, Refusal> {
    if !state.config().admin.publish {
        return Err(text(StatusCode::NOT_FOUND, "publishing is off (admin.publish)"));
    }
    if request.method() != Method::POST {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        refusal.headers_mut().insert(ALLOW, "POST".parse().expect("a header value"));
        return Err(refusal);
    }
    guard::write(state, &request)?;
    let key = decoded_key(key)?;
    let limit = state.config().source.max_entry_bytes;
    let payload = Limited::new(request.into_body(), limit).collect();
    let payload = tokio::time::timeout(BODY_TIMEOUT, payload)
        .await
        .map_err(|_| text(StatusCode::REQUEST_TIMEOUT, "the body took too long"))?;
    let payload = payload.map_err(|error| {
        if !error.is::<LengthLimitError>() {
            return text(StatusCode::BAD_REQUEST, "the body ended early");
        }
        let message = format!("the body is larger than {limit} bytes (source.max_entry)");
        text(StatusCode::PAYLOAD_TOO_LARGE, &message)
    })?;
    let addition =
        Addition::of(&key, payload.to_bytes()).trimmed_to(state.config().ring.entries);
    match state.readers.source.publish(&addition).await {
        Ok(ids) => Ok(body("application/json", json!({ "id": ids[0].to_string() }).to_string())),
        Err(error) => Err(not_published(&key, &error)),
    }
}

fn not_published(key: &str, error: &WriteError) -> Refusal {
    debug!(key, %error, "an entry was not published");
    text(status(error), &error.to_string())
}

fn status(error: &WriteError) -> StatusCode {
    let WriteError::NotWritten(error) = error else { return StatusCode::GATEWAY_TIMEOUT };
    match (error.class, error.code) {
        (_, "WRONGTYPE") => StatusCode::CONFLICT,
        (ErrorClass::Key | ErrorClass::Login, _) => StatusCode::FORBIDDEN,
        (ErrorClass::Away | ErrorClass::TooLarge, _) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The stream key that a path names.
pub(super) fn decoded_key(key: &str) -> Result<String, Refusal> {
    let key = percent_encoding::percent_decode_str(key).decode_utf8().ok();
    let key = key.filter(|key| !key.is_empty());
    key.map(std::borrow::Cow::into_owned)
        .ok_or_else(|| text(StatusCode::BAD_REQUEST, "the stream key is empty or no UTF-8"))
}
