//! Which request gets what.
//!
//! - `GET` of a route's path: a stream; `HEAD`: only its head
//! - `POST` to it, where it has `publish`: entries to add
//! - `OPTIONS` of it, from a page of another origin: what the page may ask for
//! - `GET /` under `--demo`: the page
//! - anything else: a refusal, with a line of text that says why

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ALLOW, CONTENT_LENGTH, EXPECT, HeaderValue, REFERRER_POLICY, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};

use super::merged_start::{MergedStart, merged_start};
use super::parts::{self, Asked};
use super::plan::{MergedPlan, PartPlan, Plan};
use super::publish::page;
use super::publish::route::{self as publish, PublishPlan};
use super::response::{self, demo_page, stream_response, text};
use super::{cors, filter, request_head, start_param};
use crate::auth::grant::{AuthContext, ClaimedRows};
use crate::auth::{Admission, Denied, Gate, host};
use crate::config::{Absent, Access, Config, Route, Rows, is_own_parameter};
use crate::sse::{RowValue, Selection};
use crate::stream::start::Start;

/// What a request gets.
pub enum Decision {
    /// A stream.
    Stream(Plan),
    /// The head of a stream, if there is one: the source has to tell.
    Head(Plan),
    /// Entries to add, once their body has come.
    Publish(Box<PublishPlan>),
    /// An ordinary response.
    Respond(Response<Full<Bytes>>),
}

/// Decides what a request gets.
pub fn decide<B>(config: &Config, gate: &Gate, request: &Request<B>) -> Decision {
    let headers = page_headers(config, gate, request.headers());
    match plan(config, gate, request) {
        Ok(Decision::Stream(mut plan)) => {
            plan.headers.extend(headers);
            Decision::Stream(plan)
        }
        Ok(Decision::Head(mut plan)) => {
            plan.headers.extend(headers);
            Decision::Head(plan)
        }
        Ok(Decision::Publish(mut plan)) => {
            plan.headers.extend(headers);
            Decision::Publish(plan)
        }
        Ok(Decision::Respond(mut response)) => {
            response.headers_mut().extend(headers);
            Decision::Respond(response)
        }
        // A page that may read the stream may read the refusal, too.
        Err(mut refusal) => {
            refusal.headers_mut().extend(headers);
            Decision::Respond(*refusal)
        }
    }
}

/// The headers that every answer has for the page behind the request.
pub(super) fn page_headers(config: &Config, gate: &Gate, request: &HeaderMap) -> HeaderMap {
    let mut headers = cors::headers(&config.cors, request);
    if gate.reads_query() {
        // The URL may hold a token: it must not become the referrer of another request.
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    headers
}

/// Whether this request would still be admitted to the stream of `context`.
pub fn still_allows<B>(
    config: &Config,
    gate: &Gate,
    request: &Request<B>,
    context: &AuthContext,
) -> bool {
    let Ok((_, route, variables)) = find(config, request.uri().path()) else { return false };
    let asked = parts::asked(route, variables, request.uri().query());
    let Ok(asked) = asked else { return false };
    asked.key == *context.key
        && gate.still_allows(route, &asked.variables, request, context)
        && check_host(config, request).is_ok()
}

/// The longest target of a request, and the longest query in it: many chosen streams, a last event id of them, which a
/// page may write there, and a token.
const TARGET_BYTES: usize = 16 << 10;
const QUERY_BYTES: usize = 14 << 10;

/// The limit that a head is too large for, if any, and the refusal.
pub(super) fn too_long<B>(
    config: &Config,
    gate: &Gate,
    request: &Request<B>,
) -> Option<(&'static str, Refusal)> {
    let target = request.uri();
    let query = target.query().map_or(0, str::len);
    let all = target.path().len() + query;
    let header_bytes = config.limits.header_bytes;
    let too_long = |reason, most| {
        let message = format!("longer than {most} bytes: {reason}");
        Some((reason, text(StatusCode::URI_TOO_LONG, &message)))
    };
    let refused = if query > QUERY_BYTES {
        too_long("query", QUERY_BYTES)
    } else if all > TARGET_BYTES {
        too_long("request_line", TARGET_BYTES)
    } else if request_head::is_too_large(request, header_bytes) {
        let message = response::too_large(header_bytes);
        Some(("head", text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &message)))
    } else {
        None
    };
    refused.map(|(reason, mut refusal)| {
        refusal.headers_mut().extend(page_headers(config, gate, request.headers()));
        (reason, refusal)
    })
}

/// Boxed, for it is large and rare.
type Refusal = Box<Response<Full<Bytes>>>;

fn plan<B>(config: &Config, gate: &Gate, request: &Request<B>) -> Result<Decision, Refusal> {
    if let Some(fault) = host::fault(request) {
        return Err(bad(fault));
    }
    check_host(config, request)?;
    let path = request.uri().path();
    if config.demo && path == "/" {
        check_method(request, false)?;
        return Ok(Decision::Respond(demo_page()));
    }
    let (index, route, variables) = find(config, path)?;
    if cors::is_preflight(&config.cors, request) {
        return preflight(config, route, request.headers()).map(Decision::Respond);
    }
    if request.method() == Method::POST
        && let Some(terms) = &route.publish
    {
        let plan = publish_plan((config, gate), (index, route, &terms.access), &variables, request);
        return Ok(Decision::Publish(Box::new(plan)));
    }
    check_method(request, route.publish.is_some())?;
    let asked = parts::asked(route, variables, request.uri().query()).map_err(|why| bad(&why))?;
    let (admission, unavailable) = match gate.admit(route, &asked.variables, request) {
        Ok(admission) => (admission, None),
        // Not the client's fault: it is told to try again.
        Err(Denied::Keys) => (Admission::default(), Some("keys")),
        Err(denied) => return Err(denial(denied)),
    };
    // Clients of language models say that they accept JSON, and mean the data of the events.
    if route.rules.end().is_none() {
        check_accept(request.headers())?;
    }
    check_bodiless(request.headers())?;
    let state = route.rules.snapshot.as_ref().map(|rule| Arc::new(rule.query(&asked.variables)));
    let (key, start, merged) = beginning(route, asked, request).map_err(|why| bad(&why))?;
    let query = request.uri().query().unwrap_or("");
    let own = |name: &str| {
        is_own_parameter(name, &config.jwt.from) || route.streams.query() == Some(name)
    };
    let filters = filter::filters(query, &route.rows, own).map_err(|why| bad(&why))?;
    let plan = Plan {
        route: index,
        key,
        merged,
        state,
        selection: selection(&route.rows, admission.rows.as_deref(), filters),
        start,
        framed: request.version() == Version::HTTP_11,
        headers: HeaderMap::new(),
        cuts: route.rules.cuts,
        stream_headers: route.headers.clone(),
        principal: admission.principal,
        token: admission.token,
        credential: admission.credential,
        claimed: admission.rows,
        unavailable,
    };
    if request.method() == Method::HEAD {
        return match unavailable {
            None if may_be_over(route) => Ok(Decision::Head(plan)),
            None => Ok(Decision::Respond(stream_response(&plan, Full::default()))),
            Some(_) => Err(text(StatusCode::SERVICE_UNAVAILABLE, "not now")),
        };
    }
    Ok(Decision::Stream(plan))
}

/// What a client gets that the token opens and the client wants; `None`: everything.
fn selection(
    rows: &Rows,
    claimed: Option<&ClaimedRows>,
    mut wanted: Vec<(usize, Vec<RowValue>)>,
) -> Option<Arc<Selection>> {
    let opened = rows.claims.iter().map(|claim| {
        let values = claimed.and_then(|claimed| claimed.of(&rows.columns[claim.column].field));
        // Without a value nothing is opened.
        (claim.column, values.unwrap_or_default().to_vec())
    });
    wanted.extend(opened);
    (!wanted.is_empty()).then(|| Arc::new(Selection::new(wanted)))
}

/// The stream key, and where the client begins; or the parts of a merged stream, each with that.
type Beginning = (String, Start, Option<Box<MergedPlan>>);

fn beginning<B>(route: &Route, asked: Asked, request: &Request<B>) -> Result<Beginning, String> {
    let Asked { key, parts, chosen, .. } = asked;
    if route.streams.one().is_some() {
        return Ok((key, start_param::start(request, route.replay, route.start)?, None));
    }
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    let MergedStart { parts: starts, strangers } =
        merged_start(request, route.replay, route.start, &names)?;
    let parts = parts.into_iter().zip(starts);
    let parts = parts.map(|((name, key), start)| PartPlan { name: name.into(), key, start });
    let merged = MergedPlan { parts: parts.collect(), strangers, chosen };
    Ok((key, start_param::of_route(route.start), Some(Box::new(merged))))
}

fn publish_plan<B>(
    (config, gate): (&Config, &Gate),
    (index, route, access): (usize, &Route, &Access),
    variables: &[(String, String)],
    request: &Request<B>,
) -> PublishPlan {
    let admitted = if page::is_foreign(&config.cors, request) {
        Err(publish::Denied::Page)
    } else {
        gate.admit_writer(access, route, variables, request).map_err(|denied| match denied {
            Denied::Keys => publish::Denied::Keys,
            denied => publish::Denied::Token(denial(denied)),
        })
    };
    let (principal, denied) = match admitted {
        Ok(admission) => (admission.principal, None),
        Err(denied) => (None, Some(denied)),
    };
    let key = route.streams.one().map(|key| key.key(variables)).unwrap_or_default();
    PublishPlan { route: index, key, headers: HeaderMap::new(), principal, denied }
}

/// Against DNS rebinding: an attacker's name can be made to resolve to our address.
fn check_host<B>(config: &Config, request: &Request<B>) -> Result<(), Refusal> {
    let allowed = &config.server.hosts;
    if allowed.is_empty() {
        return Ok(());
    }
    let (name, _) = host::parts(host::asked(request), "");
    let known = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if known {
        Ok(())
    } else {
        Err(text(StatusCode::MISDIRECTED_REQUEST, "this Host is not served here (server.hosts)"))
    }
}

/// Whether the source may say that there is no stream.
fn may_be_over(route: &Route) -> bool {
    route.rules.end().is_some() || route.absent != Absent::Wait
}

/// A route's index, the route, and its variables in a request.
type Found<'a> = (usize, &'a Route, Vec<(String, String)>);

/// The most specific route that matches.
fn find<'a>(config: &'a Config, path: &str) -> Result<Found<'a>, Refusal> {
    let matching = config.routes.iter().enumerate().filter_map(|(index, route)| {
        let variables = route.path.matches(path)?;
        Some((index, route, variables))
    });
    // No two routes are equally specific: such a configuration is rejected.
    let best = matching.min_by(|(_, a, _), (_, b, _)| a.path.by_specificity(&b.path));
    best.ok_or_else(|| text(StatusCode::NOT_FOUND, "no such route"))
}

/// The client only learns whether another token may help (RFC 6750, 3).
fn denial(denied: Denied) -> Refusal {
    let (message, challenge) = match denied {
        Denied::Match => {
            return text(StatusCode::FORBIDDEN, "the token is good, and not for this path");
        }
        Denied::Missing => ("a token is needed", "Bearer"),
        _ => ("the token is not accepted", "Bearer error=\"invalid_token\""),
    };
    let mut response = text(StatusCode::UNAUTHORIZED, message);
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

fn preflight(
    config: &Config,
    route: &Route,
    request: &HeaderMap,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let Some(headers) = cors::preflight(&config.cors, route.publish.is_some(), request) else {
        return Err(text(StatusCode::FORBIDDEN, "no pages of this origin (cors.origins)"));
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    Ok(response)
}

fn check_method<B>(request: &Request<B>, may_publish: bool) -> Result<(), Refusal> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let (message, allowed) = if may_publish {
        ("only GET, HEAD and POST", "GET, HEAD, POST")
    } else {
        ("only GET and HEAD", "GET, HEAD")
    };
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, message);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Err(response)
}

/// A client that does not accept event streams would not understand one.
fn check_accept(headers: &HeaderMap) -> Result<(), Refusal> {
    // The most specific range that matches, and whether its weight accepts. Without ranges all is accepted.
    let mut best = None;
    let mut has_ranges = false;
    for value in headers.get_all(ACCEPT) {
        let value = value.to_str().unwrap_or("*/*").to_ascii_lowercase();
        for range in value.split(',').filter(|range| !range.trim().is_empty()) {
            has_ranges = true;
            let mut parts = range.split(';').map(str::trim);
            let specificity = match parts.next().unwrap_or("") {
                "text/event-stream" => 2,
                "text/*" => 1,
                // Java writes the second.
                "*/*" | "*" => 0,
                _ => continue,
            };
            let refused = parts.any(
                |p| matches!(p.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(q)) if q <= 0.0),
            );
            best = best.max(Some((specificity, !refused)));
        }
    }
    if best.map_or(!has_ranges, |(_, accepted)| accepted) {
        return Ok(());
    }
    Err(text(StatusCode::NOT_ACCEPTABLE, "this is an event stream: accept text/event-stream"))
}

/// What the head says of a body. One whose end has yet to come may be empty: the server waits for it.
fn check_bodiless(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_zero =
        |length: &HeaderValue| !length.as_bytes().iter().any(|byte| (b'1'..=b'9').contains(byte));
    let is_empty = headers.get_all(CONTENT_LENGTH).iter().all(is_zero);
    let expects = headers.get_all(EXPECT).iter().any(|expected| !expected.is_empty());
    if is_empty && !expects {
        return Ok(());
    }
    Err(text(StatusCode::BAD_REQUEST, "a stream is asked for without a body and without Expect"))
}

/// The refusal of a stream that is asked for with a body.
pub(super) fn unwanted_body(config: &Config, gate: &Gate, request: &HeaderMap) -> Refusal {
    let mut refusal = bad("a stream is asked for without a body");
    refusal.headers_mut().extend(page_headers(config, gate, request));
    refusal
}

fn bad(message: &str) -> Refusal {
    text(StatusCode::BAD_REQUEST, message)
}
