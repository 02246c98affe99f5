//! From accepting a connection to its first request: who is there, what they speak, and what they want. Whoever does not
//! say so in time, or while too many wait, is gone.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::access::Gate;
use super::listener::{Connection, Serve};
use super::peer::Peer;
use super::prefixed::Prefixed;
use super::takeover::{Asked, HEAD_BYTES, Requests, open, serve_http};
use super::{head, hosted, proxy_header, tls};
use crate::config;
use crate::fanout::Socket;
use crate::limits::{Cut, Place};
use crate::state::State;

/// Serves public connections.
#[derive(Clone)]
pub struct Public {
    /// What they may use.
    pub state: Arc<State>,
    /// Who may read what.
    pub gate: Arc<Gate>,
    /// Whether each of them begins with a PROXY header.
    pub behind_proxy: bool,
}

/// What a client that knows that we speak HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that it is known of what it is.
enum Arrived<C> {
    /// It has asked for a stream.
    Asked(Socket, Box<Asked>),
    /// It speaks HTTP/2.
    Http2(Prefixed<C>, Peer),
    /// It speaks TLS.
    Encrypted(Box<TlsStream<Prefixed<C>>>, Peer),
}

impl Serve for Public {
    async fn serve<C: Connection>(self, connection: C, peer: Peer, mut place: Place) {
        let (state, behind_proxy) = (&self.state, self.behind_proxy);
        let config::Limits { header_timeout, write_stall, .. } = state.config.limits;
        let turn = place.turn();
        let arrival = async {
            let mut connection = Prefixed::new(connection);
            let (start, mut client) = (Instant::now(), peer);
            if behind_proxy {
                client = introduce(state, &mut connection, peer).await?;
            }
            let left = || header_timeout.saturating_sub(start.elapsed());
            // Who is behind a unix socket is on this machine: a proxy, as a rule, that has TLS before it.
            if let Some(certificates) = state.certificates.as_ref().filter(|_| peer != Peer::Unix) {
                let handshake = certificates.acceptor().accept(connection);
                let encrypted = Box::pin(shake_hands(state, client, handshake, left())).await?;
                return Some(Arrived::Encrypted(Box::new(encrypted), client));
            }
            if is_in_time(state, client, begins_http2(&mut connection), left()).await?.ok()? {
                return Some(Arrived::Http2(connection, client));
            }
            state.metrics.accepted.increment(1);
            let head = head::wait(&mut connection, HEAD_BYTES);
            is_in_time(state, client, head, left()).await?.ok()?;
            // In a box of its own, for a connection that has come so far is no stranger.
            let served = Box::pin(serve_http(Requests::of(&self, client, turn), connection)).await;
            served.map(|(socket, asked)| Arrived::Asked(socket, Box::new(asked)))
        };
        // A head may take its time, and a response.
        match place.until(header_timeout + write_stall, arrival).await {
            Ok(Some(Arrived::Asked(socket, asked))) => open(state, socket, *asked, place).await,
            Ok(Some(Arrived::Http2(connection, client))) => {
                Box::pin(hosted::serve_http2(&self, connection, client, place)).await;
            }
            Ok(Some(Arrived::Encrypted(connection, client))) => {
                if connection.get_ref().1.alpn_protocol() == Some(tls::HTTP2) {
                    Box::pin(hosted::serve_http2(&self, connection, client, place)).await;
                } else {
                    Box::pin(hosted::serve_http1(&self, connection, client, place)).await;
                }
            }
            Ok(None) => {}
            Err(cut) => is_cut(state, peer, cut),
        }
    }
}

/// Who a connection's PROXY header says is there; `None`: it has none that is any good.
async fn introduce<C: Connection>(
    state: &State,
    connection: &mut Prefixed<C>,
    proxy: Peer,
) -> Option<Peer> {
    let limit = state.config.limits.header_timeout;
    let fault = match timeout(limit, proxy_header::read(connection)).await {
        Ok(Ok(client)) => return Some(client.map_or(proxy, Peer::at)),
        // As when somebody only looks whether we listen.
        Ok(Err(proxy_header::Fault::Ended(_))) if connection.ahead().is_empty() => return None,
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => format!("no PROXY header within {limit:?}"),
    };
    state.metrics.rejected("proxy_header");
    debug!(%proxy, fault, "connection refused");
    if state.refusals_told.may_tell("proxy_header") {
        warn!(%proxy, fault, "a connection is refused (more are told of at level debug); connect with the PROXY protocol (HAProxy: send-proxy-v2), or take the listener from proxy.protocol");
    }
    None
}

/// Whether all of the preface is there.
async fn begins_http2<C: Connection>(connection: &mut Prefixed<C>) -> io::Result<bool> {
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

/// `None`: it speaks no TLS, or none of ours.
async fn shake_hands<C: Connection>(
    state: &State,
    peer: Peer,
    handshake: Accept<Prefixed<C>>,
    limit: Duration,
) -> Option<TlsStream<Prefixed<C>>> {
    let shaken = is_in_time(state, peer, handshake, limit).await?;
    if shaken.is_err() {
        state.metrics.rejected("tls");
    }
    shaken.ok()
}

/// What a client's next step comes to; `None`: it did not come in time.
async fn is_in_time<T>(
    state: &State,
    peer: Peer,
    step: impl Future<Output = io::Result<T>>,
    limit: Duration,
) -> Option<io::Result<T>> {
    let outcome = timeout(limit, step).await;
    match &outcome {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%peer, %error, "connection ended"),
        Err(_) => {
            state.metrics.rejected("header_timeout");
            debug!(%peer, "connection closed: no request came in time");
        }
    }
    outcome.ok()
}

/// Tells of a connection that is no stream and is closed.
pub(super) fn is_cut(state: &State, peer: Peer, cut: Cut) {
    state.metrics.rejected(cut.as_str());
    debug!(%peer, reason = cut.as_str(), "connection closed");
}
