//! The connection that one reader has for itself. It follows the reader's key from server to server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::looks::{Beside, Looks};
use super::xread;
use crate::config::{Address, ReadFrom};
use crate::source::redis::tail::client::replies::{accepted, entries, number, stream_info};
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::client::role::Role;
use crate::source::redis::tail::client::{ANSWER_TIMEOUT, Link, READ_TIMEOUT, in_time};
use crate::source::redis::tail::orphaned_replicas::ORPHAN_PATIENCE;
use crate::source::redis::tail::routing::{MAX_REDIRECTIONS, Tail};
use crate::source::redis::tail::topology::{Node, Purpose, Servers};
use crate::source::{Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};
use crate::sse::StreamId;

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

/// After a blocking read that came back at once and found nothing, the next one waits for this.
const UNASKED_PAUSE: Duration = Duration::from_millis(100);

impl ReaderConnection {
    /// Connects to the server where `key` is read. `was_lost`: there was a connection before.
    pub(in crate::source) async fn open(
        tail: Tail,
        key: &str,
        was_lost: bool,
    ) -> Result<Self, Error> {
        let node = tail.servers().find(key, Purpose::Reading).await?;
        let link = connect(&tail, &node).await;
        let link = link.inspect_err(|error| drop(tail.servers().report_failure(&node, error)))?;
        let (is_role_denied, orphaned_since) = (false, None);
        let (looks, replica) = (Looks::default(), None);
        let mut reader = Self { tail, node, link, is_role_denied, looks, orphaned_since, replica };
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

    /// Whether the server's name should be asked again, which may lead to another server by now.
    pub(in crate::source) fn is_to_be_redialed(&self) -> bool {
        self.replica.is_some_and(|at| at.is_demoted && at.opened.elapsed() >= REDIAL)
    }

    pub(in crate::source) fn server(&self) -> &Address {
        &self.node.address
    }

    /// Reads, and waits up to `block` for an entry.
    pub(in crate::source) async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Duration,
    ) -> Result<Reply, Error> {
        // An orphaned replica gets no longer than its patience lasts. Zero would block for ever.
        let left = |since: Instant| ORPHAN_PATIENCE.saturating_sub(since.elapsed());
        let block = self.orphaned_since.map_or(block, |since| block.min(left(since)));
        let block = self.replica.filter(|at| at.is_demoted).map_or(block, |_| block.min(REDIAL));
        let block = block.max(Duration::from_millis(1));
        for _ in 0..MAX_REDIRECTIONS {
            match self.read_here(ask, block).await {
                Err(error) => self.follow(error).await?,
                reply => return reply,
            }
        }
        self.read_here(ask, block).await
    }

    async fn read_here(&mut self, ask: ReadRequest<'_>, block: Duration) -> Result<Reply, Error> {
        let are_cut = self.tail.cut_looks().are_cut(ask.key);
        let beside = if are_cut { Beside::Nothing } else { self.looks.beside_read() };
        let since = Instant::now();
        let mut answers = self.exchange(ask, Some(block), beside).await?.into_iter();
        let entries = xread::found(ask, answers.next().unwrap_or(Value::Nil))?;
        if entries.is_empty() && since.elapsed() < block / 2 {
            // Something in between answers at once whatever we wait for.
            tokio::time::sleep(UNASKED_PAUSE.min(block)).await;
        }
        let seen = match (beside, answers.next()) {
            _ if are_cut => StreamState::Unseen,
            (Beside::Look, Some(answer)) if !self.link.was_late => {
                self.seen(ask.key, answer).await?
            }
            (Beside::Length, Some(length))
                if !self.looks.is_due(entries.len() as u64, number(&length).ok(), block)
                    && (entries.is_empty() || self.holds(ask.key, ask.after).await?) =>
            {
                StreamState::Unseen
            }
            _ if entries.is_empty() => self.look(ask.key).await?,
            // What was trimmed before these entries does not show in a later look.
            _ => return self.read_with_look(ask).await,
        };
        Ok(Reply { entries, seen })
    }

    /// Reads without waiting, and looks at the stream in the same moment.
    async fn read_with_look(&mut self, ask: ReadRequest<'_>) -> Result<Reply, Error> {
        let mut answers = self.exchange(ask, None, Beside::Look).await?.into_iter();
        let entries = xread::found(ask, answers.next().unwrap_or(Value::Nil))?;
        let seen = self.seen(ask.key, answers.next().unwrap_or(Value::Nil)).await?;
        Ok(Reply { entries, seen })
    }

    async fn exchange(
        &mut self,
        ask: ReadRequest<'_>,
        block: Option<Duration>,
        beside: Beside,
    ) -> Result<Vec<Value>, Error> {
        let request = xread::request(ask, block, beside).repeating_last();
        let block = block.unwrap_or_default();
        let exchange = self.link.exchange_blocking(&request, block, READ_TIMEOUT);
        let answers = unless_replaced(&self.tail, &self.node, exchange).await;
        if self.link.was_late {
            self.looks.note_late();
        }
        answers.inspect_err(|error| {
            if error.code == "IO" && beside == Beside::Look && self.link.answered == 1 {
                self.tail.cut_looks().note_cut(ask.key);
            }
        })
    }

    /// Whether the stream still holds the entry that a read went on from: then nothing was trimmed behind it.
    async fn holds(&mut self, key: &str, id: StreamId) -> Result<bool, Error> {
        let id = id.to_string();
        let answer = self.ask(&["XRANGE", key, &id, &id]).await?;
        Ok(!entries(accepted(answer)?)?.is_empty())
    }

    /// One command whose answer may weigh as much as entries do.
    async fn ask(&mut self, words: &[&str]) -> Result<Value, Error> {
        let bytes: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        let answer = in_time(READ_TIMEOUT, words[0], self.link.ask(&bytes));
        unless_replaced(&self.tail, &self.node, answer).await
    }

    async fn look(&mut self, key: &str) -> Result<StreamState, Error> {
        let answer = self.ask(&["XINFO", "STREAM", key]).await;
        let answer = answer.inspect_err(|error| {
            if error.code == "IO" {
                self.tail.cut_looks().note_cut(key);
            }
        })?;
        self.seen(key, answer).await
    }

    /// Where no look succeeds, the last entry tells where the stream ends.
    async fn last_entry(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        let answer = self.ask(&["XREVRANGE", key, "+", "-", "COUNT", "1"]).await?;
        let last = entries(accepted(answer)?)?.first().map(|entry| entry.id);
        let end = last.unwrap_or_default();
        Ok(last.map(|_| StreamInfo { last, last_generated: end, ..StreamInfo::default() }))
    }

    /// What a look says.
    async fn seen(&mut self, key: &str, answer: Value) -> Result<StreamState, Error> {
        self.tail.cut_looks().note_answer(key);
        let weight_bytes = answer.weight_bytes();
        let Some(info) = stream_info(answer)? else { return Ok(StreamState::Missing) };
        self.looks.note(info.length, weight_bytes);
        Ok(StreamState::Stream(self.tail.without_impossible_holes(&self.node, info).await))
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
        if self.tail.cut_looks().are_cut(key) {
            return self.last_entry(key).await;
        }
        match self.look(key).await? {
            StreamState::Stream(info) => Ok(Some(info)),
            StreamState::Missing | StreamState::Unseen => Ok(None),
        }
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
        let is_orphaned = matches!(role, Some(Role::Replica { is_connected: false, .. }));
        self.orphaned_since = self.tail.orphaned_replicas().note(&self.node.address, is_orphaned);
        if self.orphaned_since.is_none_or(|since| since.elapsed() < ORPHAN_PATIENCE) {
            return Ok(role);
        }
        let message = format!(
            "{} is a replica without its primary and gets nothing new; see INFO replication there",
            self.node.address
        );
        Err(Error { class: ErrorClass::Away, code: "LAGGING", message })
    }

    /// Reports a lag that was found in replies which were no errors, so that another server is read from.
    pub(in crate::source) fn report_lagging(&self, error: &Error) {
        if error.code == "LAGGING" {
            self.tail.servers().report_failure(&self.node, error);
        }
    }

    /// Connects to the server that an error redirects to; fails with that error if there is none.
    async fn follow(&mut self, error: Error) -> Result<(), Error> {
        match error.class {
            // The shared links may be as dead as this one, or lead to a server that is no primary any more.
            ErrorClass::Away if !is_redirection(&error) => self.tail.pool().retire(&self.node),
            ErrorClass::Login => self.tail.pool().note_refusal(&self.node, &error),
            _ => {}
        }
        let servers = self.tail.servers();
        let node = servers.report_failure(&self.node, &error);
        let node = node.ok_or_else(|| servers.explained(error))?;
        self.link = connect(&self.tail, &node).await?;
        (self.node, self.is_role_denied, self.orphaned_since) = (node, false, None);
        self.looks = Looks::default();
        Ok(())
    }
}

fn is_redirection(error: &Error) -> bool {
    matches!(error.code, "MOVED" | "ASK" | "TRYAGAIN")
}

async fn connect(tail: &Tail, node: &Node) -> Result<Link, Error> {
    let mut link = unless_replaced(tail, node, tail.pool().connect(node)).await?;
    link.limit_large_replies(tail.large_replies().clone());
    Ok(link)
}

/// Does the work, and gives it up once another server is to be read from: `node` may be frozen, and its
/// kernel accepts connections all the same.
async fn unless_replaced<T>(
    tail: &Tail,
    node: &Node,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        outcome = work => outcome,
        () = tail.servers().replaced(node) => {
            let message = format!("{} is no longer the server to read from", node.address);
            Err(Error { class: ErrorClass::Away, code: "FAILOVER", message })
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

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
        let opening = ReaderConnection::open(tail.clone(), "a", false);
        let opening = tokio::spawn(async move { opening.await.err() });
        let _accepted = frozen.accept().await.unwrap();
        sentinels.hear(2, Address::Tcp("other".into(), 6379));
        let error = opening.await.unwrap().expect("nobody answered");
        assert_eq!(error.code, "FAILOVER", "{error}");
    }
}
