//! Reads the configuration again while the gateway runs: the gateway applies all of it in one step, or
//! nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::{BindError, serving};
use crate::auth::KeysAway;
use crate::config::{Config, Fault, Faults, Loaded, Log, Setting};
use crate::http::reauthorize;
use crate::limits::TooFewDescriptors;
use crate::state::{Serving, State};

/// Replaces the configuration of a running gateway.
pub struct Reload {
    pub(super) state: Arc<State>,
    pub(super) read: Arc<dyn Fn() -> Result<Loaded, Faults> + Send + Sync>,
    pub(super) set_log: Box<dyn Fn(&Log) + Send + Sync>,
    /// The settings of the start, some of which hold until a restart.
    pub(super) started: Vec<Setting>,
    pub(super) admin_is_reachable: bool,
}

/// Why the gateway keeps its configuration.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error(transparent)]
    Faults(#[from] Faults),
    #[error(transparent)]
    Gateway(#[from] BindError),
    #[error(transparent)]
    Keys(#[from] KeysAway),
    #[error("reading the configuration failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

impl From<TooFewDescriptors> for Rejected {
    fn from(error: TooFewDescriptors) -> Self {
        Self::Gateway(error.into())
    }
}

/// A configuration without faults, ready to be applied.
struct Prepared {
    serving: Serving,
    warnings: Vec<Fault>,
    /// Keys whose new values wait for a restart.
    restart_required: Vec<String>,
}

impl Reload {
    /// Reloads, and logs the outcome.
    pub async fn now(&self) {
        match self.prepare().await {
            Ok(prepared) => self.apply(prepared).await,
            Err(rejected) => {
                self.set_applied(false);
                log_rejected(&rejected);
            }
        }
    }

    fn set_applied(&self, applied: bool) {
        self.state.metrics.reloaded(applied);
        self.state.reload_rejected.store(!applied, Ordering::Relaxed);
    }

    /// Reads the configuration and the files that it names. Nothing is changed yet.
    async fn prepare(&self) -> Result<Prepared, Rejected> {
        let read = self.read.clone();
        let mut loaded = spawn_blocking(move || read()).await??;
        let before = self.state.serving();
        let mut restart_required = loaded.keep_restart_required(&before.config, &self.started);
        let Loaded { mut config, warnings, .. } = loaded;
        restart_required.extend(self.keep_guard(&mut config, &before.config, &restart_required)?);
        let bounds = Arc::new(self.state.limits.bounds_of(&config)?);
        let at_once = if config.server.io_uring == before.config.server.io_uring {
            before.settings.at_once
        } else {
            config.server.io_uring && serving::sends_at_once()
        };
        let (metrics, alone) = (self.state.metrics.clone(), before.settings.alone);
        let assemble = move || serving::of(config, bounds, &metrics, alone, at_once);
        let serving = spawn_blocking(assemble).await??;
        serving.gate.load_keys(&before.gate).await?;
        Ok(Prepared { serving, warnings, restart_required })
    }

    /// The admin listener stays as it was bound: while other machines reach it, it keeps its token.
    fn keep_guard(
        &self,
        config: &mut Config,
        before: &Config,
        restart_required: &[String],
    ) -> Result<Option<String>, BindError> {
        if !self.admin_is_reachable || config.admin.token.is_some() {
            return Ok(None);
        }
        if restart_required.iter().any(|key| key == "admin.listen") {
            config.admin.token.clone_from(&before.admin.token);
            return Ok(Some("admin.token_file".to_owned()));
        }
        let address = before.admin.listen.as_ref().map_or_else(String::new, ToString::to_string);
        Err(BindError::Unguarded { address })
    }

    /// No request sees half of it: each is decided by one [`Serving`] from its beginning to its end.
    async fn apply(&self, Prepared { serving, warnings, restart_required }: Prepared) {
        let (state, now) = (&self.state, Arc::new(serving));
        let before = state.serving.swap(now.clone());
        state.limits.set_bounds(now.bounds.clone());
        state.fanout.set_settings(now.settings.clone());
        state.fanout.replays.take_on(&now.config);
        state.readers.config.store(Arc::new(now.config.source.clone()));
        state.hub.set_max_readers(now.config.limits.readers);
        for topic in state.hub.all() {
            let is_wanted =
                |made: &_| now.config.routes.iter().any(|route| *route.rules.rendering == *made);
            topic.state().replace_renderings(is_wanted);
        }
        state.metrics.unsafe_choices(&now.config.risks());
        (self.set_log)(&now.config.log);
        if before.config.admin.token != now.config.admin.token {
            state.admin_recheck.notify_waiters();
        }
        now.gate.fetch_keys();
        self.set_applied(true);
        for warning in warnings {
            warn!("{warning}");
        }
        for key in restart_required {
            warn!(key, "the new value takes effect with a restart; the old one holds until then");
        }
        self.reauthorize(before, now).await;
    }

    /// Ends the streams that the new configuration would refuse. Their tokens are verified once more:
    /// that takes time, so not in a worker.
    async fn reauthorize(&self, before: Arc<Serving>, now: Arc<Serving>) {
        let grants = self.state.grants.clone();
        let reauthorize = move || {
            grants.reauthorize(|context| reauthorize::is_still_allowed(&before, &now, context))
        };
        let outcome = match spawn_blocking(reauthorize).await {
            Ok(outcome) => outcome,
            Err(error) => {
                return error!(%error, "the configuration was reloaded, but the open streams were not checked against it; restart to end those that it refuses");
            }
        };
        if outcome.ended > 0 {
            self.state.fanout.recheck_grants();
        }
        // Wakes every stream also for another keepalive.
        self.state.hub.all().iter().for_each(|topic| topic.announce());
        let (kept, ended) = (outcome.kept, outcome.ended);
        info!(kept, ended, "configuration reloaded; streams that it refuses end");
    }
}

/// Each fault in a line of its own, then what follows and what to do.
fn log_rejected(rejected: &Rejected) {
    let mut place = None;
    if let Rejected::Faults(faults) = rejected {
        faults.iter().for_each(|fault| error!("{fault}"));
        place = faults.iter().find_map(Fault::written_at);
    } else {
        error!("{rejected}");
    }
    let fix = place.map_or_else(|| "this".to_owned(), ToString::to_string);
    let consequence = match rejected {
        Rejected::Keys(_) => "after a restart no token could be verified",
        _ => "the next restart would fail",
    };
    error!(
        "the reload was rejected; the running configuration is unchanged, but {consequence}; fix {fix} and send SIGHUP again"
    );
}
