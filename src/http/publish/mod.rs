//! Publishing: a `POST` whose body is entries, to a route that allows it, or to any stream key for the operator.
//!
//! - `form`, `body`: what head and body say; pure
//! - `reading`: the body within its bounds
//! - `refused`: each refusal, its status code and its words
//! - `page`: whether a page of another origin sent it
//! - `route`: the `POST` to a route: its terms, its limits, the answer

use hyper::body::{Bytes, Incoming};
use hyper::header::{EXPECT, HeaderMap};
use hyper::{Response, StatusCode};
use serde_json::json;
use tracing::debug;

use super::response;
use crate::config::publish::BodyFields;
use crate::source::{Addition, Once};
use crate::sse::StreamId;
use crate::state::State;

mod body;
mod form;
pub(super) mod page;
mod reading;
mod refused;
pub(super) mod route;

use body::Terms;
use form::Form;
use reading::Room;
pub use refused::{Audience, REASONS, Refused};

/// The response that tells the ids, or why there are none.
type Answer = Response<http_body_util::Full<Bytes>>;

/// What may be added, to which stream.
pub struct Offer<'a> {
    /// The stream key.
    pub key: &'a str,
    /// Who sends it: names of entries are the producer's own.
    pub producer: &'a str,
    /// What becomes of a body.
    pub fields: BodyFields,
    /// The largest entry, in bytes.
    pub max_bytes: usize,
    /// The longest body of several entries, in bytes.
    pub several_bytes: usize,
    /// The setting that says how large an entry may be.
    pub setting: &'static str,
    /// What the stream is trimmed to, about; zero: it is not trimmed.
    pub maxlen: usize,
    /// The key's time to live from then on; `None`: it stays as it is.
    pub expire: Option<std::time::Duration>,
    /// Who reads the answer.
    pub audience: Audience,
    /// For the metrics: `route` or `admin`.
    pub through: &'static str,
}

/// Adds what the body says, and answers. `count` learns how many entries there are, before they are added.
pub async fn publish(
    state: &State,
    offer: &Offer<'_>,
    headers: &HeaderMap,
    mut body: Incoming,
    count: impl FnOnce(usize),
) -> Answer {
    // Nothing was asked for yet of a client that waits to be told to go on.
    let mut is_begun = !headers.contains_key(EXPECT);
    let outcome = match Form::of(headers, offer.fields) {
        Ok(form) => {
            let added = add(state, offer, &form, &mut body, &mut is_begun, count).await;
            added.map(|ids| (form.several, ids))
        }
        Err(refused) => Err(refused),
    };
    match outcome {
        Ok((several, ids)) => {
            state.metrics.published(offer.through, ids.len() as u64);
            told(several, &ids)
        }
        Err(refused) => {
            let body = is_begun.then_some(body);
            refuse(state, offer.key, offer.audience, refused, body).await
        }
    }
}

/// Counts a refusal; its response, once the rest of a `body` that is under way was thrown away.
async fn refuse(
    state: &State,
    key: &str,
    audience: Audience,
    refused: Refused,
    body: Option<Incoming>,
) -> Answer {
    state.metrics.publish_refused(refused.reason());
    if let Refused::Write(error) = &refused {
        debug!(key, %error, "an entry was not published");
    }
    if let Some(body) = body {
        reading::throw_away(body).await;
    }
    refused.response(audience)
}

async fn add(
    state: &State,
    offer: &Offer<'_>,
    form: &Form,
    body: &mut Incoming,
    is_begun: &mut bool,
    count: impl FnOnce(usize),
) -> Result<Vec<StreamId>, Refused> {
    let most = if form.several { offer.several_bytes } else { offer.max_bytes };
    // The operator's connections are few.
    let shared_kib = (offer.audience == Audience::Client).then_some(&state.limits.bodies_kib);
    let room = Room { most, setting: offer.setting, shared_kib };
    if form.length.is_none_or(|length| length <= most as u64) {
        *is_begun = true;
    }
    let read = reading::read(body, form.length, &room).await?;
    let terms = Terms { fields: offer.fields, max_bytes: offer.max_bytes };
    let entries = if form.several {
        body::several(&read.bytes, terms)
    } else {
        body::one(&read.bytes, terms)
    };
    let entries = entries.map_err(|bad| Refused::of_body(bad, offer.max_bytes, offer.setting))?;
    count(entries.len());
    let addition = Addition {
        key: offer.key,
        entries,
        maxlen: offer.maxlen,
        expire: offer.expire,
        once: form.name.as_deref().map(|name| Once { producer: offer.producer, name }),
    };
    state.readers.source.publish(&addition).await.map_err(Refused::Write)
}

/// `{"id":"…"}`, or `{"ids":["…",…]}` where several were sent.
fn told(several: bool, ids: &[StreamId]) -> Answer {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    let told = if several { json!({ "ids": ids }) } else { json!({ "id": ids[0] }) };
    response::json(StatusCode::OK, told.to_string())
}
