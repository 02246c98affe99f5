//! The gateway's life: bind, serve, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::admin::Admin;
use crate::config::{Config, Listen};
use crate::demo::Feed;
use crate::fanout::{Fanout, Settings, may_send_at_once};
use crate::http::listener::Listener;
use crate::http::takeover::Public;
use crate::limits::{Limits, TooFewDescriptors};
use crate::metrics::Metrics;
use crate::reader::Readers;
use crate::replay::Replays;
use crate::source::{Class, Source};
use crate::sparingly::Sparingly;
use crate::state::State;
use crate::topic::Hub;

/// How often the source is asked whether it is there, while it is.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How often while it is not.
const PROBE_RETRY: Duration = Duration::from_millis(500);
/// The last client's farewell may take a little longer than its permit.
const LAST_FAREWELL: Duration = Duration::from_millis(50);

/// A bound gateway.
pub struct Gateway {
    state: Arc<State>,
    public: Vec<Listener>,
    admin: Option<Listener>,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listening address cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As in the configuration.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// Too few open files are allowed.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
}

impl Gateway {
    /// Binds every listener; `descriptors` is how many open files the process may have.
    ///
    /// Redis is not asked yet: its absence does not make a start fail.
    pub fn bind(config: Config, descriptors: usize) -> Result<Self, BindError> {
        let limits = Limits::new(&config.limits, descriptors)?;
        if config.limits.clients > limits.max_clients() {
            warn!(
                wanted = config.limits.clients,
                possible = limits.max_clients(),
                descriptors,
                "limits.clients is more than the open files allow; raise LimitNOFILE= (ulimit -n)"
            );
        }
        let public = config.server.listen.iter().map(listen).collect::<Result<_, _>>()?;
        let admin = config.admin.listen.as_ref().map(listen).transpose()?;
        Ok(Self { state: Arc::new(join(config, limits)), public, admin })
    }

    /// Where clients connect, as for the log.
    pub fn public_addresses(&self) -> Vec<String> {
        self.public.iter().map(Listener::address).collect()
    }

    /// Where the operator connects, as for the log.
    pub fn admin_address(&self) -> Option<String> {
        self.admin.as_ref().map(Listener::address)
    }

    /// Serves until `shutdown`, then drains: every stream is closed by the end of `server.drain`,
    /// and who comes meanwhile is told to come back.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { state, public, admin } = self;
        let send_buffer = state.config.limits.send_buffer_bytes;
        for listener in public {
            tokio::spawn(listener.accept(Public(state.clone()), Some(send_buffer)));
        }
        if let Some(listener) = admin {
            tokio::spawn(listener.accept(Admin(state.clone()), None));
        }
        tokio::spawn(probe(state.clone()));
        if state.config.demo {
            tokio::spawn(feed(state.clone()));
        }
        shutdown.await;
        drain(&state).await;
    }
}

fn listen(listen: &Listen) -> Result<Listener, BindError> {
    Listener::bind(listen).map_err(|error| {
        let address = match listen {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        };
        BindError::Listen { address, error }
    })
}

fn join(config: Config, limits: Arc<Limits>) -> State {
    let metrics = Arc::new(Metrics::new(&config.routes));
    let source = Source::open(&config);
    let hub = Arc::new(Hub::new(config.ring.clone(), config.limits.readers));
    let readers = Readers {
        source: source.clone(),
        config: config.source.clone(),
        hub: hub.clone(),
        metrics: metrics.clone(),
        failures_told: Sparingly::default(),
        returns_told: Sparingly::default(),
    };
    let replays = Replays::new(source, metrics.clone(), &config);
    let settings = Settings {
        keepalive: config.server.keepalive,
        retry: config.server.retry,
        max_connection_age: config.server.max_connection_age,
        drain: config.server.drain,
        write_stall: config.limits.write_stall,
        max_lag: config.limits.max_lag,
        refuse: config.server.refuse,
        workers: config.server.workers,
        at_once: config.server.io_uring && sends_at_once(),
    };
    State {
        fanout: Arc::new(Fanout::new(settings, metrics.clone(), replays)),
        hub,
        limits,
        metrics,
        readers: Arc::new(readers),
        source_up: AtomicBool::new(false),
        source_seen: AtomicBool::new(false),
        next_client_id: AtomicU64::new(1),
        config,
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
    let source = &*state.config.source.place.to_string();
    let mut told = None;
    loop {
        // A command that the user may not run was answered too.
        let answer = state.readers.source.ping().await;
        let answer = answer.or_else(|error| match error.class {
            Class::Key => Ok(()),
            Class::Away | Class::Login => Err(error),
        });
        let up = answer.is_ok();
        state.source_up.store(up, Ordering::Relaxed);
        state.source_seen.fetch_or(up, Ordering::Relaxed);
        if told != Some(up) {
            told = Some(up);
            match answer {
                Ok(()) => info!(source, "source answers"),
                Err(error) if error.class == Class::Login => {
                    error!(source, %error, "source refuses the login; set source.username and source.password_file");
                }
                Err(error) => {
                    warn!(source, %error, "source does not answer; trying again, streams stay open");
                }
            }
        }
        state.fanout.replays.forget_old();
        sleep(if up { PROBE_INTERVAL } else { PROBE_RETRY }).await;
    }
}

/// The demo's sample events.
async fn feed(state: Arc<State>) {
    let (mut feed, told) = (Feed::new(), Sparingly::default());
    loop {
        let sample = feed.next();
        let published = state.readers.source.publish("events:demo", sample.payload.into()).await;
        if let Err(error) = published
            && told.may_tell(error.code)
        {
            warn!(%error, "a sample event was not published");
        }
        sleep(sample.wait).await;
    }
}

async fn drain(state: &State) {
    let settings = &state.fanout.settings;
    let clients = state.limits.clients();
    info!(clients, drain = ?settings.drain, "draining: clients are told to come back");
    let end = Instant::now() + settings.drain + settings.write_stall + Duration::from_secs(1);
    state.fanout.draining.cancel();
    while state.limits.clients() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(LAST_FAREWELL).await;
    match state.limits.clients() {
        0 => info!("drained"),
        clients => warn!(clients, "the end of the drain cut clients; they resume where they were"),
    }
}
