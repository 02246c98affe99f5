//! Who makes a request, what it gets, and what is counted and logged of it where no stream comes of it.

use hyper::{Request, Version};

use super::forwarded;
use super::peer::Peer;
use super::router::{self, Decision};
use crate::fanout::LogId;
use crate::state::{Serving, State};
use crate::telemetry::log::ACCESS;

/// One connection, or one request of it where it has many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requester {
    /// Its name in the log.
    pub(super) id: LogId,
    /// Who is at the other end.
    pub(super) peer: Peer,
}

/// What a request gets, whatever it is spoken over.
pub(super) fn decide<B>(state: &State, serving: &Serving, request: &Request<B>) -> Decision {
    let Some((reason, response)) = router::too_long(request.uri()) else {
        return router::decide(&serving.config, &serving.gate, request);
    };
    state.metrics.rejected(reason);
    Decision::Respond(*response)
}

/// An ordinary response goes out.
pub(super) fn answered<B>(
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

/// The version of HTTP, as it is written.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
