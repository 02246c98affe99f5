//! The life of the gateway: bind, serve, reload, drain.

use std::sync::Arc;

use tracing::info;

use crate::admin::report::Report;
use crate::config::{Config, Faults, Loaded, Log, Setting};
use crate::http::inherited::Inherited;
use crate::http::listener::Listener;
use crate::limits::Limits;
use crate::state::State;
use crate::telemetry::metrics::Metrics;

mod accepting;
mod bind;
mod drain;
mod feed;
mod join;
mod probe;
pub mod process;
mod reload;
mod serving;
pub mod systemd;

pub use bind::BindError;
pub use reload::Reload;

use accepting::Accepting;
use systemd::Manager;

/// A bound gateway.
pub struct Gateway {
    state: Arc<State>,
    public: Vec<Listener>,
    admin: Vec<Listener>,
}

impl Gateway {
    /// Closes those `inherited` sockets that were kept for us and that the configuration has no listener for. The
    /// `manager` has given them up as well when this returns, so that their addresses are free.
    pub async fn close_unwanted(config: &Config, inherited: &mut Inherited, manager: &Manager) {
        let listens: Vec<_> = config.server.listen.iter().chain(&config.admin.listen).collect();
        let unwanted = inherited.close_unwanted(&listens);
        for name in &unwanted {
            info!(
                name,
                "a listener that was kept over the restart is closed: the configuration has it no more"
            );
            manager.forget(name).await;
        }
        if !unwanted.is_empty() {
            manager.has_read_all().await;
        }
    }

    /// Binds every listener, or takes it from the `inherited` sockets; `descriptors` is how many open
    /// files the process may have.
    ///
    /// Redis is not asked yet: the gateway starts without it.
    pub fn bind(
        config: Config,
        mut inherited: Inherited,
        descriptors: usize,
    ) -> Result<Self, BindError> {
        let limits = Limits::new(&config, descriptors)?;
        let (public, admin) = bind::listeners(&config, &mut inherited)?;
        let metrics = Arc::new(Metrics::new(&config.routes));
        let at_once = config.server.io_uring && serving::sends_at_once();
        let alone = !public.iter().any(Listener::is_inherited);
        let serving = serving::of(config, limits.bounds(), &metrics, alone, at_once)?;
        Ok(Self { state: Arc::new(join::join(serving, limits, metrics)), public, admin })
    }

    /// Where clients connect, as for the log.
    pub fn public_addresses(&self) -> Vec<String> {
        self.public.iter().map(Listener::address).collect()
    }

    /// Where the operator connects, as for the log.
    pub fn admin_addresses(&self) -> Vec<String> {
        self.admin.iter().map(Listener::address).collect()
    }

    /// A handle that reloads the configuration: `read` reads it, `started` holds the settings of the
    /// start, and `set_log` applies its log settings.
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
            admin_is_reachable: self.admin.iter().any(Listener::is_reachable),
        }
    }

    /// Has the service manager keep our own listeners, so that no client is refused until the next gateway.
    pub async fn keep_listeners(&self, manager: &Manager) {
        for listener in self.public.iter().chain(&self.admin) {
            if let Some((name, socket)) = listener.to_keep() {
                manager.keep(name, socket).await;
            }
        }
    }

    /// A handle that logs what the gateway is doing.
    pub fn report(&self) -> Report {
        Report(self.state.clone())
    }

    /// Reports to the service manager from now on.
    pub fn report_to(&self, manager: &Manager) {
        systemd::report(manager, &self.state);
    }

    /// Serves until `shutdown`, then drains: every stream is closed by the end of `server.drain`, and clients
    /// that connect meanwhile are served until then. Inherited listeners are left to the successor at once, and
    /// the drain then takes two seconds at most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { state, public, admin } = self;
        state.serving().gate.fetch_keys();
        let accepting = Accepting::new(state.clone());
        for listener in public {
            accepting.clients(listener);
        }
        accepting.operator(admin);
        tokio::spawn(probe::probe(state.clone()));
        if state.config().demo {
            tokio::spawn(feed::feed(state.clone()));
        }
        shutdown.await;
        drain::drain(&state, &accepting).await;
    }
}
