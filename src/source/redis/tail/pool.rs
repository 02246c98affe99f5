//! Shared connections: a few links to each server, for everything that does not block.
//!
//! An exchange waits for one of the server's permits, takes an idle link or opens one, and puts the link back.
//! A link that failed, or whose exchange was abandoned, is closed instead.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::request::Request;
use super::client::resp::Value;
use super::client::{ANSWER_TIMEOUT, Link, Login, in_time, too_late};
use super::login_refusals::LoginRefusals;
use super::topology::Node;
use crate::config::Address;
use crate::source::redis::refusal::error_reply;
use crate::source::{Error, ErrorClass, PoolStatus};

/// The most shared links to one server; they are opened as they are needed.
pub const SHARED_LINKS: usize = 4;
/// After a failed connect, no shared link to that server is opened for this long.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// A server that is not used for this long is forgotten when another one is used for the first time.
const SERVER_KEPT: Duration = Duration::from_secs(60);

/// The shared links to all servers.
pub(super) struct Pool {
    login: Login,
    /// At most so many to each server.
    links: usize,
    refusals: Arc<LoginRefusals>,
    servers: Mutex<HashMap<Address, ServerEntry>>,
}

struct ServerEntry {
    last_used: Instant,
    pool: Arc<ServerPool>,
}

/// The shared links to one server.
struct ServerPool {
    /// One for each link that is in use or being opened.
    permits: Arc<Semaphore>,
    /// Held for one look at a time, never across an await.
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Link>,
    last_answer: Option<Instant>,
    last_failure: Option<(Instant, Error)>,
    /// How often all links were retired: one that was in use then is not shared any more.
    retired: u64,
}

impl Pool {
    pub(super) fn new(login: Login, links: usize, refusals: Arc<LoginRefusals>) -> Self {
        Self { login, links, refusals, servers: Mutex::default() }
    }

    /// Opens a link that is not shared.
    pub(super) async fn connect(&self, node: &Node) -> Result<Link, Error> {
        self.refusals.may_log_in(&node.address)?;
        let opened = in_time(ANSWER_TIMEOUT, "connecting", async {
            let mut link = Link::open(&node.address, &self.login).await?;
            node.verify(&mut link).await?;
            link.asking = node.asking;
            Ok(link)
        });
        let opened = opened.await;
        self.refusals.note(&node.address, opened.as_ref().err());
        opened
    }

    /// An exchange over a shared link. An error that Redis answers with fails the exchange if it has a code;
    /// a plain `ERR` is left among the answers, for the caller to judge. The server has `timeout` for it once a
    /// link is free. `doing` names the request in errors.
    pub(super) async fn exchange(
        &self,
        node: &Node,
        timeout: Duration,
        doing: &str,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let server = self.server(&node.address);
        let permit = server.permit(timeout, doing).await?;
        in_time(timeout, doing, self.exchange_now(server, permit, node, request)).await
    }

    async fn exchange_now(
        &self,
        server: Arc<ServerPool>,
        permit: OwnedSemaphorePermit,
        node: &Node,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let mut lease = self.lend(server, permit, node).await?;
        let answers = lease.link().exchange(request).await?;
        let error = answers.iter().find_map(|answer| match answer {
            Value::Error(words) => Some(error_reply(words)).filter(|error| error.code != "ERR"),
            _ => None,
        });
        lease.server.state().last_answer = Some(Instant::now());
        match &error {
            Some(error) if error.class == ErrorClass::Login => self.note_refusal(node, error),
            Some(error) if error.code == "READONLY" => self.retire(node),
            _ => lease.give_back(),
        }
        error.map_or(Ok(answers), Err)
    }

    /// Lends a link, for exchanges that its borrower judges.
    pub(super) async fn lease(
        &self,
        node: &Node,
        timeout: Duration,
        doing: &str,
    ) -> Result<Lease, Error> {
        let server = self.server(&node.address);
        let permit = server.permit(timeout, doing).await?;
        in_time(timeout, doing, self.lend(server, permit, node)).await
    }

    async fn lend(
        &self,
        server: Arc<ServerPool>,
        permit: OwnedSemaphorePermit,
        node: &Node,
    ) -> Result<Lease, Error> {
        let retired = server.state().retired;
        let mut link = self.link(&server, node).await?;
        link.asking = node.asking;
        Ok(Lease { link, server, retired, _permit: permit })
    }

    /// Shares no link to that server any more that is open now. What silenced one has silenced them all; and a name
    /// may lead to another server by now.
    pub(super) fn retire(&self, node: &Node) {
        let server = self.server(&node.address);
        let mut state = server.state();
        state.idle.clear();
        state.retired += 1;
    }

    /// A server wants a login from a link that is not shared.
    pub(super) fn note_refusal(&self, node: &Node, error: &Error) {
        self.refusals.note(&node.address, Some(error));
    }

    pub(super) fn links(&self) -> Vec<PoolStatus> {
        let servers = self.servers.lock().expect("no holder of the lock panics");
        let links = servers.iter().map(|(address, entry)| PoolStatus {
            server: address.clone(),
            in_use: self.links - entry.pool.permits.available_permits(),
            idle: entry.pool.state().idle.len(),
        });
        links.collect()
    }

    /// An idle link that is still open, or a new one.
    async fn link(&self, server: &ServerPool, node: &Node) -> Result<Link, Error> {
        while let Some(mut link) = server.take_idle() {
            if link.is_open().await {
                return Ok(link);
            }
        }
        let last_failure = server.state().last_failure.clone();
        if let Some((_, error)) = last_failure.filter(|(when, _)| when.elapsed() < CONNECT_PAUSE) {
            return Err(error);
        }
        let outcome = self.connect(node).await;
        server.state().last_failure = match &outcome {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), error.clone())),
        };
        outcome
    }

    fn server(&self, address: &Address) -> Arc<ServerPool> {
        let mut servers = self.servers.lock().expect("no holder of the lock panics");
        let now = Instant::now();
        if !servers.contains_key(address) {
            servers.retain(|_, entry| now - entry.last_used < SERVER_KEPT);
        }
        let entry = servers.entry(address.clone()).or_insert_with(|| {
            let permits = Arc::new(Semaphore::new(self.links));
            let pool = Arc::new(ServerPool { permits, state: Mutex::default() });
            ServerEntry { last_used: now, pool }
        });
        entry.last_used = now;
        entry.pool.clone()
    }
}

/// A link that is lent; dropping it closes the link.
pub(super) struct Lease {
    link: Link,
    server: Arc<ServerPool>,
    /// How often all links had been retired when it was taken.
    retired: u64,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// When the link was opened.
    pub(super) fn opened(&self) -> Instant {
        self.link.opened
    }

    /// No exchange is going on over the link, and Redis has answered the last one: others may have it.
    pub(super) fn give_back(self) {
        let Self { mut link, server, retired, .. } = self;
        // Idle, it has no reply in memory.
        link.release_permit();
        let mut state = server.state();
        state.last_answer = Some(Instant::now());
        if state.retired == retired {
            state.idle.push(link);
        }
    }
}

impl ServerPool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Waits for a permit, as long as the server answers others: that our own queue is long says nothing about it.
    async fn permit(&self, timeout: Duration, doing: &str) -> Result<OwnedSemaphorePermit, Error> {
        let mut permit = pin!(self.permits.clone().acquire_owned());
        loop {
            if let Ok(permit) = tokio::time::timeout(timeout, &mut permit).await {
                return Ok(permit.expect("the semaphore is never closed"));
            }
            if self.state().last_answer.is_none_or(|when| when.elapsed() >= timeout) {
                return Err(too_late(doing));
            }
        }
    }

    fn take_idle(&self) -> Option<Link> {
        self.state().idle.pop()
    }
}
