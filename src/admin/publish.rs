//! `POST /publish/{key}`: adds entries without a Redis client.

use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::{Method, Request, Response, StatusCode};

use super::guard;
use super::response::{Full, Refusal};
use crate::config::publish::{BodyFields, several_bytes};
use crate::http::publish::{Audience, Offer};
use crate::http::response::text;
use crate::state::State;

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
    let config = state.config();
    let max_bytes = config.source.max_entry_bytes;
    let offer = Offer {
        key: &key,
        producer: "ssegate:admin",
        fields: BodyFields::Payload,
        max_bytes,
        several_bytes: several_bytes(max_bytes),
        setting: "source.max_entry",
        maxlen: config.ring.entries,
        expire: None,
        audience: Audience::Operator,
        through: "admin",
    };
    let (head, body) = request.into_parts();
    Ok(crate::http::publish::publish(state, &offer, &head.headers, body, |_| ()).await)
}

/// The stream key that a path names.
pub(super) fn decoded_key(key: &str) -> Result<String, Refusal> {
    let key = percent_encoding::percent_decode_str(key).decode_utf8().ok();
    let key = key.filter(|key| !key.is_empty());
    key.map(std::borrow::Cow::into_owned)
        .ok_or_else(|| text(StatusCode::BAD_REQUEST, "the stream key is empty or no UTF-8"))
}
