//! HTTP/1 over TLS: one connection, one stream at most.

use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::halves::run_both;
use super::mailbox::Mailbox;
use super::service::answer;
use crate::config;
use crate::http::lingering_close::LingeringClose;
use crate::http::refused_heads::RefusedHeads;
use crate::http::request::{Requester, count_pending_end};
use crate::http::request_head::{count_refused_head, most_fields};
use crate::limits::PendingSlot;
use crate::state::State;

/// Serves HTTP/1 over TLS.
pub(in crate::http) async fn serve_http1<C>(
    state: &Arc<State>,
    connection: C,
    requester: Requester,
    mut slot: PendingSlot,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    state.metrics.accepted.increment(1);
    let mailbox = Mailbox::default();
    // Weak: the slot is given back with the first stream, though the service lives on.
    let eviction = Arc::downgrade(&slot.eviction_handle());
    let service = service_fn(|request: Request<Incoming>| {
        if let Some(eviction) = eviction.upgrade() {
            eviction.postpone();
            // It publishes, and may do so for long.
            if request.method() == Method::POST {
                eviction.prolong();
            }
        }
        let (state, mailbox) = (state.clone(), mailbox.clone());
        Box::pin(async move { answer(&state, request, requester, &mailbox).await })
    });
    let config::Limits { header_timeout, header_bytes, write_stall, .. } = state.config().limits;
    let connection = RefusedHeads::new(LingeringClose::new(connection), state.clone());
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(most_fields(header_bytes))
        .max_buf_size(header_bytes)
        .serve_connection(TokioIo::new(connection), service);
    let mut served = pin!(run_both(
        http,
        || mailbox.take(),
        // One stream to a connection, though not each head says so.
        http1::Connection::graceful_shutdown,
        write_stall,
    ));
    let until_stream = async {
        tokio::select! {
            outcome = &mut served => Some(outcome),
            () = mailbox.admitted.notified() => None,
        }
    };
    let outcome = match slot.until(header_timeout + write_stall, until_stream).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => {
            drop(slot);
            served.await
        }
        Err(end) => return count_pending_end(state, requester, end),
    };
    if let Some(Err(error)) = outcome {
        let Requester { id, peer } = requester;
        count_refused_head(state, &error);
        debug!(connection = id.connection, %peer, %error, "connection ended");
    }
}
