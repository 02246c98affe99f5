//! Whether a new configuration would admit a running stream: the facts of its request, made a request
//! again, go through the same router and gate.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request};

use super::{cors, router};
use crate::auth::grant::{AuthContext, ClaimedRows, Credential};
use crate::config::TokenPlace;
use crate::state::Serving;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// No host's name or origin is longer. A longer one is cut, and then matches none.
const MAX_HOST_BYTES: usize = 300;

/// The facts of a request for the stream `key`, the token that admitted it, and the entries that it opens; `chosen` is
/// the query that names its streams, where it chose some.
pub(super) fn context<B>(
    request: &Request<B>,
    key: &str,
    chosen: Option<&str>,
    (credential, rows): (Option<Credential>, Option<Arc<ClaimedRows>>),
) -> AuthContext {
    let path = request.uri().path();
    let headers = request.headers();
    let kept = |bytes: &[u8]| Box::from(&bytes[..bytes.len().min(MAX_HOST_BYTES)]);
    let header = |name| headers.get(name).map(|value: &HeaderValue| kept(value.as_bytes()));
    let authority = request.uri().authority().map(|authority| kept(authority.as_str().as_bytes()));
    AuthContext {
        path: chosen.map_or_else(|| path.into(), |chosen| format!("{path}?{chosen}").into()),
        key: key.into(),
        host: authority.or_else(|| header(HOST)),
        origin: header(ORIGIN),
        site: header(SITE),
        cookies: headers.contains_key(COOKIE),
        credential,
        rows,
    }
}

/// Whether a stream that `before` admitted by these facts is admitted by `now`.
pub fn is_still_allowed(before: &Serving, now: &Serving, context: &AuthContext) -> bool {
    let Some(request) = request(context) else { return false };
    let access = |serving: &Serving| cors::page_access(&serving.config.cors, &request);
    access(before) <= access(now) && router::still_allows(&now.config, &now.gate, &request, context)
}

/// A request with these facts.
fn request(context: &AuthContext) -> Option<Request<()>> {
    let mut headers = HeaderMap::new();
    let known = [(HOST, &context.host), (ORIGIN, &context.origin), (SITE, &context.site)];
    for (name, value) in known {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    if context.cookies {
        headers.insert(COOKIE, HeaderValue::from_static(""));
    }
    let mut target = context.path.to_string();
    if let Some(Credential { place, token, .. }) = &context.credential {
        let token = token.expose();
        match place {
            TokenPlace::Header => {
                headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().ok()?);
            }
            TokenPlace::Cookie(name) => {
                headers.insert(COOKIE, format!("{name}={token}").parse().ok()?);
            }
            TokenPlace::Query(name) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                let joint = if target.contains('?') { '&' } else { '?' };
                target = format!("{target}{joint}{}", query.append_pair(name, token).finish());
            }
        }
    }
    let mut request = Request::get(target).body(()).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}
