//! Whether a stream that runs would be let in again: its request once more, as far as that decides it.

use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Request};

use super::{cors, router};
use crate::auth::grant::{AuthContext, Credential};
use crate::config::TokenPlace;
use crate::state::Serving;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// No name of a host, and no origin of one, is longer; whoever sends more is not remembered by it, and
/// matches none.
const HOST_BYTES: usize = 300;

/// What a request for the stream `key`, with the token that it was let in with, is judged by later.
pub(super) fn context<B>(
    request: &Request<B>,
    key: &str,
    credential: Option<Credential>,
) -> AuthContext {
    let headers = request.headers();
    let kept = |bytes: &[u8]| Box::from(&bytes[..bytes.len().min(HOST_BYTES)]);
    let header = |name| headers.get(name).map(|value: &HeaderValue| kept(value.as_bytes()));
    let authority = request.uri().authority().map(|authority| kept(authority.as_str().as_bytes()));
    AuthContext {
        path: request.uri().path().into(),
        key: key.into(),
        host: authority.or_else(|| header(HOST)),
        origin: header(ORIGIN),
        site: header(SITE),
        cookies: headers.contains_key(COOKIE),
        credential,
    }
}

/// Whether whoever was let in on this basis, last by what served `before`, is let in by what serves `now`.
pub fn is_still_allowed(before: &Serving, now: &Serving, context: &AuthContext) -> bool {
    let Some(request) = request(context) else { return false };
    let reading = |serving: &Serving| cors::reading(&serving.config.cors, request.headers());
    reading(before) <= reading(now)
        && router::still_allows(&now.config, &now.gate, &request, context)
}

/// The request, without what decides nothing.
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
                target = format!("{target}?{}", query.append_pair(name, token).finish());
            }
        }
    }
    let mut request = Request::get(target).body(()).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}
