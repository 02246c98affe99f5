//! What a configuration comes to, put together: at the start, and whenever it is read again.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::BindError;
use crate::auth::Gate;
use crate::config::Config;
use crate::fanout::Settings;
use crate::limits::Bounds;
use crate::net::certificates::Certificates;
use crate::state::Serving;
use crate::telemetry::metrics::Metrics;

/// All of it or nothing; a drain is spread over no more than `longest_spread`.
pub(super) fn of(
    config: Config,
    bounds: Arc<Bounds>,
    metrics: &Arc<Metrics>,
    longest_spread: Duration,
    at_once: bool,
) -> Result<Serving, BindError> {
    let (wanted, possible) = (config.limits.clients, bounds.max_clients());
    if wanted > possible {
        warn!(
            wanted,
            possible,
            "limits.clients is more than the open files allow; raise LimitNOFILE= (ulimit -n)"
        );
    }
    let certificates = config.server.tls.as_ref().map(Certificates::open).transpose()?;
    let gate = Gate::new(&config.jwt, &config.cors, metrics.clone());
    let drain = config.server.drain.min(longest_spread);
    let settings = Arc::new(Settings::new(&config, drain, at_once));
    // Last, for they stay: whoever looks for a route finds it at zero.
    let routes = metrics.number_routes(&config.routes)?;
    Ok(Serving { config: Arc::new(config), routes, gate, certificates, bounds, settings })
}
