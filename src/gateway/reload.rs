//! The configuration, read again while the gateway runs: all of it is taken in one step, or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::{BindError, sends_at_once, serving};
use crate::auth::KeysAway;
use crate::config::{Config, Fault, Faults, Loaded, Log, Setting};
use crate::http::reauthorize;
use crate::limits::TooFewDescriptors;
use crate::state::{Serving, State};

/// Takes on another configuration while the gateway runs.
pub struct Reload {
    pub(super) state: Arc<State>,
    pub(super) read: Arc<dyn Fn() -> Result<Loaded, Faults> + Send + Sync>,
    pub(super) set_log: Box<dyn Fn(&Log) + Send + Sync>,
    /// What held at the start, of which some lasts.
    pub(super) started: Vec<Setting>,
    pub(super) longest_spread: Duration,
    pub(super) admin_is_reachable: bool,
}

/// Why nothing of it is taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Faults(#[from] Faults),
    #[error(transparent)]
    Gateway(#[from] BindError),
    #[error(transparent)]
    Keys(#[from] KeysAway),
    #[error("reading it failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

impl From<TooFewDescriptors> for Refused {
    fn from(error: TooFewDescriptors) -> Self {
        Self::Gateway(error.into())
    }
}

/// A configuration that is good, and what is to be told of it.
struct Good {
    serving: Serving,
    warnings: Vec<Fault>,
    /// Keys that are as they were until a restart.
    restart_required: Vec<String>,
}

impl Reload {
    /// Does so, and says in the log what came of it.
    pub async fn now(&self) {
        match self.prepare().await {
            Ok(good) => self.take(good).await,
            Err(refused) => {
                self.set_taken(false);
                tell(&refused);
            }
        }
    }

    fn set_taken(&self, taken: bool) {
        self.state.metrics.reloaded(taken);
        self.state.reload_refused.store(!taken, Ordering::Relaxed);
    }

    /// Reads it, and whatever it names. Nothing is changed yet.
    async fn prepare(&self) -> Result<Good, Refused> {
        let read = self.read.clone();
        let mut loaded = spawn_blocking(move || read()).await??;
        let before = self.state.serving();
        let mut restart_required = loaded.keep_restart_required(&before.config, &self.started);
        let Loaded { mut config, warnings, .. } = loaded;
        restart_required.extend(self.keep_guard(&mut config, &before.config, &restart_required)?);
        let bounds = Arc::new(self.state.limits.bounds_of(&config.limits)?);
        let at_once = if config.server.io_uring == before.config.server.io_uring {
            before.settings.at_once
        } else {
            config.server.io_uring && sends_at_once()
        };
        let (metrics, spread) = (self.state.metrics.clone(), self.longest_spread);
        let put_together = move || serving::of(config, bounds, &metrics, spread, at_once);
        let serving = spawn_blocking(put_together).await??;
        serving.gate.load_keys(&before.gate).await?;
        Ok(Good { serving, warnings, restart_required })
    }

    /// The operator's listener stays as it was bound; where others can reach it, it stays guarded.
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

    /// Nobody sees half of it: a request is decided by one [`Serving`] from its beginning to its end.
    async fn take(&self, Good { serving, warnings, restart_required }: Good) {
        let (state, now) = (&self.state, Arc::new(serving));
        let before = state.serving.swap(now.clone());
        state.limits.set_bounds(now.bounds.clone());
        state.fanout.set_settings(now.settings.clone());
        state.fanout.replays.take_on(&now.config);
        state.readers.config.store(Arc::new(now.config.source.clone()));
        state.hub.set_max_readers(now.config.limits.readers);
        state.metrics.unsafe_choices(&now.config.risks());
        (self.set_log)(&now.config.log);
        if before.config.admin.token != now.config.admin.token {
            state.admin_recheck.notify_waiters();
        }
        now.gate.fetch_keys();
        self.set_taken(true);
        for warning in warnings {
            warn!("{warning}");
        }
        for key in restart_required {
            warn!(
                key,
                "has changed, which takes effect with a restart; until then it is as it was"
            );
        }
        self.reauthorize(before, now).await;
    }

    /// Ends the streams that would not be let in any more. To verify their tokens takes its time, which is
    /// not the workers'.
    async fn reauthorize(&self, before: Arc<Serving>, now: Arc<Serving>) {
        let grants = self.state.grants.clone();
        let reauthorize = move || {
            grants.reauthorize(|context| reauthorize::is_still_allowed(&before, &now, context))
        };
        let outcome = match spawn_blocking(reauthorize).await {
            Ok(outcome) => outcome,
            Err(error) => return error!(%error, "no stream was held against the new configuration"),
        };
        if outcome.ended > 0 {
            self.state.fanout.recheck_grants();
        }
        // Also for how long a stream may be silent from now on.
        self.state.hub.all().iter().for_each(|topic| topic.announce());
        let (kept, ended) = (outcome.kept, outcome.ended);
        info!(kept, ended, "configuration reloaded; streams that it does not allow end");
    }
}

/// Each fault with its file and line, and what it means.
fn tell(refused: &Refused) {
    if let Refused::Faults(faults) = refused {
        faults.iter().for_each(|fault| error!("{fault}"));
    } else {
        error!("{refused}");
    }
    let then = match refused {
        Refused::Keys(_) => "after a restart nobody would be let in with those keys",
        _ => "the next restart would fail",
    };
    error!("configuration refused, and nothing of it taken: {then}; mend it and send SIGHUP again");
}
