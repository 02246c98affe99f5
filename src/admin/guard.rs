//! Who may use the admin listener: the token, and the defence against pages of other origins.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};

use super::response::Refusal;
use crate::auth::cookies::is_of_host;
use crate::auth::host;
use crate::http::peer::Peer;
use crate::http::response::text;
use crate::state::State;

/// The request has to carry the token, if one is configured.
pub(super) fn token(state: &State, headers: &HeaderMap) -> Result<(), Refusal> {
    let config = state.config();
    let Some(token) = &config.admin.token else { return Ok(()) };
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
    if same_in_constant_time(given.as_bytes(), token.expose().as_bytes()) {
        return Ok(());
    }
    let mut refusal =
        text(StatusCode::UNAUTHORIZED, "a bearer token is required (admin.token_file)");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(refusal)
}

/// The request may add entries unless it comes from a page of another origin.
pub(super) fn write<B>(state: &State, request: &Request<B>) -> Result<(), Refusal> {
    token(state, request.headers())?;
    let guarded = state.config().admin.token.is_some();
    if is_foreign(request)
        || (!guarded && is_from_a_page(request.headers()) && !is_addressed(request))
    {
        return Err(text(StatusCode::FORBIDDEN, "a page of another origin may not publish"));
    }
    Ok(())
}

/// The request may read the state of the gateway.
///
/// A browser's `GET` does not show whether the page is ours or one whose name an attacker made resolve to
/// this machine (DNS rebinding). So without a token, the Host has to be an address or `localhost`, which
/// no such page has. Browsers do not use unix sockets.
pub(super) fn read<B>(state: &State, peer: Peer, request: &Request<B>) -> Result<(), Refusal> {
    token(state, request.headers())?;
    if is_foreign(request) {
        return Err(text(StatusCode::FORBIDDEN, "a page of another origin may not read this"));
    }
    let guarded = state.config().admin.token.is_some() || peer == Peer::Unix;
    if !guarded && !is_addressed(request) {
        let message = "without admin.token_file, use an address or localhost as the host: this prevents DNS rebinding";
        return Err(text(StatusCode::FORBIDDEN, message));
    }
    Ok(())
}

/// Compares in constant time, which does not reveal how much of a guess was right.
fn same_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Whether a browser sent this for a page.
fn is_from_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Whether the Host is an address or `localhost`, not a name that an attacker can make resolve to us.
fn is_addressed<B>(request: &Request<B>) -> bool {
    let (name, _) = host::parts(host::asked(request), "");
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Whether a browser sent this for a page of another origin.
fn is_foreign<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    // The admin listener speaks no TLS.
    !origin.as_bytes().starts_with(b"http://") || !is_of_host(origin, request)
}
