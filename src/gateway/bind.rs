//! The listeners that the configuration names, and why the gateway cannot start.

use tracing::warn;

use crate::config::{Config, IdentityError};
use crate::http::inherited::Inherited;
use crate::http::listener::{ListenError, Listener};
use crate::limits::TooFewDescriptors;
use crate::telemetry::metrics::TooManyRoutes;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listener is not available.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Other machines reach the inherited admin listener, and no token guards it.
    #[error(
        "admin.listen: {address} is reachable from other machines and unguarded; set admin.token_file, or write a loopback address or a path as its ListenStream="
    )]
    Unguarded {
        /// Where it listens.
        address: String,
    },
    /// The certificate or its key changed since the configuration was read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// There are more routes than the metrics can count.
    #[error(transparent)]
    Routes(#[from] TooManyRoutes),
}

impl BindError {
    /// Whether the operator has to change the configuration, or what it relies on.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Listen(ListenError::Address { .. }))
    }
}

/// The public listeners and the operator's.
pub(super) fn listeners(
    config: &Config,
    inherited: &mut Inherited,
) -> Result<(Vec<Listener>, Vec<Listener>), BindError> {
    let public = public(config, inherited)?;
    let mut admin = match &config.admin.listen {
        Some(listen) => Listener::bind(listen, inherited)?,
        None => Vec::new(),
    };
    for listener in &mut admin {
        listener.behind_proxy = config.is_admin_behind_proxy();
    }
    let reachable = admin.iter().find(|listener| listener.is_reachable());
    if let Some(listener) = reachable.filter(|_| config.admin.token.is_none()) {
        return Err(BindError::Unguarded { address: listener.address() });
    }
    for name in inherited.unused() {
        warn!(
            name,
            "nobody accepts from an inherited socket: its clients wait for ever; write \"systemd:NAME\" in server.listen or admin.listen, or remove the socket from the .socket unit"
        );
    }
    Ok((public, admin))
}

fn public(config: &Config, inherited: &mut Inherited) -> Result<Vec<Listener>, BindError> {
    let mut public = Vec::new();
    for listen in &config.server.listen {
        let behind_proxy = config.proxy.protocol.contains(listen);
        for mut listener in Listener::bind(listen, inherited)? {
            listener.behind_proxy = behind_proxy;
            public.push(listener);
        }
    }
    Ok(public)
}
