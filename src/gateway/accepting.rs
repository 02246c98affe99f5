//! The tasks that accept connections, and how each of them ends.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::http::listener::Listener;
use crate::http::server::PublicServer;
use crate::state::State;

/// What accepts connections.
pub(super) struct Accepting {
    state: Arc<State>,
    /// The loops of inherited listeners: the start of the drain ends them.
    pub(super) inherited: TaskTracker,
    /// The loops of public listeners that the service manager keeps: they end once nobody is admitted, and who
    /// comes then waits for the next gateway.
    pub(super) kept: TaskTracker,
    /// Ends the loops of our other public listeners: a draining gateway still answers their clients.
    pub(super) end: CancellationToken,
    /// Public connections until they are streams.
    pub(super) arrivals: TaskTracker,
}

impl Accepting {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            inherited: TaskTracker::new(),
            kept: TaskTracker::new(),
            end: CancellationToken::new(),
            arrivals: TaskTracker::new(),
        }
    }

    /// Accepts clients.
    pub(super) fn clients(&self, listener: Listener) {
        let state = self.state.clone();
        let (inherited, kept) = (listener.is_inherited(), listener.to_keep().is_some());
        let end = match (inherited, kept) {
            (true, _) => &state.fanout.draining,
            (_, true) => &state.fanout.refusing,
            _ => &self.end,
        };
        let (end, pending, arrivals) = (end.clone(), state.pending.clone(), self.arrivals.clone());
        let server = PublicServer { state: state.clone(), behind_proxy: listener.behind_proxy };
        let send_buffer = move || Some(state.config().limits.send_buffer_bytes);
        let accept = listener.accept(server, send_buffer, pending, arrivals, end);
        if kept {
            self.kept.spawn(accept);
        } else {
            self.spawn(accept, inherited);
        }
    }

    /// Accepts the operator; our own listeners go on to the end of the process.
    pub(super) fn operator(&self, listeners: Vec<Listener>) {
        let admin = Admin::new(self.state.clone());
        for listener in listeners {
            let inherited = listener.is_inherited();
            let admin = admin.on(listener.behind_proxy);
            let end = if inherited { self.state.fanout.draining.clone() } else { <_>::default() };
            let (pending, tasks) = (self.state.admin_pending.clone(), TaskTracker::new());
            self.spawn(listener.accept(admin, || None, pending, tasks, end), inherited);
        }
    }

    fn spawn(&self, accept: impl Future<Output = ()> + Send + 'static, inherited: bool) {
        if inherited {
            self.inherited.spawn(accept);
        } else {
            tokio::spawn(accept);
        }
    }
}
