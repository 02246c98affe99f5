//! Admission of a stream: its permit and its topic, its subscriber, or its refusal. It is the same whether
//! the stream's socket leaves hyper (`takeover.rs`) or stays with it (`hosted/`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use tracing::{debug, warn};

use super::plan::Plan;
use super::request::{Requester, protocol};
use super::{forwarded, reauthorize, response};
use crate::auth::grant::AuthContext;
use crate::config::{Refuse, Route};
use crate::fanout::{
    AccessRecord, AccessedStream, Admitted, CatchUp, LogId, Subscriber, WireFormat, end_frame,
};
use crate::limits::{ClientIdentity, LimitExceeded, Permit};
use crate::sse::{Control, Controls, comment, write_control, write_retry};
use crate::state::{Serving, State};
use crate::stream::start::Start;
use crate::stream::{Lease, TooManySelections};

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
        let by_token = (plan.credential.take(), plan.claimed.take());
        let chosen = plan.merged.as_ref().and_then(|merged| merged.chosen.as_deref());
        let context = reauthorize::context(request, &plan.key, chosen, by_token);
        Box::new(Self { plan, serving, id, record, context, identity, may_be_proxy })
    }

    /// A permit among the clients, and the topic of the stream key; or the reason of the refusal.
    pub(super) fn admit(&self, state: &State) -> Result<(Permit, Lease), &'static str> {
        Ok((self.permit(state)?, self.lease(state, &self.plan.key)?))
    }

    /// A permit among the clients; or the reason of the refusal.
    pub(super) fn permit(&self, state: &State) -> Result<Permit, &'static str> {
        if state.fanout.refusing.is_cancelled() {
            return Err("drain");
        }
        if let Some(reason) = self.plan.unavailable {
            return Err(reason);
        }
        let admitted = state.limits.admit(&self.serving.bounds, &self.identity);
        admitted.map_err(|LimitExceeded(limit)| limit)
    }

    /// The topic of a stream key; or the reason of the refusal.
    pub(super) fn lease(&self, state: &State, key: &str) -> Result<Lease, &'static str> {
        let bounds = &self.serving.bounds;
        let lease = state.topic(bounds, key, &self.identity);
        let mut lease = lease.map_err(|LimitExceeded(limit)| limit)?;
        let allowed = bounds.max_clients_per_key();
        if allowed > 0 && lease.topic().state().audience() > allowed {
            return Err("clients_per_key");
        }
        if let Some(selection) = &self.plan.selection {
            let most = bounds.max_selections_per_key();
            lease.select(selection, most).map_err(|TooManySelections| "selections")?;
        }
        Ok(lease)
    }

    /// The subscriber that was admitted.
    pub(super) fn subscriber(&self, state: &State, permit: Permit, mut lease: Lease) -> Subscriber {
        let (plan, route) = (&self.plan, self.route());
        let rendering = lease.render(route.rendering(lease.selection().is_some()));
        Subscriber {
            lease,
            admitted: self.admitted(state, permit),
            format: self.format(number_of(rendering)),
            route: self.route_number(),
            rules: route.rules.clone(),
            state: plan.state.clone(),
        }
    }

    /// The client with its permit. A reload that came between the decision and this moment may have missed it, so it
    /// is reauthorized here.
    pub(super) fn admitted(&self, state: &State, permit: Permit) -> Admitted {
        let Self { plan, serving, .. } = self;
        let grant = state.grants.enter(&self.context);
        let now = state.serving();
        let is_reloaded = !Arc::ptr_eq(&now, serving);
        if is_reloaded && !reauthorize::is_still_allowed(serving, &now, grant.context()) {
            grant.revoke();
        }
        Admitted {
            permit: Some(permit),
            grant: Some(grant),
            id: self.id,
            record: self.record.clone(),
            opened: Instant::now(),
            expires: serving.settings.expiry(),
            token: plan.token.map(Box::new),
        }
    }

    /// The number of its route in the metrics.
    pub(super) fn route_number(&self) -> u16 {
        self.serving.routes[self.plan.route]
    }

    /// The route that it asks for.
    pub(super) fn route(&self) -> &Route {
        &self.serving.config.routes[self.plan.route]
    }

    /// The beginning of the stream, after the `head` of its response.
    pub(super) fn begin(
        &self,
        state: &State,
        subscriber: &Subscriber,
        start: Start,
        head: Vec<u8>,
    ) -> CatchUp {
        self.count_opened(state, start);
        let mut opening = head;
        subscriber.format.append_event(&self.opening(), &mut opening);
        CatchUp::begin(subscriber, self.route().replay, start, opening)
    }

    /// Counts and logs that it gets a stream.
    pub(super) fn count_opened(&self, state: &State, start: Start) {
        state.metrics.responded(response::STREAM_STATUS);
        let address = self.identity.address.map(tracing::field::display);
        let LogId { connection, stream } = self.id;
        debug!(connection, stream, address, key = self.plan.key, ?start, "stream opened");
    }

    /// The first bytes of its stream.
    pub(super) fn opening(&self) -> Vec<u8> {
        let mut bare = Vec::new();
        write_retry(&mut bare, self.serving.settings.reconnection_time());
        bare.extend_from_slice(comment::OPEN.as_bytes());
        bare
    }

    /// The body of a stream of which nothing is left but its end.
    pub(super) fn end_again(&self) -> Vec<u8> {
        let format = self.format(0);
        let mut body = format.frame(&self.opening());
        body.extend(end_frame(format, &self.route().rules));
        body
    }

    /// How its client wants the bytes.
    pub(super) fn format(&self, rendering: u16) -> WireFormat {
        let controls = self.route().rules.controls();
        WireFormat { rendering, controls, framed: self.plan.framed }
    }

    /// Whether a refusal has a status code: else it is an event, which not every route's clients can read.
    pub(super) fn refuses_by_status(&self) -> bool {
        let is_event_read = self.route().rules.controls() == Controls::Event;
        self.serving.settings.refuse == Refuse::Status || !is_event_read
    }

    /// Counts and logs that there is no stream to give.
    pub(super) fn count_over(&self, state: &State, status: u16) {
        state.metrics.responded(status);
        let LogId { connection, stream } = self.id;
        debug!(
            connection,
            stream,
            key = self.plan.key,
            status,
            "the stream is over, or there is none"
        );
        if let Some(record) = &self.record {
            record.end("over");
        }
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

/// A rendering's number, as each subscriber has it.
pub(super) fn number_of(rendering: usize) -> u16 {
    u16::try_from(rendering).expect("there are fewer routes and reloads")
}

/// The only event of a stream that is refused in-band: when to come back, and why.
pub(super) fn refusal_event(wait: Duration, reason: &'static str) -> Vec<u8> {
    let mut bare = Vec::new();
    write_retry(&mut bare, wait);
    let control = if reason == "drain" { Control::Drain } else { Control::Unavailable { reason } };
    write_control(&mut bare, Controls::Event, None, control);
    bare
}
