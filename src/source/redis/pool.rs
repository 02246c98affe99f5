//! Connections that take turns: a few for each server, for everything that does not block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::client::replies::refused;
use super::client::request::Request;
use super::client::resp::Value;
use super::client::{ANSWER_TIMEOUT, Link, Login, in_time};
use super::topology::Node;
use crate::config::Address;
use crate::source::{Error, ErrorClass, PoolStatus};

/// Connections to one server for everything but readers, at most; opened as they are needed.
pub const SHARED_LINKS: usize = 4;
/// After a failed connect no shared connection to that server is tried for this long.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// A server that nobody asked for this long is forgotten when another one is asked for the first time.
const KEPT: Duration = Duration::from_secs(60);

/// Connections of everything that does not block.
pub(super) struct Pool {
    login: Login,
    servers: Mutex<HashMap<Address, (Instant, Arc<ServerPool>)>>,
}

/// Those to one server.
struct ServerPool {
    permits: Semaphore,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Link>,
    failed: Option<(Instant, Error)>,
}

impl Pool {
    pub(super) fn new(login: Login) -> Self {
        Self { login, servers: Mutex::default() }
    }

    /// A connection of somebody's own.
    pub(super) async fn connect(&self, node: &Node) -> Result<Link, Error> {
        in_time(ANSWER_TIMEOUT, "connecting", async {
            let mut link = Link::open(&node.address, &self.login).await?;
            node.verify(&mut link).await?;
            link.asking = node.asking;
            Ok(link)
        })
        .await
    }

    /// An exchange over one of the shared connections, opened where there is none. One that failed, or
    /// was given up, is closed by that. Of refusals only those without a code are among the answers.
    pub(super) async fn exchange(
        &self,
        node: &Node,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let shared = self.of(&node.address);
        let _permit = shared.permits.acquire().await.expect("it is never closed");
        let mut link = self.link(&shared, node).await?;
        link.asking = node.asking;
        let answers = link.exchange(request).await?;
        let refusal = answers.iter().find_map(|answer| match answer {
            Value::Refusal(words) => Some(refused(words)).filter(|error| error.code != "ERR"),
            _ => None,
        });
        if refusal.as_ref().is_none_or(|error| error.class != ErrorClass::Login) {
            shared.state().idle.push(link);
        }
        refusal.map_or(Ok(answers), Err)
    }

    /// Closes the idle connections to that server: what has silenced one has silenced them all.
    pub(super) fn forget_idle(&self, node: &Node) {
        self.of(&node.address).state().idle.clear();
    }

    /// Who is connected to, and how often.
    pub(super) fn links(&self) -> Vec<PoolStatus> {
        let servers = self.servers.lock().expect("no holder of the lock panics");
        let links = servers.iter().map(|(address, (_, shared))| PoolStatus {
            server: address.clone(),
            in_use: SHARED_LINKS - shared.permits.available_permits(),
            idle: shared.state().idle.len(),
        });
        links.collect()
    }

    async fn link(&self, shared: &ServerPool, node: &Node) -> Result<Link, Error> {
        loop {
            let idle = shared.state().idle.pop();
            let Some(mut link) = idle else { break };
            if link.is_open().await {
                return Ok(link);
            }
        }
        let failed = shared.state().failed.clone();
        if let Some((_, error)) = failed.filter(|(when, _)| when.elapsed() < CONNECT_PAUSE) {
            return Err(error);
        }
        let outcome = self.connect(node).await;
        shared.state().failed = match &outcome {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), error.clone())),
        };
        outcome
    }

    fn of(&self, address: &Address) -> Arc<ServerPool> {
        let mut servers = self.servers.lock().expect("no holder of the lock panics");
        if !servers.contains_key(address) {
            servers.retain(|_, (used, _)| used.elapsed() < KEPT);
        }
        let (used, shared) = servers.entry(address.clone()).or_insert_with(|| {
            let shared =
                ServerPool { permits: Semaphore::new(SHARED_LINKS), state: Mutex::default() };
            (Instant::now(), Arc::new(shared))
        });
        *used = Instant::now();
        shared.clone()
    }
}

impl ServerPool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().expect("no holder of the lock panics")
    }
}
