//! Who makes a request, and what the access log says of it where no stream comes of it.

use hyper::{Request, Version};

use super::forwarded;
use super::peer::Peer;
use crate::config::Trusted;
use crate::fanout::{ACCESS, Id};

/// One connection, or one request of it where it has many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Its name in the log.
    pub(super) id: Id,
    /// Who is at the other end.
    pub(super) peer: Peer,
}

/// An ordinary response goes out.
pub(super) fn answered<B>(caller: Caller, trusted: &Trusted, request: &Request<B>, status: u16) {
    if !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
        return;
    }
    let Id { connection, stream } = caller.id;
    let address = forwarded::client(trusted, caller.peer, request.headers());
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
