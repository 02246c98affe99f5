//! What every request goes through, whatever carries it: who makes it, the decision, and what is counted and
//! logged where it gets no stream.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Version};
use tokio::time::timeout;
use tracing::debug;

use super::forwarded;
use super::peer::Peer;
use super::router::{self, Decision};
use crate::fanout::LogId;
use crate::limits::PendingEnd;
use crate::state::{Serving, State};
use crate::telemetry::log::ACCESS;

/// How long the end of a body is waited for.
pub(super) const BODY_END_TIME: Duration = Duration::from_millis(200);

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requester {
    /// The connection's name in the log, and over HTTP/2 the request's.
    pub(super) id: LogId,
    /// The other end of the connection.
    pub(super) peer: Peer,
}

/// Decides what a request gets; one whose head is too large gets no further.
pub(super) fn decide<B>(state: &State, serving: &Serving, request: &Request<B>) -> Decision {
    let (config, gate) = (&serving.config, &serving.gate);
    let Some((reason, response)) = router::too_long(config, gate, request) else {
        return router::decide(config, gate, request);
    };
    state.metrics.rejected(reason);
    Decision::Respond(*response)
}

/// Waits shortly for the end of a request's body, and returns whether it has content. Proxies and clients end
/// an empty body after the head, in a frame or a chunk of its own.
pub(super) async fn has_content(body: &mut Incoming) -> bool {
    let content = async {
        while let Some(frame) = body.frame().await {
            // What cannot be read is no empty body.
            let Ok(frame) = frame else { return true };
            if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                return true;
            }
        }
        false
    };
    // Without an end there is no content either: what a client sends under its stream is thrown away.
    timeout(BODY_END_TIME, content).await.unwrap_or(false)
}

/// The request without its body, for [`count_response`].
pub(super) fn head_of<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    head.headers_mut().clone_from(request.headers());
    head
}

/// Counts and logs an ordinary response.
pub(super) fn count_response<B>(
    state: &State,
    serving: &Serving,
    requester: Requester,
    request: &Request<B>,
    status: u16,
) {
    state.metrics.responded(status);
    if !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
        return;
    }
    let LogId { connection, stream } = requester.id;
    let trusted = &serving.config.proxy.trusted;
    let address = forwarded::client(trusted, requester.peer, request.headers());
    tracing::info!(
        target: ACCESS,
        connection,
        stream,
        address = address.map(tracing::field::display),
        method = request.method().as_str(),
        path = request.uri().path(),
        protocol = protocol(request.version()),
        status,
        "access"
    );
}

/// Counts and logs a pending connection that was closed.
pub(super) fn count_pending_end(state: &State, Requester { id, peer }: Requester, end: PendingEnd) {
    state.metrics.rejected(end.as_str());
    debug!(connection = id.connection, %peer, reason = end.as_str(), "connection closed");
}

/// The version of HTTP, as it is written.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
