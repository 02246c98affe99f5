//! What `HEAD` gets of a stream that may be over: what `GET` would get now, without its body.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};

use super::admission::StreamRequest;
use super::merged_over::is_any_there;
use super::over::{NoStream, is_there};
use super::plan::Plan;
use super::request::Requester;
use super::response::{over_response, refused_response, stream_response};
use crate::state::{Serving, State};

/// The response.
pub(super) async fn answer(
    (state, serving): (&State, &Arc<Serving>),
    requester: Requester,
    plan: Plan,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let stream = StreamRequest::new(serving.clone(), requester, plan, request);
    match find(state, &stream).await {
        Ok(()) | Err(NoStream::EndAgain) => stream_response(&stream.plan, Full::default()),
        Err(NoStream::Over) => over_response(&stream.plan),
        Err(NoStream::Refused(reason)) => {
            state.metrics.rejected(reason);
            refused(&stream, reason)
        }
    }
}

async fn find(state: &State, stream: &StreamRequest) -> Result<(), NoStream> {
    if let Some(parts) = &stream.plan.merged {
        return is_any_there(state, stream, parts).await;
    }
    let (_permit, lease) = stream.admit(state).map_err(NoStream::Refused)?;
    is_there(state, stream, &lease).await
}

fn refused(stream: &StreamRequest, reason: &'static str) -> Response<Full<Bytes>> {
    if !stream.refuses_by_status() {
        return stream_response(&stream.plan, Full::default());
    }
    let wait = stream.serving.settings.refusal_time(reason);
    refused_response(&stream.plan, wait, reason).map(|_| Full::default())
}
