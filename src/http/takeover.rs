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

use super::arrival::Public;
use super::listener::Connection;
use super::router::{self, Decision, Plan};
use super::visit::{Caller, answered, decide, protocol};
use super::{forwarded, reauthorize};
use crate::auth::grant::Basis;
use crate::config::Refuse;
use crate::fanout::{self, Begin, Client, Id, Record, Socket, View, farewell, say, welcome};
use crate::limits::{Permit, Place, Reached, Turn, Whom};
use crate::sse::{Control, comment, write_control, write_retry};
use crate::state::{Serving, State};
use crate::stream::start::Start;
use crate::stream::{Lease, Reader, Topic};

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
) -> Option<(Socket, Box<Asked>)> {
    let Requests { state, asked, caller, .. } = &requests;
    let (state, asked, Caller { id, peer }) = (state.clone(), asked.clone(), *caller);
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.config().limits.header_timeout)
        .keep_alive(state.pending.count() < KEPT_ALIVE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), requests);
    let outcome = std::future::poll_fn(|context| {
        let polled = http.poll_without_shutdown(context);
        match asked.take() {
            Some(asked) => Poll::Ready(Ok(Some(asked))),
            None => polled.map_ok(|()| None),
        }
    });
    let outcome = outcome.await;
    let mut connection = http.into_parts().io.into_inner();
    match outcome {
        Ok(Some(asked)) => match connection.detach() {
            Ok(socket) => return Some((Socket::new(socket), asked)),
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
pub(super) struct Asked {
    pub(super) plan: Plan,
    /// What it was decided by, and goes by to its end.
    pub(super) serving: Arc<Serving>,
    id: Id,
    record: Option<Arc<Record>>,
    basis: Basis,
    whom: Whom,
    /// It may ask for many clients, as a proxy does, and is not trusted to say for whom.
    for_many: bool,
}

/// A stream that the service has decided on; the connection's task takes it from here.
#[derive(Clone, Default)]
struct AskedSlot(Arc<Mutex<Option<Box<Asked>>>>);

impl AskedSlot {
    fn put(&self, asked: Box<Asked>) {
        *self.lock() = Some(asked);
    }

    fn take(&self) -> Option<Box<Asked>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Asked>>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

pub(super) struct Requests {
    state: Arc<State>,
    caller: Caller,
    turn: Arc<Turn>,
    asked: AskedSlot,
}

impl Requests {
    pub(super) fn of(public: &Public, caller: Caller, turn: Arc<Turn>) -> Self {
        Self { state: public.state.clone(), caller, turn, asked: AskedSlot::default() }
    }
}

impl Asked {
    /// Who asks for a stream.
    pub(super) fn by<B>(
        serving: Arc<Serving>,
        Caller { id, peer }: Caller,
        mut plan: Plan,
        request: &Request<B>,
    ) -> Box<Self> {
        let (config, headers) = (&serving.config, request.headers());
        let trusted = &config.proxy.trusted;
        let address = forwarded::client(trusted, peer, headers);
        let record = Record::begin(id, || fanout::Asked {
            address,
            path: request.uri().path().into(),
            route: config.routes[plan.route].path.as_str().into(),
            protocol: protocol(request.version()),
        });
        let whom = Whom { address, principal: plan.principal.clone() };
        let is_local = peer.address().is_some_and(|address| address.is_loopback());
        let for_many = !peer.is_trusted(trusted) && (is_local || forwarded::is_told(headers));
        let basis = reauthorize::basis(request, &plan.key, plan.credential.take());
        Box::new(Self { plan, serving, id, record, basis, whom, for_many })
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.turn.put_off();
        let serving = self.state.serving();
        match decide(&self.state, &serving, &request) {
            Decision::Respond(response) => {
                answered(&self.state, &serving, self.caller, &request, response.status().as_u16());
                Answer(Some(response))
            }
            Decision::Stream(plan) => {
                self.asked.put(Asked::by(serving, self.caller, plan, &request));
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
pub(super) async fn open(state: &Arc<State>, socket: Socket, asked: Box<Asked>, mut place: Place) {
    let (permit, lease) = match admit(state, &asked) {
        Ok(admitted) => admitted,
        Err(reason) => {
            let words = refusal(state, &asked, reason);
            let write_stall = asked.serving.settings.write_stall;
            state.fanout.tasks.spawn(async move {
                // It has a second to close, unless somebody else needs the place.
                let _ = place.until(Duration::MAX, say(socket, words, write_stall)).await;
            });
            return;
        }
    };
    // From here on it is a client, if only to wait for Redis.
    drop(place);
    let client = client(state, &asked, permit, lease);
    match wait_for_tail(&client.lease, asked.plan.start).await {
        Ok(()) => {
            let begin = begin(state, &client, &asked, router::stream_head(&asked.plan));
            welcome(&state.fanout, socket, client, begin);
        }
        Err(reason) => {
            farewell(&state.fanout, socket, client.permit, refusal(state, &asked, reason));
        }
    }
}

/// A place among the clients, and one at the stream key.
pub(super) fn admit(state: &Arc<State>, asked: &Asked) -> Result<(Permit, Lease), &'static str> {
    if state.fanout.draining.is_cancelled() {
        return Err("drain");
    }
    if let Some(reason) = asked.plan.unavailable {
        return Err(reason);
    }
    let (limit, bounds) = (|Reached(limit)| limit, &asked.serving.bounds);
    let permit = state.limits.admit(bounds, &asked.whom).map_err(limit)?;
    let lease = state.topic(bounds, &asked.plan.key, &asked.whom).map_err(limit)?;
    let allowed = bounds.max_clients_per_key();
    if allowed > 0 && lease.topic().state().audience() > allowed {
        return Err("clients_per_key");
    }
    Ok((permit, lease))
}

/// A client that was admitted. A reload may have judged all streams before this one was among them, and
/// after it was decided on: then it is judged here.
pub(super) fn client(state: &State, asked: &Asked, permit: Permit, lease: Lease) -> Client {
    let Asked { plan, serving, .. } = asked;
    let route = &serving.config.routes[plan.route];
    let rendering = lease.topic().state().rendering(&route.rendering);
    let standing = state.standings.enter(&asked.basis);
    let now = state.serving();
    if !Arc::ptr_eq(&now, serving) && !reauthorize::is_let_in(serving, &now, standing.basis()) {
        standing.revoke();
    }
    Client {
        lease,
        permit,
        standing,
        view: View {
            rendering: u16::try_from(rendering).expect("there are fewer routes"),
            framed: plan.framed,
        },
        route: serving.routes[plan.route],
        signals: route.signals,
        id: asked.id,
        record: asked.record.clone(),
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
        Reader::Refused(code) => Some(Err(code)),
        // Redis may be quick to say that the key cannot be read, so even a known start waits a turn.
        Reader::Away(_) if knows_start => Some(Ok(())),
        _ if state.ring.life() > 0 => Some(Ok(())),
        _ => None,
    }
}

/// How the client's stream begins, after the `head` of its response.
pub(super) fn begin(state: &State, client: &Client, asked: &Asked, head: Vec<u8>) -> Begin {
    let Asked { plan, whom, .. } = asked;
    state.metrics.responded(router::STREAM_STATUS);
    let address = whom.address.map(tracing::field::display);
    let Id { connection, stream } = client.id;
    debug!(connection, stream, address, key = %client.topic().key, start = ?plan.start, "stream opened");
    let mut opening = head;
    let mut bare = Vec::new();
    write_retry(&mut bare, asked.serving.settings.reconnection_time());
    bare.extend_from_slice(comment::OPEN.as_bytes());
    client.view.append_event(&bare, &mut opening);
    let replay = asked.serving.config.routes[plan.route].replay;
    Begin::new(client, replay, plan.start, opening)
}

/// What is said to whoever cannot have the stream now.
fn refusal(state: &State, asked: &Asked, reason: &'static str) -> Vec<u8> {
    tell_of_refusal(state, asked, reason);
    let settings = &asked.serving.settings;
    let wait = settings.long_reconnection_time();
    if settings.refuse == Refuse::Status {
        state.metrics.responded(router::REFUSED_STATUS);
        return router::refused(&asked.plan, wait, reason);
    }
    state.metrics.responded(router::STREAM_STATUS);
    unavailable(&asked.plan, wait, reason)
}

/// A stream that ends at once.
fn unavailable(plan: &Plan, wait: Duration, reason: &'static str) -> Vec<u8> {
    let view = View { rendering: 0, framed: plan.framed };
    let mut words = router::stream_head(plan);
    view.append_event(&comes_back(wait, reason), &mut words);
    words.extend_from_slice(view.end());
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
pub(super) fn tell_of_refusal(state: &State, asked: &Asked, reason: &'static str) {
    state.metrics.rejected(reason);
    let address = asked.whom.address.map(tracing::field::display);
    debug!(
        connection = asked.id.connection,
        stream = asked.id.stream,
        address,
        key = asked.plan.key,
        reason,
        "stream refused"
    );
    if let Some(record) = &asked.record {
        record.end(reason);
    }
    if asked.for_many && reason.ends_with("_per_ip") && state.refusals_told.may_tell(reason) {
        warn!(
            address,
            reason,
            "a limit refuses an address that may be a proxy's; if it is one of yours, list its network in proxy.trusted, and let it say who its clients are: then each has a limit of its own"
        );
    }
}
