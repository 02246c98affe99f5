//! From an accepted connection to its first request: who is at the other end, what is spoken, and which
//! server takes it from there. A client that is too slow, or that waits while too many others do, is closed.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::hosted;
use super::listener::{Connection, Serve};
use super::peer::Peer;
use super::proxy_header::{self, HeaderError};
use super::request::{Requester, count_pending_end};
use super::request_head::wait_for_head;
use super::rewind::Rewind;
use super::takeover::{self, Requests};
use crate::config;
use crate::fanout::LogId;
use crate::limits::{PendingEnd, PendingSlot};
use crate::net::certificates;
use crate::net::certificates::Certificates;
use crate::state::State;

/// Serves public connections.
#[derive(Clone)]
pub struct PublicServer {
    /// The parts of the gateway.
    pub state: Arc<State>,
    /// Whether each connection begins with a PROXY header.
    pub behind_proxy: bool,
}

/// A client that knows that we speak HTTP/2 begins with this (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, by what it speaks.
enum Protocol<C> {
    /// A whole request head can be read from it.
    Http1(Rewind<C>),
    Http2(Rewind<C>),
    Tls(Box<TlsStream<Rewind<C>>>),
}

impl Serve for PublicServer {
    async fn serve<C: Connection>(self, connection: C, peer: Peer, mut slot: PendingSlot) {
        let state = &self.state;
        let config::Limits { header_timeout, write_stall, .. } = state.config().limits;
        let accepted = Requester { id: state.next_connection(), peer };
        let (start, mut client) = (Instant::now(), None);
        let identified = self.identify(connection, accepted, &mut client);
        let identified = slot.until(header_timeout, identified).await;
        let requester = client.unwrap_or(accepted);
        match identified {
            Ok(Some(Protocol::Http1(connection))) => {
                // A head and a response may take their time.
                let left = (header_timeout + write_stall).saturating_sub(start.elapsed());
                let requests = Requests::new(state.clone(), requester, slot.eviction_handle());
                // Boxed here and below: most pending connections do not come so far.
                let served = Box::pin(takeover::serve(requests, connection));
                match slot.until(left, served).await {
                    Ok(Some((socket, stream))) => takeover::open(state, socket, stream, slot).await,
                    Ok(None) => {}
                    Err(end) => count_pending_end(state, requester, end),
                }
            }
            Ok(Some(Protocol::Http2(connection))) => {
                Box::pin(hosted::serve_http2(state, connection, requester, slot)).await;
            }
            Ok(Some(Protocol::Tls(connection))) => {
                if connection.get_ref().1.alpn_protocol() == Some(certificates::HTTP2) {
                    Box::pin(hosted::serve_http2(state, connection, requester, slot)).await;
                } else {
                    Box::pin(hosted::serve_http1(state, connection, requester, slot)).await;
                }
            }
            Ok(None) => {}
            Err(PendingEnd::Overdue) => log_overdue(state, accepted, client, header_timeout),
            Err(end) => count_pending_end(state, accepted, end),
        }
    }
}

impl PublicServer {
    /// What a connection speaks, and its `client` as soon as that is known; `None`: the connection has
    /// ended, or is refused.
    async fn identify<C: Connection>(
        &self,
        connection: C,
        accepted: Requester,
        client: &mut Option<Requester>,
    ) -> Option<Protocol<C>> {
        let state = &*self.state;
        let mut connection = Rewind::new(connection);
        let mut requester = accepted;
        if self.behind_proxy {
            let Requester { id, peer } = accepted;
            requester.peer = proxied_peer(state, &mut connection, id, peer).await?;
        }
        *client = Some(requester);
        // A unix socket is connected to by a proxy on this machine, which has ended TLS already.
        let certificates = state.serving().certificates.clone();
        if let Some(Certificates(acceptor)) = certificates.filter(|_| accepted.peer != Peer::Unix) {
            return accept_tls(state, acceptor, connection, requester).await.map(Protocol::Tls);
        }
        let ended = |error: &io::Error| log_ended(requester, error);
        if begins_http2(&mut connection).await.inspect_err(ended).ok()? {
            return Some(Protocol::Http2(connection));
        }
        state.metrics.accepted.increment(1);
        let header_bytes = state.config().limits.header_bytes;
        wait_for_head(&mut connection, header_bytes).await.inspect_err(ended).ok()?;
        Some(Protocol::Http1(connection))
    }
}

async fn accept_tls<C: Connection>(
    state: &State,
    acceptor: TlsAcceptor,
    mut connection: Rewind<C>,
    requester: Requester,
) -> Option<Box<TlsStream<Rewind<C>>>> {
    // Probes only look whether we listen.
    let ended = |error: &io::Error| log_ended(requester, error);
    if connection.ahead().is_empty()
        && connection.look_further(1).await.inspect_err(ended).ok()? == 0
    {
        return None;
    }
    // Boxed: a handshake takes more room than all else together.
    let accepted = Box::pin(acceptor.accept(connection)).await.inspect_err(|error| {
        state.metrics.rejected("tls");
        log_ended(requester, error);
    });
    accepted.ok().map(Box::new)
}

/// The client that a connection's PROXY header names; `None`: the connection has no valid header.
pub async fn proxied_peer<C: Connection>(
    state: &State,
    connection: &mut Rewind<C>,
    id: LogId,
    peer: Peer,
) -> Option<Peer> {
    match proxy_header::read(connection).await {
        Ok(client) => return Some(client.map_or(peer, Peer::at)),
        // Probes only look whether we listen.
        Err(HeaderError::Ended(_)) if connection.ahead().is_empty() => {}
        Err(fault) => log_no_proxy_header(state, Requester { id, peer }, &fault.to_string()),
    }
    None
}

/// Whether the connection begins with the whole preface.
async fn begins_http2<C: Connection>(connection: &mut Rewind<C>) -> io::Result<bool> {
    loop {
        let ahead = connection.ahead();
        if !PREFACE.starts_with(ahead) || ahead.len() == PREFACE.len() {
            return Ok(ahead == PREFACE);
        }
        // A client that ends here is noticed by the wait for its request.
        if connection.look_further(PREFACE.len()).await? == 0 {
            return Ok(false);
        }
    }
}

fn log_ended(Requester { id, peer }: Requester, error: &io::Error) {
    debug!(connection = id.connection, %peer, %error, "connection ended");
}

/// Without a `client` the connection was still waiting for its PROXY header, else for a request.
fn log_overdue(state: &State, accepted: Requester, client: Option<Requester>, limit: Duration) {
    let Some(Requester { id, peer }) = client else {
        return log_no_proxy_header(state, accepted, &format!("no PROXY header within {limit:?}"));
    };
    state.metrics.rejected("header_timeout");
    debug!(connection = id.connection, %peer, "connection closed: no request came in time");
}

fn log_no_proxy_header(state: &State, accepted: Requester, fault: &str) {
    let Requester { id, peer: proxy } = accepted;
    state.metrics.rejected("proxy_header");
    debug!(connection = id.connection, %proxy, fault, "connection refused");
    if state.refusals_told.allows("proxy_header") {
        warn!(connection = id.connection, %proxy, fault, "a connection is refused for its PROXY header (more are logged at level debug); connect with the PROXY protocol (HAProxy: send-proxy-v2), or remove the listener from proxy.protocol");
    }
}
