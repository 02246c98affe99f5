//! hyper parses the request; for a stream its socket then leaves hyper, which has answered nothing
//! to it, and goes to the fan-out as a bare descriptor.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::listener::{Connection, Serve};
use super::peer::Peer;
use super::prefixed::Prefixed;
use super::proxy_header;
use super::router::{self, Decision, Plan};
use crate::config::Refuse;
use crate::event::{Control, comment, write_control, write_retry};
use crate::fanout::{Begin, Client, Socket, View, farewell, follow};
use crate::limits::Reached;
use crate::start::Start;
use crate::state::State;
use crate::topic::{Lease, Reader, Topic};

/// A live start on a key whose position is not known waits this long for Redis.
const TAIL_WAIT: Duration = Duration::from_secs(2);
/// A request head is no larger than this.
const HEAD_BYTES: usize = 16 << 10;

/// Serves public connections.
#[derive(Clone)]
pub struct Public {
    /// What they may use.
    pub state: Arc<State>,
    /// Whether each of them begins with a PROXY header.
    pub behind_proxy: bool,
}

impl Serve for Public {
    async fn serve<C: Connection>(self, connection: C, peer: Peer) {
        let Self { state, behind_proxy } = self;
        state.metrics.accepted.increment(1);
        if !behind_proxy {
            return serve_http(&state, connection, peer).await;
        }
        let mut connection = Prefixed::new(connection);
        if let Some(client) = introduce(&state, &mut connection, peer).await {
            serve_http(&state, connection, client).await;
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
        Ok(Ok(client)) => return Some(client.map_or(proxy, Peer::Tcp)),
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

async fn serve_http<C: Connection>(state: &Arc<State>, connection: C, peer: Peer) {
    let plan = PlanSlot::default();
    let service = Requests { state: state.clone(), plan: plan.clone() };
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.config.limits.header_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), service);
    let outcome = std::future::poll_fn(|context| {
        let polled = http.poll_without_shutdown(context);
        match plan.take() {
            Some(plan) => Poll::Ready(Ok(Some(plan))),
            None => polled.map_ok(|()| None),
        }
    });
    let outcome = outcome.await;
    let mut connection = http.into_parts().io.into_inner();
    match outcome {
        Ok(Some(plan)) => match connection.detach() {
            Ok(socket) => open(state, Socket::new(socket), plan, peer.address()).await,
            Err(error) => debug!(%error, "connection ended before its stream began"),
        },
        Ok(None) => drop(connection.shutdown().await),
        Err(error) => {
            debug!(%error, "connection ended");
            drop(connection.shutdown().await);
        }
    }
}

/// A stream that the service has decided on; the connection's task takes it from here.
#[derive(Clone, Default)]
struct PlanSlot(Arc<Mutex<Option<Plan>>>);

impl PlanSlot {
    fn put(&self, plan: Plan) {
        *self.lock() = Some(plan);
    }

    fn take(&self) -> Option<Plan> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Plan>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

struct Requests {
    state: Arc<State>,
    plan: PlanSlot,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Full<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        match router::decide(&self.state.config, &request) {
            Decision::Respond(response) => {
                self.state.metrics.responded(response.status().as_u16());
                Answer(Some(response))
            }
            Decision::Stream(plan) => {
                self.plan.put(plan);
                Answer(None)
            }
        }
    }
}

/// An ordinary response, or, for a stream, none ever: hyper is dropped with it.
struct Answer(Option<Response<Full<Bytes>>>);

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
    }
}

/// Opens the stream, or tells the client why not now.
async fn open(state: &Arc<State>, socket: Socket, plan: Plan, peer: Option<IpAddr>) {
    match admit(state, &plan, peer).await {
        Ok(client) => begin(state, socket, client, &plan),
        Err(reason) => refuse(state, socket, &plan, reason),
    }
}

/// A place for the client, and a topic that knows where "now" is if the client needs to.
async fn admit(
    state: &Arc<State>,
    plan: &Plan,
    peer: Option<IpAddr>,
) -> Result<Client, &'static str> {
    if state.fanout.draining.is_cancelled() {
        return Err("drain");
    }
    let limit = |Reached(limit)| limit;
    let permit = state.limits.admit(peer).map_err(limit)?;
    let lease = state.topic(&plan.key, peer).map_err(limit)?;
    let route = &state.config.routes[plan.route];
    let rendering = {
        let mut topic = lease.topic().state();
        let allowed = state.config.limits.clients_per_key;
        if allowed > 0 && topic.clients > allowed {
            return Err("clients_per_key");
        }
        topic.rendering(&route.rendering)
    };
    let knows_start = matches!(plan.start, Start::After(_) | Start::Since(_) | Start::Earliest);
    wait_for_tail(&lease, knows_start).await?;
    Ok(Client {
        lease,
        permit,
        view: View {
            rendering: u16::try_from(rendering).expect("there are fewer routes"),
            framed: plan.framed,
        },
        route: u16::try_from(plan.route).expect("the configuration has fewer routes"),
        signals: route.signals,
        id: state.next_client_id(),
        expires: state.fanout.settings.expiry(),
        replay: route.replay,
    })
}

/// Waits until the topic knows where "now" is; an error's code where it cannot be read at all.
async fn wait_for_tail(lease: &Lease, knows_start: bool) -> Result<(), &'static str> {
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

fn begin(state: &Arc<State>, socket: Socket, client: Client, plan: &Plan) {
    state.metrics.responded(router::STREAM_STATUS);
    debug!(client = client.id, key = %client.topic().key, start = ?plan.start, "stream opened");
    let mut opening = router::stream_head(plan);
    let mut bare = Vec::new();
    write_retry(&mut bare, state.fanout.settings.reconnection_time());
    bare.extend_from_slice(comment::OPEN.as_bytes());
    client.view.append_event(&bare, &mut opening);
    let begin = Begin::new(&client, plan.start, opening);
    follow(&state.fanout, socket, client, begin);
}

fn refuse(state: &Arc<State>, socket: Socket, plan: &Plan, reason: &'static str) {
    state.metrics.rejected(reason);
    let settings = &state.fanout.settings;
    let wait = settings.long_reconnection_time();
    if settings.refuse == Refuse::Status {
        state.metrics.responded(router::REFUSED_STATUS);
        return farewell(&state.fanout, socket, (), router::refused(plan, wait, reason));
    }
    state.metrics.responded(router::STREAM_STATUS);
    let view = View { rendering: 0, framed: plan.framed };
    let mut bare = Vec::new();
    write_retry(&mut bare, wait);
    let control = if reason == "drain" { Control::Drain } else { Control::Unavailable { reason } };
    write_control(&mut bare, None, control);
    let mut words = router::stream_head(plan);
    view.append_event(&bare, &mut words);
    words.extend_from_slice(view.end());
    farewell(&state.fanout, socket, (), words);
}
