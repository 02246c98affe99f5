//! The connection that one reader, or a group of them, has for itself. A reader's follows its key from server to
//! server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::looks::Looks;
use super::reads::{Reads, unless_replaced};
use crate::config::{Address, ReadFrom};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::client::role::Role;
use crate::source::redis::tail::client::{ANSWER_TIMEOUT, Link, READ_TIMEOUT, in_time};
use crate::source::redis::tail::orphaned_replicas::ORPHAN_PATIENCE;
use crate::source::redis::tail::routing::{MAX_REDIRECTIONS, Tail};
use crate::source::redis::tail::seats::Seat;
use crate::source::redis::tail::topology::{Node, Servers};
use crate::source::{Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};

/// The connection of one reader; after an error it cannot be used any more.
pub struct ReaderConnection {
    tail: Tail,
    node: Node,
    link: Link,
    /// The server does not allow us to ask for its role.
    is_role_denied: bool,
    looks: Looks,
    /// When the server was first seen without its primary.
    orphaned_since: Option<Instant>,
    /// Where a primary is to be read from, and the server's name has led to a replica.
    replica: Option<ReplicaByName>,
    /// When it was last known what the name leads to.
    looked_behind_name: Instant,
    /// Its right to a connection of its own; `None`: there is no limit, or it is a group's.
    seat: Option<Seat>,
    /// It was redirected to a server at which it has no seat.
    is_misplaced: bool,
}

/// A replica that a name leads to.
#[derive(Clone, Copy)]
struct ReplicaByName {
    opened: Instant,
    /// The name has led to a primary before, and may do so again.
    is_demoted: bool,
}

/// The name of a server that is no primary any more is asked again at this interval: a balancer, or DNS, learns of
/// a failover later than we do.
const REDIAL: Duration = Duration::from_secs(3);

impl ReaderConnection {
    /// Connects to this server. `was_lost`: there was a connection before.
    pub(in crate::source::redis::tail) async fn open(
        tail: Tail,
        node: Node,
        seat: Option<Seat>,
        was_lost: bool,
    ) -> Result<Self, Error> {
        let link = connect(&tail, &node).await;
        let link = link.inspect_err(|error| drop(tail.servers().report_failure(&node, error)))?;
        let mut reader = Self {
            tail,
            node,
            link,
            is_role_denied: false,
            looks: Looks::default(),
            orphaned_since: None,
            replica: None,
            looked_behind_name: Instant::now(),
            seat,
            is_misplaced: false,
        };
        reader.look_behind_name(was_lost).await?;
        Ok(reader)
    }

    /// What a name leads to may change, and no error tells so: its server's role does. It is asked where a connection
    /// was lost, and until the server has shown once that it is a primary.
    async fn look_behind_name(&mut self, was_lost: bool) -> Result<(), Error> {
        let is_by_name = matches!(self.tail.servers(), Servers::One(_));
        let was_primary = self.tail.was_primary().load(Ordering::Relaxed);
        let wants_primary = self.tail.read_from() == ReadFrom::Primary;
        let is_silent = self.tail.tells_no_role().load(Ordering::Relaxed);
        if !is_by_name || !wants_primary || is_silent || was_primary && !was_lost {
            return Ok(());
        }
        match self.ask_role().await? {
            Some(Role::Primary { .. }) => self.tail.was_primary().store(true, Ordering::Relaxed),
            Some(Role::Replica { .. }) => {
                self.replica =
                    Some(ReplicaByName { opened: Instant::now(), is_demoted: was_primary });
            }
            None => self.tail.tells_no_role().store(true, Ordering::Relaxed),
        }
        Ok(())
    }

    /// The same once in a while: a server that becomes a replica tells only those who are in a read that waits, and who
    /// reads for others often is in none.
    pub(in crate::source::redis::tail) async fn look_behind_name_again(
        &mut self,
    ) -> Result<(), Error> {
        if self.replica.is_some() || self.looked_behind_name.elapsed() < REDIAL {
            return Ok(());
        }
        self.looked_behind_name = Instant::now();
        self.look_behind_name(true).await
    }

    /// Whether another connection should be opened in its place: the server's name may lead to another server by
    /// now, or the reader is to share one.
    pub(in crate::source) fn is_to_be_redialed(&self) -> bool {
        let is_to_move = self.seat.as_ref().is_some_and(|seat| seat.tally.is_to_move());
        let is_old = |at: ReplicaByName| at.is_demoted && at.opened.elapsed() >= REDIAL;
        self.is_misplaced || is_to_move || self.replica.is_some_and(is_old)
    }

    /// The number of this connection.
    pub(in crate::source) fn number(&self) -> Option<u64> {
        self.seat.as_ref().map(|seat| seat.id)
    }

    pub(in crate::source) fn server(&self) -> &Address {
        &self.node.address
    }

    /// Reads, and waits up to `block` for an entry; `None`: another connection is to be opened first.
    pub(in crate::source) async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Duration,
    ) -> Result<Option<Reply>, Error> {
        let tally = self.seat.as_ref().map(|seat| seat.tally.clone());
        let Some(tally) = tally else { return self.read_here(ask, block).await.map(Some) };
        let reply = tokio::select! {
            reply = self.read_here(ask, block) => reply?,
            () = tally.to_move() => return Ok(None),
        };
        tally.add(&reply.entries);
        Ok(Some(reply))
    }

    async fn read_here(&mut self, ask: ReadRequest<'_>, block: Duration) -> Result<Reply, Error> {
        let block = self.patience(block);
        for _ in 0..MAX_REDIRECTIONS {
            match self.reads().read(ask, Some(block), block).await {
                Err(error) => self.follow(error).await?,
                reply => return reply,
            }
        }
        self.reads().read(ask, Some(block), block).await
    }

    /// An orphaned replica gets no longer than its patience lasts. Zero would block for ever.
    fn patience(&self, block: Duration) -> Duration {
        let left = |since: Instant| ORPHAN_PATIENCE.saturating_sub(since.elapsed());
        let block = self.orphaned_since.map_or(block, |since| block.min(left(since)));
        let block = self.replica.filter(|at| at.is_demoted).map_or(block, |_| block.min(REDIAL));
        block.max(Duration::from_millis(1))
    }

    /// Asks this server, whatever it redirects to.
    pub(in crate::source::redis::tail) async fn ask(
        &mut self,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        self.ask_blocking(request, Duration::ZERO).await
    }

    /// The same for a request that Redis may hold back for `block`.
    pub(in crate::source::redis::tail) async fn ask_blocking(
        &mut self,
        request: &Request,
        block: Duration,
    ) -> Result<Vec<Value>, Error> {
        let exchange = self.link.exchange_blocking(request, block, READ_TIMEOUT);
        unless_replaced(&self.tail, &self.node, exchange).await
    }

    /// Has the server tell of keys that change once they were asked for. Whether it does.
    pub(in crate::source::redis::tail) async fn track(&mut self) -> Result<bool, Error> {
        let tracking = in_time(ANSWER_TIMEOUT, "CLIENT TRACKING", self.link.track());
        unless_replaced(&self.tail, &self.node, tracking).await
    }

    /// Returns once the server has told something unasked. If it is dropped, nothing is lost.
    pub(in crate::source::redis::tail) async fn pushed(&mut self) -> Result<(), Error> {
        unless_replaced(&self.tail, &self.node, self.link.pushed()).await
    }

    /// What the server has told unasked so far.
    pub(in crate::source::redis::tail) fn take_pushes(&mut self) -> Vec<Vec<Value>> {
        self.link.take_pushes()
    }

    pub(in crate::source) async fn info(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        for _ in 0..MAX_REDIRECTIONS {
            match self.info_here(key).await {
                Err(error) => self.follow(error).await?,
                info => return info,
            }
        }
        self.info_here(key).await
    }

    async fn info_here(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        self.reads().info(key).await
    }

    fn reads(&mut self) -> Reads<'_> {
        let Self { tail, node, link, looks, .. } = self;
        Reads { tail, node, link, looks }
    }

    /// The last reply is no longer in memory: another large one may take its permit.
    pub(in crate::source) fn release_permit(&mut self) {
        self.link.release_permit();
    }

    pub(in crate::source) async fn primary_snapshot(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        self.tail.primary_snapshot_for(&self.node, key, patience).await
    }

    /// To be called after a read that found nothing: an error if the server is a replica that has been
    /// orphaned for too long.
    pub(in crate::source) async fn check_orphaned(&mut self) -> Result<(), Error> {
        let reads_replicas =
            self.tail.read_from() == ReadFrom::Replica && !self.node.must_be_primary;
        if !reads_replicas && self.replica.is_none() || self.is_role_denied {
            return Ok(());
        }
        let outcome = self.ask_role().await.map(drop);
        outcome.inspect_err(|error| drop(self.tail.servers().report_failure(&self.node, error)))
    }

    /// The server's role, if this user may ask; an error if it is a replica that has been orphaned for too long.
    async fn ask_role(&mut self) -> Result<Option<Role>, Error> {
        let asked = in_time(ANSWER_TIMEOUT, "ROLE", self.link.role());
        let role = unless_replaced(&self.tail, &self.node, asked).await?;
        self.is_role_denied = role.is_none();
        let judged = self.tail.orphaned_replicas().judge(&self.node.address, role.as_ref());
        self.orphaned_since = judged?;
        Ok(role)
    }

    pub(in crate::source) fn report_lagging(&self, error: &Error) {
        self.tail.report_lagging(&self.node, error);
    }

    /// Connects to the server that an error redirects to; fails with that error if there is none.
    async fn follow(&mut self, error: Error) -> Result<(), Error> {
        match error.class {
            // The shared links may be as dead as this one, or lead to a server that is no primary any more.
            ErrorClass::Away if !is_redirection(&error) => self.tail.retire_links(&self.node),
            ErrorClass::Login => self.tail.pool().note_refusal(&self.node, &error),
            _ => {}
        }
        let servers = self.tail.servers();
        let node = servers.report_failure(&self.node, &error);
        let node = node.ok_or_else(|| servers.explained(error))?;
        self.is_misplaced |= self.seat.is_some() && !node.asking;
        self.link = connect(&self.tail, &node).await?;
        (self.node, self.is_role_denied, self.orphaned_since) = (node, false, None);
        self.looks = Looks::default();
        Ok(())
    }
}

pub(in crate::source::redis::tail) fn is_redirection(error: &Error) -> bool {
    matches!(error.code, "MOVED" | "ASK" | "TRYAGAIN")
}

async fn connect(tail: &Tail, node: &Node) -> Result<Link, Error> {
    let mut link = unless_replaced(tail, node, tail.pool().connect(node)).await?;
    link.limit_large_replies(tail.large_replies().clone());
    Ok(link)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;
    use crate::source::redis::tail::topology::Purpose;

    #[tokio::test]
    async fn connecting_to_a_frozen_server_ends_once_the_sentinels_name_another_one() {
        // The kernel accepts for both, and neither answers.
        let [sentinel, frozen] =
            [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
        let (sentinel, frozen) = (sentinel.await.unwrap(), frozen.await.unwrap());
        let text = format!(
            "[source]\nurl = \"redis-sentinel://{}/mine\"\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\n",
            sentinel.local_addr().unwrap()
        );
        let config = config::parse(&text, "gateway.toml", &[], false).unwrap().config;
        let tail = Tail::new(&config);
        let Servers::Sentinels(sentinels) = tail.servers() else { panic!("the url names one") };
        let address = frozen.local_addr().unwrap();
        sentinels.hear(1, Address::Tcp(address.ip().to_string(), address.port()));
        let node = tail.servers().find("a", Purpose::Reading).await.unwrap();
        let opening = ReaderConnection::open(tail.clone(), node, None, false);
        let opening = tokio::spawn(async move { opening.await.err() });
        let _accepted = frozen.accept().await.unwrap();
        sentinels.hear(2, Address::Tcp("other".into(), 6379));
        let error = opening.await.unwrap().expect("nobody answered");
        assert_eq!(error.code, "FAILOVER", "{error}");
    }
}
