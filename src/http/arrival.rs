//! From accepting a connection to its first request: who is there, and what they want. Whoever does not
//! say so in time, or while too many wait, is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::access::Gate;
use super::listener::{Connection, Serve};
use super::peer::Peer;
use super::prefixed::Prefixed;
use super::takeover::{HEAD_BYTES, Requests, open, serve_http};
use super::{head, proxy_header};
use crate::config;
use crate::limits::Place;
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

impl Serve for Public {
    async fn serve<C: Connection>(self, connection: C, peer: Peer, mut place: Place) {
        let (state, behind_proxy) = (&self.state, self.behind_proxy);
        state.metrics.accepted.increment(1);
        let config::Limits { header_timeout, write_stall, .. } = state.config.limits;
        let turn = place.turn();
        let arrival = async {
            let mut connection = Prefixed::new(connection);
            let (start, mut client) = (Instant::now(), peer);
            if behind_proxy {
                client = introduce(state, &mut connection, peer).await?;
            }
            let left = header_timeout.saturating_sub(start.elapsed());
            wait_for_head(state, &mut connection, client, left).await?;
            // In a box of its own, for a connection that has come so far is no stranger.
            Box::pin(serve_http(Requests::of(&self, client, turn), connection)).await
        };
        // A head may take its time, and a response.
        match place.until(header_timeout + write_stall, arrival).await {
            Ok(Some((socket, asked))) => open(state, socket, asked, place).await,
            Ok(None) => {}
            Err(cut) => {
                state.metrics.rejected(cut.as_str());
                debug!(%peer, reason = cut.as_str(), "connection closed");
            }
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

/// Waits for the first request; `None`: it did not come.
async fn wait_for_head<C: Connection>(
    state: &State,
    connection: &mut Prefixed<C>,
    peer: Peer,
    limit: Duration,
) -> Option<()> {
    match timeout(limit, head::wait(connection, HEAD_BYTES)).await {
        Ok(Ok(())) => return Some(()),
        Ok(Err(error)) => debug!(%peer, %error, "connection ended"),
        Err(_) => {
            state.metrics.rejected("header_timeout");
            debug!(%peer, "connection closed: no request came in time");
        }
    }
    None
}
