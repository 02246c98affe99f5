//! What a request over HTTP/2 or TLS gets: a response, or a stream with a body that a catch-up subscriber
//! fills.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Method, Request, Response, Version};
use tokio::time::timeout;

use super::mailbox::Mailbox;
use crate::fanout::{Body, CatchUpHalf, cut_after, follow_in_body};
use crate::http::admission::{StreamRequest, refusal_event};
use crate::http::merged_over::find_starts;
use crate::http::over::{NoStream, find_start};
use crate::http::publish::route;
use crate::http::request::{
    BODY_END_TIME, Requester, count_response, decide, has_content, head_of,
};
use crate::http::response;
use crate::http::router::{self, Decision};
use crate::http::{head, merged};
use crate::state::State;

/// A body that comes with a request is thrown away up to this.
pub(super) const UNWANTED_BODY_BYTES: u32 = 16 << 10;

/// A response: whole, or a stream.
type Answer = Response<Either<Full<Bytes>, Body>>;

/// Answers one request; the catch-up half of a stream goes to the mailbox.
pub(super) async fn answer(
    state: &Arc<State>,
    mut request: Request<Incoming>,
    requester: Requester,
    mailbox: &Mailbox,
) -> Result<Answer, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let serving = state.serving();
    let response = match decide(state, &serving, &request) {
        Decision::Respond(response) => response,
        Decision::Head(plan) => head::answer((state, &serving), requester, plan, &request).await,
        Decision::Publish(plan) => {
            let head = head_of(&request);
            let response = route::answer((state, &serving), requester.peer, *plan, request).await;
            count_response(state, &serving, requester, &head, response.status().as_u16());
            return Ok(response.map(Either::Left));
        }
        // The router sees only headers, and over HTTP/2 a body needs none.
        Decision::Stream(_) if has_content(request.body_mut()).await => {
            *router::unwanted_body(&serving.config, &serving.gate, request.headers())
        }
        Decision::Stream(mut plan) => {
            plan.framed = false;
            // Not where Node's fetch would take a body for whole that is left incomplete.
            if request.version() < Version::HTTP_2 && !plan.cuts {
                // A client comes back over another connection, perhaps to another gateway.
                plan.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let stream = StreamRequest::new(serving, requester, plan, &request);
            // A stream lasts long: its request's headers need not.
            drop(request);
            return Ok(open(state, &stream, mailbox).await);
        }
    };
    count_response(state, &serving, requester, &request, response.status().as_u16());
    // Some clients take a response before the end of their body for an error (curl 7.88).
    let body = Limited::new(request.into_body(), UNWANTED_BODY_BYTES as usize);
    let _ = timeout(BODY_END_TIME, body.collect()).await;
    // A response to HEAD has no body (RFC 9110, 9.3.2), but over HTTP/2 hyper would send it.
    Ok(response.map(|body| Either::Left(if is_head { Full::default() } else { body })))
}

/// Opens the stream, or refuses it.
async fn open(state: &Arc<State>, stream: &StreamRequest, mailbox: &Mailbox) -> Answer {
    mailbox.drain_token.get_or_init(|| state.hosted.token());
    match follow(state, stream, mailbox).await {
        Ok((catch_up, body)) => {
            mailbox.put(catch_up);
            response::stream_response(&stream.plan, Either::Right(body))
        }
        Err(NoStream::Refused(reason)) => refuse(state, stream, reason, mailbox),
        Err(NoStream::Over) => {
            stream.count_over(state, response::OVER_STATUS);
            response::over_response(&stream.plan).map(Either::Left)
        }
        Err(NoStream::EndAgain) => {
            stream.count_over(state, response::STREAM_STATUS);
            let body = Full::from(stream.end_again());
            response::stream_response(&stream.plan, Either::Left(body))
        }
    }
}

async fn follow(
    state: &Arc<State>,
    stream: &StreamRequest,
    mailbox: &Mailbox,
) -> Result<(CatchUpHalf, Body), NoStream> {
    if let Some(parts) = &stream.plan.merged {
        let (admitted, leases) = merged::admit(state, stream, parts).map_err(NoStream::Refused)?;
        mailbox.admitted.notify_one();
        let starts = find_starts(state, stream, parts, &leases).await?;
        let opening = Vec::new();
        let opened = merged::begin(state, stream, parts, admitted, leases, &starts, opening);
        return Ok(opened.follow_in_body(&state.fanout));
    }
    let (permit, lease) = stream.admit(state).map_err(NoStream::Refused)?;
    // From here on it counts as a client, even while it waits for the source.
    mailbox.admitted.notify_one();
    let subscriber = stream.subscriber(state, permit, lease);
    let start = find_start(state, stream, &subscriber.lease).await?;
    let machine = stream.begin(state, &subscriber, start, Vec::new());
    Ok(follow_in_body(&state.fanout, subscriber, machine))
}

fn refuse(
    state: &State,
    stream: &StreamRequest,
    reason: &'static str,
    mailbox: &Mailbox,
) -> Answer {
    stream.count_refusal(state, reason);
    let settings = &stream.serving.settings;
    let wait = settings.refusal_time(reason);
    if stream.refuses_by_status() {
        state.metrics.responded(response::REFUSED_STATUS);
        return response::refused_response(&stream.plan, wait, reason).map(Either::Left);
    }
    state.metrics.responded(response::STREAM_STATUS);
    let event = refusal_event(wait, reason);
    if !stream.route().rules.cuts {
        return response::stream_response(&stream.plan, Either::Left(Full::from(event)));
    }
    let (catch_up, body) = cut_after(event, settings.write_stall);
    mailbox.put(catch_up);
    response::stream_response(&stream.plan, Either::Right(body))
}
