//! From accepting a connection to its first request: who is there, what they speak, and what they want. Whoever does not
//! say so in time, or while too many wait, is gone.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::listener::{Connection, Serve};
use super::peer::Peer;
use super::rewind::Rewind;
use super::takeover::{HEAD_BYTES, Requests, open, serve_http};
use super::visit::Requester;
use super::{head, hosted, proxy_header};
use crate::config;
use crate::limits::{PendingEnd, PendingSlot};
use crate::net::certificates;
use crate::net::certificates::Certificates;
use crate::state::State;

/// Serves public connections.
#[derive(Clone)]
pub struct PublicServer {
    /// What they may use.
    pub state: Arc<State>,
    /// Whether each of them begins with a PROXY header.
    pub behind_proxy: bool,
}

/// What a client that knows that we speak HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that it is known of what it is.
enum Protocol<C> {
    /// It has a whole head to read.
    Http1(Rewind<C>, Requester),
    /// It speaks HTTP/2.
    Http2(Rewind<C>, Requester),
    /// It speaks TLS.
    Encrypted(Box<TlsStream<Rewind<C>>>, Requester),
}

impl Serve for PublicServer {
    async fn serve<C: Connection>(self, connection: C, peer: Peer, mut slot: PendingSlot) {
        let state = &self.state;
        let config::Limits { header_timeout, write_stall, .. } = state.config().limits;
        let requester = Requester { id: state.next_connection(), peer };
        let (start, mut client) = (Instant::now(), None);
        let arrived = self.arrive(connection, requester, &mut client);
        let arrived = slot.until(header_timeout, arrived).await;
        match arrived {
            Ok(Some(Protocol::Http1(connection, client))) => {
                // A head may take its time, and a response.
                let left = (header_timeout + write_stall).saturating_sub(start.elapsed());
                // In a box of its own, for a connection that has come so far is no stranger.
                let requests = Requests::of(&self, client, slot.eviction_handle());
                let served = slot.until(left, Box::pin(serve_http(requests, connection))).await;
                match served {
                    Ok(Some((socket, wanted))) => open(state, socket, wanted, slot).await,
                    Ok(None) => {}
                    Err(cut) => is_cut(state, client, cut),
                }
            }
            Ok(Some(Protocol::Http2(connection, client))) => {
                Box::pin(hosted::serve_http2(&self, connection, client, slot)).await;
            }
            Ok(Some(Protocol::Encrypted(connection, client))) => {
                if connection.get_ref().1.alpn_protocol() == Some(certificates::HTTP2) {
                    Box::pin(hosted::serve_http2(&self, connection, client, slot)).await;
                } else {
                    Box::pin(hosted::serve_http1(&self, connection, client, slot)).await;
                }
            }
            Ok(None) => {}
            Err(PendingEnd::Overdue) => is_late(state, requester, client, header_timeout),
            Err(cut) => is_cut(state, requester, cut),
        }
    }
}

impl PublicServer {
    /// What a connection is, and who the `client` is as soon as that is known; `None`: it is no good, or gone.
    async fn arrive<C: Connection>(
        &self,
        connection: C,
        requester: Requester,
        client: &mut Option<Requester>,
    ) -> Option<Protocol<C>> {
        let state = &*self.state;
        let mut connection = Rewind::new(connection);
        let mut identity = requester;
        if self.behind_proxy {
            identity.peer = introduce(state, &mut connection, requester).await?;
        }
        *client = Some(identity);
        let Requester { id, peer: at } = identity;
        // Who is behind a unix socket is on this machine: a proxy, as a rule, that has TLS before it.
        let certificates = state.serving().certificates.clone();
        if let Some(Certificates(acceptor)) = certificates.filter(|_| requester.peer != Peer::Unix)
        {
            // Boxed: it takes more than all else together.
            let shaken = Box::pin(acceptor.accept(connection)).await;
            let encrypted = shaken.inspect_err(|error| {
                state.metrics.rejected("tls");
                debug!(connection = id.connection, peer = %at, %error, "connection ended");
            });
            return Some(Protocol::Encrypted(Box::new(encrypted.ok()?), identity));
        }
        let ended = |error: &io::Error| debug!(connection = id.connection, peer = %at, %error, "connection ended");
        if begins_http2(&mut connection).await.inspect_err(ended).ok()? {
            return Some(Protocol::Http2(connection, identity));
        }
        state.metrics.accepted.increment(1);
        head::wait(&mut connection, HEAD_BYTES).await.inspect_err(ended).ok()?;
        Some(Protocol::Http1(connection, identity))
    }
}

/// Who a connection's PROXY header says is there; `None`: it has none that is any good.
async fn introduce<C: Connection>(
    state: &State,
    connection: &mut Rewind<C>,
    requester: Requester,
) -> Option<Peer> {
    match proxy_header::read(connection).await {
        Ok(client) => return Some(client.map_or(requester.peer, Peer::at)),
        // As when somebody only looks whether we listen.
        Err(proxy_header::Fault::Ended(_)) if connection.ahead().is_empty() => {}
        Err(fault) => is_not_introduced(state, requester, &fault.to_string()),
    }
    None
}

fn is_not_introduced(state: &State, requester: Requester, fault: &str) {
    let Requester { id, peer: proxy } = requester;
    state.metrics.rejected("proxy_header");
    debug!(connection = id.connection, %proxy, fault, "connection refused");
    if state.refusals_told.allows("proxy_header") {
        warn!(connection = id.connection, %proxy, fault, "a connection is refused (more are told of at level debug); connect with the PROXY protocol (HAProxy: send-proxy-v2), or take the listener from proxy.protocol");
    }
}

/// Whether all of the preface is there.
async fn begins_http2<C: Connection>(connection: &mut Rewind<C>) -> io::Result<bool> {
    loop {
        let ahead = connection.ahead();
        if !PREFACE.starts_with(ahead) || ahead.len() == PREFACE.len() {
            return Ok(ahead == PREFACE);
        }
        // Whoever ends here asked for nothing: the wait for a request says so.
        if connection.look_further(PREFACE.len()).await? == 0 {
            return Ok(false);
        }
    }
}

/// Tells of one that did not say in time what it wants, or, behind a proxy, who its `client` is.
fn is_late(state: &State, requester: Requester, client: Option<Requester>, limit: Duration) {
    let Some(Requester { id, peer }) = client else {
        return is_not_introduced(state, requester, &format!("no PROXY header within {limit:?}"));
    };
    state.metrics.rejected("header_timeout");
    debug!(connection = id.connection, %peer, "connection closed: no request came in time");
}

/// Tells of a connection that is no stream and is closed.
pub(super) fn is_cut(state: &State, requester: Requester, cut: PendingEnd) {
    let Requester { id, peer } = requester;
    state.metrics.rejected(cut.as_str());
    debug!(connection = id.connection, %peer, reason = cut.as_str(), "connection closed");
}
