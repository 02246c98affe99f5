//! Turns a configuration into what requests are served by, at the start and with each reload.

use std::sync::Arc;

use tracing::{info, warn};

use super::BindError;
use crate::auth::Gate;
use crate::config::Config;
use crate::fanout::{Settings, may_send_at_once};
use crate::limits::Bounds;
use crate::net::certificates::Certificates;
use crate::state::Serving;
use crate::telemetry::metrics::Metrics;

/// All of it or an error; where the gateway is not `alone`, a drain leaves its clients to another one.
pub(super) fn of(
    config: Config,
    bounds: Arc<Bounds>,
    metrics: &Arc<Metrics>,
    alone: bool,
    at_once: bool,
) -> Result<Serving, BindError> {
    let (wanted, possible) = (config.limits.clients, bounds.max_clients());
    if wanted > possible {
        warn!(
            wanted,
            possible,
            "the open files allow fewer clients than limits.clients; raise LimitNOFILE= (ulimit -n)"
        );
    }
    let certificates = config.server.tls.as_ref().map(Certificates::open).transpose()?;
    let gate = Gate::new(&config.jwt, &config.cors, metrics.clone());
    let settings = Arc::new(Settings::new(&config, alone, at_once));
    // Last: a route's number is never given back, so a configuration that fails must not take any.
    let routes = metrics.number_routes(&config.routes)?;
    Ok(Serving { config: Arc::new(config), routes, gate, certificates, bounds, settings })
}

/// Whether the kernel takes many sends in one call; where it does not, the log says so.
pub(super) fn sends_at_once() -> bool {
    let possible = may_send_at_once();
    if let Err(error) = &possible {
        info!(%error, "the kernel refuses io_uring; the gateway sends to one client at a time, which costs a tenth more CPU");
    }
    possible.is_ok()
}
