//! Admission of a stream: its permit and its topic, its subscriber, or its refusal. It is the same whether
//! the stream's socket leaves hyper (`takeover.rs`) or stays with it (`hosted/`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::plan::Plan;
use super::request::{Requester, protocol};
use super::{forwarded, reauthorize, response};
use crate::auth::grant::AuthContext;
use crate::fanout::{AccessRecord, AccessedStream, CatchUp, LogId, Subscriber, WireFormat};
use crate::limits::{ClientIdentity, LimitExceeded, Permit};
use crate::sse::{Control, Controls, comment, write_control, write_retry};
use crate::state::{Serving, State};
use crate::stream::start::Start;
use crate::stream::{Lease, ReaderState, Topic};

/// A live start on a key whose tail is not known waits this long for the source.
const TAIL_WAIT: Duration = Duration::from_secs(2);

/// A stream that a client asks for. Boxed: the task of each pending connection has room for it.
pub(super) struct StreamRequest {
    pub(super) plan: Plan,
    /// The configuration that decided on the request decides on the stream as well.
    pub(super) serving: Arc<Serving>,
    id: LogId,
    record: Option<Arc<AccessRecord>>,
    context: AuthContext,
    identity: ClientIdentity,
    /// The address may be a proxy's that is not trusted, and stand for many clients.
    may_be_proxy: bool,
}

impl StreamRequest {
    pub(super) fn new<B>(
        serving: Arc<Serving>,
        Requester { id, peer }: Requester,
        mut plan: Plan,
        request: &Request<B>,
    ) -> Box<Self> {
        let (config, headers) = (&serving.config, request.headers());
        let trusted = &config.proxy.trusted;
        let address = forwarded::client(trusted, peer, headers);
        let record = AccessRecord::begin(id, || AccessedStream {
            address,
            path: request.uri().path().into(),
            route: config.routes[plan.route].path.as_str().into(),
            protocol: protocol(request.version()),
        });
        let identity = ClientIdentity { address, principal: plan.principal.clone() };
        let is_local = peer.address().is_some_and(|address| address.is_loopback());
        let may_be_proxy =
            !peer.is_trusted(trusted) && (is_local || forwarded::is_present(headers));
        let context = reauthorize::context(request, &plan.key, plan.credential.take());
        Box::new(Self { plan, serving, id, record, context, identity, may_be_proxy })
    }

    /// A permit among the clients, and the topic of the stream key; or the reason of the refusal.
    pub(super) fn admit(&self, state: &State) -> Result<(Permit, Lease), &'static str> {
        if state.fanout.refusing.is_cancelled() {
            return Err("drain");
        }
        if let Some(reason) = self.plan.unavailable {
            return Err(reason);
        }
        let (limit, bounds) = (|LimitExceeded(limit)| limit, &self.serving.bounds);
        let permit = state.limits.admit(bounds, &self.identity).map_err(limit)?;
        let lease = state.topic(bounds, &self.plan.key, &self.identity).map_err(limit)?;
        let allowed = bounds.max_clients_per_key();
        if allowed > 0 && lease.topic().state().audience() > allowed {
            return Err("clients_per_key");
        }
        Ok((permit, lease))
    }

    /// The subscriber that was admitted. A reload that came between the decision and this moment may have
    /// missed it, so it is reauthorized here.
    pub(super) fn subscriber(&self, state: &State, permit: Permit, mut lease: Lease) -> Subscriber {
        let Self { plan, serving, .. } = self;
        let route = &serving.config.routes[plan.route];
        let rendering = lease.render(&route.rules.rendering);
        let grant = state.grants.enter(&self.context);
        let now = state.serving();
        let is_reloaded = !Arc::ptr_eq(&now, serving);
        if is_reloaded && !reauthorize::is_still_allowed(serving, &now, grant.context()) {
            grant.revoke();
        }
        Subscriber {
            lease,
            permit,
            grant,
            format: WireFormat {
                rendering: u16::try_from(rendering).expect("there are fewer routes and reloads"),
                controls: route.rules.controls(),
                framed: plan.framed,
            },
            route: serving.routes[plan.route],
            signals: route.rules.signals,
            id: self.id,
            record: self.record.clone(),
            opened: Instant::now(),
            expires: serving.settings.expiry(),
            token: plan.token.map(Box::new),
        }
    }

    /// The beginning of the stream, after the `head` of its response.
    pub(super) fn begin(&self, state: &State, subscriber: &Subscriber, head: Vec<u8>) -> CatchUp {
        let Self { plan, identity, serving, .. } = self;
        state.metrics.responded(response::STREAM_STATUS);
        let address = identity.address.map(tracing::field::display);
        let LogId { connection, stream } = subscriber.id;
        debug!(connection, stream, address, key = %subscriber.topic().key, start = ?plan.start, "stream opened");
        let mut opening = head;
        let mut bare = Vec::new();
        write_retry(&mut bare, serving.settings.reconnection_time());
        bare.extend_from_slice(comment::OPEN.as_bytes());
        subscriber.format.append_event(&bare, &mut opening);
        CatchUp::begin(subscriber, serving.config.routes[plan.route].replay, plan.start, opening)
    }

    /// Counts and logs a refusal. It is a warning only where the address may stand for many clients.
    pub(super) fn count_refusal(&self, state: &State, reason: &'static str) {
        state.metrics.rejected(reason);
        let address = self.identity.address.map(tracing::field::display);
        let LogId { connection, stream } = self.id;
        debug!(connection, stream, address, key = self.plan.key, reason, "stream refused");
        if let Some(record) = &self.record {
            record.end(reason);
        }
        if self.may_be_proxy && reason.ends_with("_per_ip") && state.refusals_told.allows(reason) {
            warn!(
                address,
                reason,
                "a stream was refused by a limit for its address, which may be a proxy's; if it is one of yours, list its network in proxy.trusted and let it name its clients: then each client has a limit of its own"
            );
        }
    }
}

/// Waits until the topic knows its tail; an error's code where the key cannot be read.
pub(super) async fn wait_for_tail(lease: &Lease, start: Start) -> Result<(), &'static str> {
    let is_start_known = matches!(start, Start::After(_) | Start::Since(_) | Start::Earliest);
    let mut news = lease.topic().subscribe();
    let known = async {
        loop {
            if let Some(outcome) = tail_known(lease.topic(), is_start_known) {
                return outcome;
            }
            // An error says that news was missed, which is news as well.
            let _ = news.recv().await;
        }
    };
    match timeout(TAIL_WAIT, known).await {
        Ok(outcome) => outcome,
        Err(_) if is_start_known => Ok(()),
        Err(_) => Err("source"),
    }
}

fn tail_known(topic: &Topic, is_start_known: bool) -> Option<Result<(), &'static str>> {
    let state = topic.state();
    match state.reader {
        ReaderState::Refused(code) => Some(Err(code)),
        // Only now: the source may soon say that the key cannot be read, so a known start waits, too.
        ReaderState::Away(_) if is_start_known => Some(Ok(())),
        _ if state.ring.generation() > 0 => Some(Ok(())),
        _ => None,
    }
}

/// The only event of a stream that is refused in-band: when to come back, and why.
pub(super) fn refusal_event(wait: Duration, reason: &'static str) -> Vec<u8> {
    let mut bare = Vec::new();
    write_retry(&mut bare, wait);
    let control = if reason == "drain" { Control::Drain } else { Control::Unavailable { reason } };
    write_control(&mut bare, Controls::Event, None, control);
    bare
}
