//! `POST /publish/{key}`: an entry from whoever has no Redis client at hand.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tracing::debug;

use super::guard::{self, Refusal};
use super::{Full, body, decoded_key};
use crate::http::response::text;
use crate::source::{Error, ErrorClass};
use crate::state::State;

/// A body of what is to be published takes no longer than this.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Adds the request's body to the stream of `key`, percent-encoded as it came.
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
    guard::write(state, request.headers())?;
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
    match state.readers.source.publish(&key, payload.to_bytes()).await {
        Ok(id) => Ok(body("application/json", json!({ "id": id.to_string() }).to_string())),
        Err(error) => Err(not_published(&key, &error)),
    }
}

fn not_published(key: &str, error: &Error) -> Refusal {
    debug!(key, %error, "not published");
    let status = match (error.class, error.code) {
        (_, "WRONGTYPE") => StatusCode::CONFLICT,
        (ErrorClass::Key | ErrorClass::Login, _) => StatusCode::FORBIDDEN,
        (ErrorClass::Away | ErrorClass::TooLarge, _) => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, &error.to_string())
}
