//! A `POST` to a route: what the router has decided, the limits, and the answer.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::{HeaderMap, Request, Response, Version};
use tokio::time::sleep;

use super::{Audience, Offer, Refused, refuse};
use crate::config::publish::Publish;
use crate::http::forwarded;
use crate::http::peer::Peer;
use crate::limits::{BodyPermit, ClientIdentity, LimitExceeded};
use crate::state::{Serving, State};

/// How long a drain goes on after an answer: so long it is on its way.
const LAST_ANSWER: Duration = Duration::from_millis(200);

/// Entries that a client wants to add.
#[derive(Debug)]
pub struct PublishPlan {
    /// Index of its route in the configuration.
    pub route: usize,
    /// The stream key.
    pub key: String,
    /// Headers of the response, for the page.
    pub headers: HeaderMap,
    /// The principal that its token names.
    pub principal: Option<Arc<str>>,
    /// Why it may not; what it takes to say so is the route's business.
    pub denied: Option<Denied>,
}

/// Why a client may not publish.
#[derive(Debug)]
pub enum Denied {
    /// A page of another origin sent it.
    Page,
    /// The token, with the response that says so.
    Token(Box<Response<http_body_util::Full<Bytes>>>),
    /// The keys that may have signed the token could not be fetched.
    Keys,
}

/// Adds the entries, or says why not.
pub(in crate::http) async fn answer(
    (state, serving): (&State, &Serving),
    peer: Peer,
    plan: PublishPlan,
    request: Request<Incoming>,
) -> Response<http_body_util::Full<Bytes>> {
    // A drain waits for it.
    let under_way = state.hosted.token();
    let (head, body) = request.into_parts();
    let route = &serving.config.routes[plan.route];
    let terms = route.publish.as_ref().expect("the router looked");
    let trusted = &serving.config.proxy.trusted;
    let address = forwarded::client(trusted, peer, &head.headers);
    let identity = ClientIdentity { address, principal: plan.principal };
    let number = serving.routes[plan.route];
    let key = &plan.key;
    let mut response = match let_in(state, serving, plan.denied, number, terms, &identity) {
        Err(refused) => {
            let body = (!head.headers.contains_key(EXPECT)).then_some(body);
            refuse(state, key, Audience::Client, refused, body).await
        }
        Ok(_permit) => {
            let producer = producer(&identity);
            let offer = Offer {
                key,
                producer: &producer,
                fields: terms.fields,
                max_bytes: terms.max_bytes,
                several_bytes: terms.several_bytes(),
                setting: "publish.max_bytes",
                maxlen: terms.maxlen,
                expire: terms.expire,
                audience: Audience::Client,
                through: "route",
            };
            let count = |entries: usize| {
                if let Some(rate) = terms.rate
                    && entries > 1
                {
                    let rates = &state.limits.rates;
                    rates.overdraw(rates.holder(number, &identity), rate, entries - 1);
                }
            };
            super::publish(state, &offer, &head.headers, body, count).await
        }
    };
    response.headers_mut().extend(plan.headers);
    if state.fanout.draining.is_cancelled() {
        if head.version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        tokio::spawn(async move {
            sleep(LAST_ANSWER).await;
            drop(under_way);
        });
    }
    response
}

/// What is known before the body.
fn let_in(
    state: &State,
    serving: &Serving,
    denied: Option<Denied>,
    number: u16,
    terms: &Publish,
    identity: &ClientIdentity,
) -> Result<BodyPermit, Refused> {
    match denied {
        Some(Denied::Page) => return Err(Refused::Page),
        Some(Denied::Token(response)) => return Err(Refused::Token(response)),
        Some(Denied::Keys) => return Err(Refused::Keys(serving.settings.refusal_time("keys"))),
        None => {}
    }
    if state.fanout.refusing.is_cancelled() {
        return Err(Refused::Drain(serving.settings.refusal_time("drain")));
    }
    if let Some(rate) = terms.rate {
        let rates = &state.limits.rates;
        rates.take(rates.holder(number, identity), rate).map_err(Refused::Rate)?;
    }
    state.limits.admit_body(identity).map_err(|LimitExceeded(_)| Refused::Busy)
}

/// Who names entries: a principal, or else an address.
fn producer(identity: &ClientIdentity) -> String {
    match (&identity.principal, identity.address) {
        (Some(principal), _) => format!("ssegate:{principal}"),
        (None, Some(address)) => format!("ssegate:{address}"),
        (None, None) => "ssegate:".to_owned(),
    }
}
