//! hyper parses the request; for a stream its socket then leaves hyper, which has answered nothing
//! to it, and goes to the fan-out as a bare descriptor.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::arrival::PublicServer;
use super::listener::Connection;
use super::router::{self, Decision, Plan};
use super::visit::{Requester, answered, decide, protocol};
use super::{forwarded, reauthorize};
use crate::auth::grant::AuthContext;
use crate::config::Refuse;
use crate::fanout::{
    self, AccessRecord, CatchUp, LogId, Socket, Subscriber, WireFormat, close, close_with, welcome,
};
use crate::limits::{ClientIdentity, EvictionHandle, LimitExceeded, PendingSlot, Permit};
use crate::sse::{Control, comment, write_control, write_retry};
use crate::state::{Serving, State};
use crate::stream::start::Start;
use crate::stream::{Lease, ReaderState, Topic};

/// A live start on a key whose position is not known waits this long for Redis.
const TAIL_WAIT: Duration = Duration::from_secs(2);
/// A request head is no larger than this.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// Nor has it more headers.
pub(super) const MAX_HEADERS: usize = 100;

/// While there are more connections than this that are no streams, none is kept for a second request: each
/// costs 13 KB by then.
const KEPT_ALIVE: usize = 1000;

/// Answers requests until one is for a stream, which gets the socket.
pub(super) async fn serve_http<C: Connection>(
    requests: Requests,
    connection: C,
) -> Option<(Socket, Box<StreamRequest>)> {
    let Requests { state, wanted, requester, .. } = &requests;
    let (state, wanted, Requester { id, peer }) = (state.clone(), wanted.clone(), *requester);
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.config().limits.header_timeout)
        .keep_alive(state.pending.count() < KEPT_ALIVE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), requests);
    let outcome = std::future::poll_fn(|context| {
        let polled = http.poll_without_shutdown(context);
        match wanted.take() {
            Some(wanted) => Poll::Ready(Ok(Some(wanted))),
            None => polled.map_ok(|()| None),
        }
    });
    let outcome = outcome.await;
    let mut connection = http.into_parts().io.into_inner();
    match outcome {
        Ok(Some(wanted)) => match connection.detach() {
            Ok(socket) => return Some((Socket::new(socket), wanted)),
            Err(error) => {
                debug!(connection = id.connection, %peer, %error, "connection ended before its stream began");
            }
        },
        Ok(None) => drop(connection.shutdown().await),
        Err(error) => {
            count_refused_head(&state, &error);
            debug!(connection = id.connection, %peer, %error, "connection ended");
            drop(connection.shutdown().await);
        }
    }
    None
}

/// Counts a request that hyper has refused for its head, if it has, and what hyper answered to it.
pub(super) fn count_refused_head(state: &State, error: &hyper::Error) {
    let (reason, answer) = match error {
        error if error.is_timeout() => ("header_timeout", None),
        error if error.is_parse_too_large() => ("head", Some(router::TOO_LARGE_STATUS)),
        error if error.is_parse() => ("malformed", Some(router::MALFORMED_STATUS)),
        _ => return,
    };
    state.metrics.rejected(reason);
    if let Some(status) = answer {
        state.metrics.responded(status);
    }
}

/// A stream that somebody asks for. Boxed on its way, for each stranger has room for it in its task.
pub(super) struct StreamRequest {
    pub(super) plan: Plan,
    /// What it was decided by, and goes by to its end.
    pub(super) serving: Arc<Serving>,
    id: LogId,
    record: Option<Arc<AccessRecord>>,
    context: AuthContext,
    identity: ClientIdentity,
    /// It may ask for many clients, as a proxy does, and is not trusted to say for whom.
    for_many: bool,
}

/// A stream that the service has decided on; the connection's task takes it from here.
#[derive(Clone, Default)]
struct RequestSlot(Arc<Mutex<Option<Box<StreamRequest>>>>);

impl RequestSlot {
    fn put(&self, wanted: Box<StreamRequest>) {
        *self.lock() = Some(wanted);
    }

    fn take(&self) -> Option<Box<StreamRequest>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<StreamRequest>>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

pub(super) struct Requests {
    state: Arc<State>,
    requester: Requester,
    eviction: Arc<EvictionHandle>,
    wanted: RequestSlot,
}

impl Requests {
    pub(super) fn of(
        public: &PublicServer,
        requester: Requester,
        eviction: Arc<EvictionHandle>,
    ) -> Self {
        Self { state: public.state.clone(), requester, eviction, wanted: RequestSlot::default() }
    }
}

impl StreamRequest {
    /// Who asks for a stream.
    pub(super) fn by<B>(
        serving: Arc<Serving>,
        Requester { id, peer }: Requester,
        mut plan: Plan,
        request: &Request<B>,
    ) -> Box<Self> {
        let (config, headers) = (&serving.config, request.headers());
        let trusted = &config.proxy.trusted;
        let address = forwarded::client(trusted, peer, headers);
        let record = AccessRecord::handoff(id, || fanout::AccessedStream {
            address,
            path: request.uri().path().into(),
            route: config.routes[plan.route].path.as_str().into(),
            protocol: protocol(request.version()),
        });
        let identity = ClientIdentity { address, principal: plan.principal.clone() };
        let is_local = peer.address().is_some_and(|address| address.is_loopback());
        let for_many = !peer.is_trusted(trusted) && (is_local || forwarded::is_told(headers));
        let context = reauthorize::context(request, &plan.key, plan.credential.take());
        Box::new(Self { plan, serving, id, record, context, identity, for_many })
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.eviction.postpone();
        let serving = self.state.serving();
        match decide(&self.state, &serving, &request) {
            Decision::Respond(response) => {
                answered(
                    &self.state,
                    &serving,
                    self.requester,
                    &request,
                    response.status().as_u16(),
                );
                Answer(Some(response))
            }
            Decision::Stream(plan) => {
                self.wanted.put(StreamRequest::by(serving, self.requester, plan, &request));
                Answer(None)
            }
        }
    }
}

/// An ordinary response, or, for a stream, none ever: hyper is dropped with it.
pub(super) struct Answer(Option<Response<Full<Bytes>>>);

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
    }
}

/// Opens the stream, or tells the client why not now.
pub(super) async fn open(
    state: &Arc<State>,
    socket: Socket,
    wanted: Box<StreamRequest>,
    mut slot: PendingSlot,
) {
    let (permit, lease) = match admit(state, &wanted) {
        Ok(admitted) => admitted,
        Err(reason) => {
            let words = refusal(state, &wanted, reason);
            let write_stall = wanted.serving.settings.write_stall;
            state.fanout.tasks.spawn(async move {
                // It has a second to close, unless somebody else needs the place.
                let _ = slot.until(Duration::MAX, close_with(socket, words, write_stall)).await;
            });
            return;
        }
    };
    // From here on it is a client, if only to wait for Redis.
    drop(slot);
    let client = client(state, &wanted, permit, lease);
    match wait_for_tail(&client.lease, wanted.plan.start).await {
        Ok(()) => {
            let handoff = handoff(state, &client, &wanted, router::stream_head(&wanted.plan));
            welcome(&state.fanout, socket, client, handoff);
        }
        Err(reason) => {
            close(&state.fanout, socket, client.permit, refusal(state, &wanted, reason));
        }
    }
}

/// A place among the clients, and one at the stream key.
pub(super) fn admit(
    state: &Arc<State>,
    wanted: &StreamRequest,
) -> Result<(Permit, Lease), &'static str> {
    if state.fanout.draining.is_cancelled() {
        return Err("drain");
    }
    if let Some(reason) = wanted.plan.unavailable {
        return Err(reason);
    }
    let (limit, bounds) = (|LimitExceeded(limit)| limit, &wanted.serving.bounds);
    let permit = state.limits.admit(bounds, &wanted.identity).map_err(limit)?;
    let lease = state.topic(bounds, &wanted.plan.key, &wanted.identity).map_err(limit)?;
    let allowed = bounds.max_clients_per_key();
    if allowed > 0 && lease.topic().state().audience() > allowed {
        return Err("clients_per_key");
    }
    Ok((permit, lease))
}

/// A client that was admitted. A reload may have judged all streams before this one was among them, and
/// after it was decided on: then it is judged here.
pub(super) fn client(
    state: &State,
    wanted: &StreamRequest,
    permit: Permit,
    lease: Lease,
) -> Subscriber {
    let StreamRequest { plan, serving, .. } = wanted;
    let route = &serving.config.routes[plan.route];
    let rendering = lease.topic().state().rendering(&route.rendering);
    let grant = state.grants.enter(&wanted.context);
    let now = state.serving();
    if !Arc::ptr_eq(&now, serving) && !reauthorize::is_still_allowed(serving, &now, grant.context())
    {
        grant.revoke();
    }
    Subscriber {
        lease,
        permit,
        grant,
        format: WireFormat {
            rendering: u16::try_from(rendering).expect("there are fewer routes"),
            framed: plan.framed,
        },
        route: serving.routes[plan.route],
        signals: route.signals,
        id: wanted.id,
        record: wanted.record.clone(),
        opened: Instant::now(),
        expires: serving.settings.expiry(),
        token: plan.token.map(Box::new),
    }
}

/// Waits until the topic knows where "now" is; an error's code where it cannot be read at all.
pub(super) async fn wait_for_tail(lease: &Lease, start: Start) -> Result<(), &'static str> {
    let knows_start = matches!(start, Start::After(_) | Start::Since(_) | Start::Earliest);
    let mut news = lease.topic().subscribe();
    let known = async {
        loop {
            if let Some(outcome) = tail_known(lease.topic(), knows_start) {
                return outcome;
            }
            // Lagged is news as well.
            let _ = news.recv().await;
        }
    };
    match timeout(TAIL_WAIT, known).await {
        Ok(outcome) => outcome,
        Err(_) if knows_start => Ok(()),
        Err(_) => Err("source"),
    }
}

fn tail_known(topic: &Topic, knows_start: bool) -> Option<Result<(), &'static str>> {
    let state = topic.state();
    match state.reader {
        ReaderState::Refused(code) => Some(Err(code)),
        // Redis may be quick to say that the key cannot be read, so even a known start waits a turn.
        ReaderState::Away(_) if knows_start => Some(Ok(())),
        _ if state.ring.generation() > 0 => Some(Ok(())),
        _ => None,
    }
}

/// How the client's stream begins, after the `head` of its response.
pub(super) fn handoff(
    state: &State,
    client: &Subscriber,
    wanted: &StreamRequest,
    head: Vec<u8>,
) -> CatchUp {
    let StreamRequest { plan, identity, .. } = wanted;
    state.metrics.responded(router::STREAM_STATUS);
    let address = identity.address.map(tracing::field::display);
    let LogId { connection, stream } = client.id;
    debug!(connection, stream, address, key = %client.topic().key, start = ?plan.start, "stream opened");
    let mut opening = head;
    let mut bare = Vec::new();
    write_retry(&mut bare, wanted.serving.settings.reconnection_time());
    bare.extend_from_slice(comment::OPEN.as_bytes());
    client.format.append_event(&bare, &mut opening);
    let replay = wanted.serving.config.routes[plan.route].replay;
    CatchUp::begin(client, replay, plan.start, opening)
}

/// What is said to whoever cannot have the stream now.
fn refusal(state: &State, wanted: &StreamRequest, reason: &'static str) -> Vec<u8> {
    tell_of_refusal(state, wanted, reason);
    let settings = &wanted.serving.settings;
    let wait = settings.long_reconnection_time();
    if settings.refuse == Refuse::Status {
        state.metrics.responded(router::REFUSED_STATUS);
        return router::refused(&wanted.plan, wait, reason);
    }
    state.metrics.responded(router::STREAM_STATUS);
    unavailable(&wanted.plan, wait, reason)
}

/// A stream that ends at once.
fn unavailable(plan: &Plan, wait: Duration, reason: &'static str) -> Vec<u8> {
    let format = WireFormat { rendering: 0, framed: plan.framed };
    let mut words = router::stream_head(plan);
    format.append_event(&comes_back(wait, reason), &mut words);
    words.extend_from_slice(format.end());
    words
}

/// The only event of such a stream.
pub(super) fn comes_back(wait: Duration, reason: &'static str) -> Vec<u8> {
    let mut bare = Vec::new();
    write_retry(&mut bare, wait);
    let control = if reason == "drain" { Control::Drain } else { Control::Unavailable { reason } };
    write_control(&mut bare, None, control);
    bare
}

/// Counts it. The operator learns of an address that was refused something only if it may be all clients' at once.
pub(super) fn tell_of_refusal(state: &State, wanted: &StreamRequest, reason: &'static str) {
    state.metrics.rejected(reason);
    let address = wanted.identity.address.map(tracing::field::display);
    debug!(
        connection = wanted.id.connection,
        stream = wanted.id.stream,
        address,
        key = wanted.plan.key,
        reason,
        "stream refused"
    );
    if let Some(record) = &wanted.record {
        record.end(reason);
    }
    if wanted.for_many && reason.ends_with("_per_ip") && state.refusals_told.allows(reason) {
        warn!(
            address,
            reason,
            "a limit refuses an address that may be a proxy's; if it is one of yours, list its network in proxy.trusted, and let it say who its clients are: then each has a limit of its own"
        );
    }
}
