//! The gateway's life: bind, serve, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::Admin;
use crate::admin::report::Report;
use crate::config::{Config, Faults, IdentityError, Loaded, Log, Setting};
use crate::demo::Feed;
use crate::fanout::{Fanout, may_send_at_once};
use crate::http::inherited::Inherited;
use crate::http::listener::{self, Listener};
use crate::http::response;
use crate::http::server::PublicServer;
use crate::limits::{Limits, Pending, TooFewDescriptors};
use crate::source::{self, ErrorClass, Source};
use crate::state::{Serving, State};
use crate::stream::Hub;
use crate::stream::reader::Readers;
use crate::stream::replay::Replays;
use crate::telemetry::metrics::{Metrics, TooManyRoutes};
use crate::telemetry::throttle::LogThrottle;

pub mod process;
mod reload;
mod serving;
pub mod systemd;

pub use reload::Reload;

use systemd::Manager;

/// How often the source is asked whether it is there, while it is.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How often while it is not.
const PROBE_RETRY: Duration = Duration::from_millis(500);
/// The last client's farewell may take a little longer than its permit.
const LAST_FAREWELL: Duration = Duration::from_millis(50);
/// A drain takes no longer where a successor has the sockets or waits for them.
const HANDOVER: Duration = Duration::from_secs(2);
/// Closes are spread over this much of it at most, so that the last ones have time, too.
const HANDOVER_SPREAD: Duration = Duration::from_millis(1500);

/// The operator's connections, which are among our own descriptors.
const ADMIN_CONNECTIONS: usize = 32;

/// A bound gateway.
pub struct Gateway {
    state: Arc<State>,
    public: Vec<Listener>,
    admin: Vec<Listener>,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listener cannot be had.
    #[error(transparent)]
    Listen(#[from] listener::BindError),
    /// The operator's listener was handed over, and is not safe as it is.
    #[error(
        "admin.listen: {address} is reachable from other machines and unguarded; set admin.token_file, or write a loopback address or a path as its ListenStream="
    )]
    Unguarded {
        /// Where it listens.
        address: String,
    },
    /// The certificate or its key is not what it was when the configuration was read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Too few open files are allowed.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// More routes than are counted.
    #[error(transparent)]
    Routes(#[from] TooManyRoutes),
}

impl BindError {
    /// Whether the configuration has to change, or what it counts on.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Listen(listener::BindError::Address { .. }))
    }
}

impl Gateway {
    /// Binds every listener, or takes it from what was `inherited`; `descriptors` is how many open
    /// files the process may have.
    ///
    /// Redis is not asked yet: its absence does not make a start fail.
    pub fn bind(
        config: Config,
        mut inherited: Inherited,
        descriptors: usize,
    ) -> Result<Self, BindError> {
        let limits = Limits::new(&config.limits, descriptors)?;
        let (public, admin) = listeners(&config, &mut inherited)?;
        for name in inherited.unused() {
            warn!(
                name,
                "a socket was handed over that nobody accepts from: who connects to it waits for ever; write \"systemd:NAME\" where it belongs, or take it from the .socket unit"
            );
        }
        let metrics = Arc::new(Metrics::new(&config.routes));
        let at_once = config.server.io_uring && sends_at_once();
        let drain = longest_spread(&public);
        let serving = serving::of(config, limits.bounds(), &metrics, drain, at_once)?;
        Ok(Self { state: Arc::new(join(serving, limits, metrics)), public, admin })
    }

    /// Where clients connect, as for the log.
    pub fn public_addresses(&self) -> Vec<String> {
        self.public.iter().map(Listener::address).collect()
    }

    /// Where the operator connects, as for the log.
    pub fn admin_addresses(&self) -> Vec<String> {
        self.admin.iter().map(Listener::address).collect()
    }

    /// Takes on what `read` says now, whenever it is asked to; `started` is what it said at the start, and
    /// `set_log` takes on what it says of the log.
    pub fn reload(
        &self,
        started: Vec<Setting>,
        read: impl Fn() -> Result<Loaded, Faults> + Send + Sync + 'static,
        set_log: impl Fn(&Log) + Send + Sync + 'static,
    ) -> Reload {
        Reload {
            state: self.state.clone(),
            read: Arc::new(read),
            set_log: Box::new(set_log),
            started,
            longest_spread: longest_spread(&self.public),
            admin_is_reachable: self.admin.iter().any(Listener::is_reachable),
        }
    }

    /// Says in the log what it is doing, whenever it is asked to.
    pub fn report(&self) -> Report {
        Report(self.state.clone())
    }

    /// Tells the service manager from now on how this gateway fares.
    pub fn keep_told(&self, manager: &Manager) {
        systemd::keep_told(manager, &self.state);
    }

    /// Serves until `shutdown`, then drains: every stream is closed by the end of `server.drain`,
    /// and who comes meanwhile is told to come back. Listeners that were handed over are left to
    /// whoever has them next, and the drain takes no longer than two seconds then.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { state, public, admin } = self;
        let accepting = Accepting { handed_over: is_handed_over(&public), ..Accepting::default() };
        state.serving().gate.fetch_keys();
        for listener in public {
            let inherited = listener.is_inherited();
            let arrivals = accepting.arrivals.clone();
            let public = PublicServer { state: state.clone(), behind_proxy: listener.behind_proxy };
            let (pending, shared) = (state.pending.clone(), state.clone());
            let send_buffer = move || Some(shared.config().limits.send_buffer_bytes);
            let ends = ends(&state, inherited);
            let accept = listener.accept(public, send_buffer, pending, arrivals, ends);
            accepting.spawn(accept, inherited);
        }
        let operator = Admin::new(state.clone());
        for listener in admin {
            let inherited = listener.is_inherited();
            let (admin, tasks) = (operator.clone(), TaskTracker::new());
            let (pending, ends) = (state.admin_pending.clone(), ends(&state, inherited));
            let accept = listener.accept(admin, || None, pending, tasks, ends);
            accepting.spawn(accept, inherited);
        }
        tokio::spawn(probe(state.clone()));
        if state.config().demo {
            tokio::spawn(feed(state.clone()));
        }
        shutdown.await;
        drain(&state, &accepting).await;
    }
}

/// The public listeners, and the operator's, which is safe as it is.
fn listeners(
    config: &Config,
    inherited: &mut Inherited,
) -> Result<(Vec<Listener>, Vec<Listener>), BindError> {
    let mut public = Vec::new();
    for listen in &config.server.listen {
        let mut bound = Listener::bind(listen, inherited)?;
        let behind_proxy = config.proxy.protocol.contains(listen);
        for listener in &mut bound {
            listener.behind_proxy = behind_proxy;
        }
        public.append(&mut bound);
    }
    let admin = match &config.admin.listen {
        Some(listen) => Listener::bind(listen, inherited)?,
        None => Vec::new(),
    };
    let open = admin.iter().find(|listener| listener.is_reachable());
    if let Some(listener) = open.filter(|_| config.admin.token.is_none()) {
        return Err(BindError::Unguarded { address: listener.address() });
    }
    Ok((public, admin))
}

/// Whether clients wait for a successor, or are its already.
fn is_handed_over(public: &[Listener]) -> bool {
    public.iter().any(Listener::is_inherited)
}

/// No drain is spread over more than this.
fn longest_spread(public: &[Listener]) -> Duration {
    if is_handed_over(public) { HANDOVER_SPREAD } else { Duration::MAX }
}

/// When a listener accepts no more: one that was handed over is left to others with the drain.
fn ends(state: &State, inherited: bool) -> CancellationToken {
    if inherited { state.fanout.draining.clone() } else { CancellationToken::new() }
}

/// What accepts connections.
#[derive(Default)]
struct Accepting {
    /// PublicServer listeners were handed over.
    handed_over: bool,
    /// From listeners that were handed over: these end when the drain begins.
    inherited: TaskTracker,
    /// PublicServer connections until they are streams.
    arrivals: TaskTracker,
}

impl Accepting {
    fn spawn(&self, accept: impl Future<Output = ()> + Send + 'static, inherited: bool) {
        if inherited {
            self.inherited.spawn(accept);
        } else {
            tokio::spawn(accept);
        }
    }
}

fn join(serving: Serving, limits: Arc<Limits>, metrics: Arc<Metrics>) -> State {
    let config = serving.config.clone();
    metrics.unsafe_choices(&config.risks());
    metrics.response_codes(&response::STATUSES);
    metrics.reader_codes(source::codes());
    let source = Source::open(&config);
    let hub = Arc::new(Hub::new(config.ring.clone(), config.limits.readers));
    let readers = Readers {
        source: source.clone(),
        config: ArcSwap::from_pointee(config.source.clone()),
        hub: hub.clone(),
        metrics: metrics.clone(),
        failures_told: LogThrottle::default(),
        returns_told: LogThrottle::default(),
    };
    let replays = Replays::new(source, metrics.clone(), &config);
    let settings = serving.settings.clone();
    let counted = limits.clone();
    State {
        pending: Pending::new(move || counted.max_pending()),
        admin_pending: Pending::new(|| ADMIN_CONNECTIONS),
        admin_recheck: Notify::new(),
        fanout: Arc::new(Fanout::new(settings, metrics.clone(), replays)),
        hub,
        grants: Arc::default(),
        limits,
        metrics,
        readers: Arc::new(readers),
        hosted: TaskTracker::new(),
        source_up: AtomicBool::new(false),
        source_seen: AtomicBool::new(false),
        reload_refused: AtomicBool::new(false),
        refusals_told: LogThrottle::default(),
        connections: AtomicU64::new(0),
        serving: ArcSwap::from_pointee(serving),
    }
}

/// Whether the kernel takes many sends in one call, and a line about it where it does not.
fn sends_at_once() -> bool {
    let possible = may_send_at_once();
    if let Err(error) = &possible {
        info!(%error, "the kernel takes no io_uring from us: a send for each client, which costs a tenth more");
    }
    possible.is_ok()
}

/// Asks the source now and then whether it is there, for `/readyz` and the metrics.
async fn probe(state: Arc<State>) {
    let source = &*state.config().source.location.to_string();
    let mut told = None;
    loop {
        // A command that the user may not run was answered too.
        let answer = state.readers.source.ping().await;
        let answer = answer.or_else(|error| match error.class {
            ErrorClass::Key | ErrorClass::TooLarge => Ok(()),
            ErrorClass::Away | ErrorClass::Login => Err(error),
        });
        let up = answer.is_ok();
        state.source_up.store(up, Ordering::Relaxed);
        let seen = state.source_seen.fetch_or(up, Ordering::Relaxed);
        if told != Some(up) {
            told = Some(up);
            match answer {
                Ok(()) => {
                    info!(source, "source answers");
                    if !seen {
                        info!(clients_limit = state.limits.bounds().max_clients(), "ready");
                    }
                }
                Err(error) if error.class == ErrorClass::Login => {
                    error!(source, %error, "source refuses the login; set source.username and source.password_file (for TLS: ca_file, client_certificate)");
                }
                Err(error) => {
                    warn!(source, %error, "source does not answer; trying again, streams stay open");
                }
            }
        }
        state.fanout.replays.forget_old();
        // Beside the workers: it takes milliseconds where a crowd has left.
        tokio::task::spawn_blocking(process::give_back_free_memory);
        sleep(if up { PROBE_INTERVAL } else { PROBE_RETRY }).await;
    }
}

/// The demo's sample events.
async fn feed(state: Arc<State>) {
    let (mut feed, told) = (Feed::new(), LogThrottle::default());
    loop {
        let sample = feed.next();
        let published = state.readers.source.publish("events:demo", sample.payload.into()).await;
        if let Err(error) = published
            && told.allows(error.code)
        {
            warn!(%error, "a sample event was not published");
        }
        sleep(sample.wait).await;
    }
}

async fn drain(state: &State, accepting: &Accepting) {
    let settings = state.fanout.settings();
    let clients = state.limits.clients();
    info!(clients, drain = ?settings.drain, "draining: clients are told to come back");
    let begin = Instant::now();
    let longest = if accepting.handed_over { HANDOVER } else { settings.longest_drain() };
    state.fanout.draining.cancel();
    state.hub.all().iter().for_each(|topic| topic.announce());
    accepting.inherited.close();
    accepting.inherited.wait().await;
    // Who connects from now on is the successor's; who was accepted before is answered by us.
    let unanswered = || accepting.handed_over && !accepting.arrivals.is_empty();
    let busy = || state.limits.clients() > 0 || !state.hosted.is_empty() || unanswered();
    while busy() && begin.elapsed() < longest {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(LAST_FAREWELL).await;
    match state.limits.clients() {
        0 => info!("drained"),
        clients => warn!(clients, "the end of the drain cut clients; they resume where they were"),
    }
}
