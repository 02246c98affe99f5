//! A reader that shares a connection: it is told of entries, and reads them over a link that it borrows.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::config::{Address, ReadFrom};
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::client::{ANSWER_TIMEOUT, READ_TIMEOUT, in_time};
use crate::source::redis::tail::pool::Lease;
use crate::source::redis::tail::reading::{
    Looks, Reads, UNASKED_PAUSE, is_redirection, seen, unless_replaced,
};
use crate::source::redis::tail::routing::{MAX_REDIRECTIONS, Tail};
use crate::source::redis::tail::seats::{News, Place, Seat, SeatKind};
use crate::source::redis::tail::topology::{Node, Servers};
use crate::source::{Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};

/// The links that are borrowed may lead to another server than the connection that is shared, where a name leads to
/// several, or to a new one. After so many reads of nothing they are opened again.
const MISLED: u32 = 3;

/// After so many reads of nothing in a row that something had happened to the stream, the next one waits a little.
const UNFRUITFUL: u32 = 3;

/// A group that has said nothing for so many times `source.block` is not relied upon.
const SILENCE: u32 = 2;

/// A reader that shares a connection; after an error it cannot be used any more.
pub struct SharedReader {
    tail: Tail,
    node: Node,
    seat: Seat,
    looks: Looks,
    /// When its first read began; `None`: nothing was read yet.
    began: Option<Instant>,
    /// Why it is to read, if its group has told it.
    told: Option<News>,
    /// Its last read found as much as it asked for: there may be more, of which nobody tells.
    has_more: bool,
    /// Held for a large reply, as long as that is in memory.
    permit: Option<OwnedSemaphorePermit>,
    /// So often in a row it was told of entries, and found none;
    misled: u32,
    /// or that something had happened.
    unfruitful: u32,
    /// Its key is read at another server now.
    is_misplaced: bool,
    /// Its server is no orphaned replica.
    is_settled: bool,
}

impl SharedReader {
    pub(in crate::source::redis::tail) fn new(tail: Tail, node: Node, seat: Seat) -> Self {
        Self {
            tail,
            node,
            seat,
            looks: Looks::default(),
            began: None,
            told: None,
            has_more: false,
            permit: None,
            misled: 0,
            unfruitful: 0,
            is_misplaced: false,
            is_settled: false,
        }
    }

    /// Waits up to about `block` for news of the stream, unless there is a reason to read already.
    pub(crate) async fn wait(&mut self, ask: &ReadRequest<'_>, block: Duration) {
        if self.began.is_none() || self.has_more {
            return;
        }
        if self.misled > 0 || self.unfruitful >= UNFRUITFUL {
            tokio::time::sleep(UNASKED_PAUSE.min(block)).await;
        }
        if self.misled >= MISLED && self.is_read_by_name() {
            self.tail.reading_pool().retire(&self.node);
            self.told = Some(News::Moved);
            return;
        }
        let is_light = self.looks.are_light() && !self.tail.cut_looks().are_cut(ask.key);
        let is_unsure = self.misled > 0 || self.unfruitful > 0;
        let in_doubt = is_light && is_unsure && self.is_read_by_name();
        let told = self.place().wait(ask.after, is_light, block, in_doubt);
        // Whatever keeps its group from looking, its stream is read now and then.
        let told = timeout(SILENCE * block + ANSWER_TIMEOUT, told).await;
        self.told = Some(told.map_or(News::Due, |told| told.unwrap_or(News::Moved)));
    }

    /// Reads for the reason that it was waited for; `None`: another connection is to be opened first.
    pub(in crate::source) async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Duration,
    ) -> Result<Option<Reply>, Error> {
        let Some(began) = self.began else {
            // What the server holds is yet to be seen, whatever the link is that it borrows.
            self.began = Some(Instant::now());
            return self.read_now(ask, block).await.map(Some);
        };
        let Some(told) = self.told.take() else { return self.read_told(ask, block, began).await };
        match told {
            News::Look(_, opened) if opened > began => Ok(None),
            News::Look(answer, _) => self.look(ask, answer, block, began).await,
            News::Due => {
                self.unfruitful = 0;
                self.read_told(ask, block, began).await
            }
            News::Entries => {
                let reply = self.read_told(ask, block, began).await?;
                self.misled = found_none_again(self.misled, reply.as_ref());
                Ok(reply)
            }
            // There need not be an entry: the stream was trimmed, or is gone.
            News::Changed => {
                let was_there = self.place().was_told_of();
                let mut reply = self.read_told(ask, block, began).await?;
                self.unfruitful = found_none_again(self.unfruitful, reply.as_ref());
                if let Some(reply) = reply.as_mut().filter(|_| was_there) {
                    note_gone(reply);
                }
                Ok(reply)
            }
            News::Lost(error) => Err(error),
            News::Moved => Ok(None),
        }
    }

    /// A name may lead to several servers.
    fn is_read_by_name(&self) -> bool {
        matches!(self.tail.servers(), Servers::One(_))
    }

    fn place(&self) -> &Place {
        match &self.seat.kind {
            SeatKind::Shared(place) => place,
            SeatKind::Own { .. } => unreachable!("it was made for a shared seat"),
        }
    }

    /// What a look says, if it says that there is nothing to read; else what a read says.
    async fn look(
        &mut self,
        ask: ReadRequest<'_>,
        answer: Value,
        pace: Duration,
        began: Instant,
    ) -> Result<Option<Reply>, Error> {
        let seen = seen(&self.tail, &self.node, &mut self.looks, ask.key, answer).await;
        let is_behind = match &seen {
            Ok(StreamState::Stream(info)) => info.last.is_some_and(|last| last > ask.after),
            Ok(StreamState::Missing | StreamState::Gone | StreamState::Unseen) => false,
            // It is its read that finds out what follows.
            Err(_) => true,
        };
        match seen {
            Ok(seen) if !is_behind => {
                (self.misled, self.unfruitful) = (0, 0);
                Ok(Some(Reply { entries: Vec::new(), seen }))
            }
            seen => {
                let reply = self.read_told(ask, pace, began).await?;
                self.misled = match seen {
                    Ok(_) => found_none_again(self.misled, reply.as_ref()),
                    Err(_) => self.misled,
                };
                Ok(reply)
            }
        }
    }

    /// Reads what it was told of; `None`: over a link that may lead to another server than the last one.
    async fn read_told(
        &mut self,
        ask: ReadRequest<'_>,
        pace: Duration,
        began: Instant,
    ) -> Result<Option<Reply>, Error> {
        let node = self.node.clone();
        let outcome = match self.lease(&node).await {
            Ok(lease) if lease.opened() > began => {
                lease.give_back();
                return Ok(None);
            }
            Ok(lease) => self.read_over(lease, &node, ask, pace).await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) => self.read_elsewhere(error, ask, pace).await.map(Some),
            reply => reply.map(Some),
        }
    }

    async fn read_now(&mut self, ask: ReadRequest<'_>, pace: Duration) -> Result<Reply, Error> {
        match self.read_at(&self.node.clone(), ask, pace).await {
            Err(error) => self.read_elsewhere(error, ask, pace).await,
            reply => reply,
        }
    }

    /// Reads where an error redirects to.
    async fn read_elsewhere(
        &mut self,
        mut error: Error,
        ask: ReadRequest<'_>,
        pace: Duration,
    ) -> Result<Reply, Error> {
        let mut node = self.node.clone();
        for _ in 0..MAX_REDIRECTIONS {
            node = self.redirected(&node, error)?;
            match self.read_at(&node, ask, pace).await {
                Err(next) => error = next,
                reply => return reply,
            }
        }
        Err(error)
    }

    /// The server that an error redirects to; fails with that error if there is none.
    fn redirected(&mut self, node: &Node, error: Error) -> Result<Node, Error> {
        if error.class == ErrorClass::Away && !is_redirection(&error) {
            self.tail.retire_links(node);
        }
        let servers = self.tail.servers();
        let next = servers.report_failure(node, &error).ok_or_else(|| servers.explained(error))?;
        self.is_misplaced |= !next.asking;
        Ok(next)
    }

    async fn lease(&self, node: &Node) -> Result<Lease, Error> {
        let lease = self.tail.reading_pool().lease(node, READ_TIMEOUT, "XREAD");
        let mut lease = unless_replaced(&self.tail, node, lease).await?;
        lease.link().limit_large_replies(self.tail.large_replies().clone());
        Ok(lease)
    }

    async fn read_at(
        &mut self,
        node: &Node,
        ask: ReadRequest<'_>,
        pace: Duration,
    ) -> Result<Reply, Error> {
        let lease = self.lease(node).await?;
        self.read_over(lease, node, ask, pace).await
    }

    async fn read_over(
        &mut self,
        mut lease: Lease,
        node: &Node,
        ask: ReadRequest<'_>,
        pace: Duration,
    ) -> Result<Reply, Error> {
        let (tail, looks) = (&self.tail, &mut self.looks);
        let mut reads = Reads { tail, node, link: lease.link(), looks };
        let reply = reads.read(ask, None, pace).await;
        self.permit = lease.link().take_permit();
        give_back_unless_broken(lease, reply.as_ref().err());
        let entries = reply.as_ref().map_or(&[][..], |reply| &reply.entries);
        self.has_more = entries.len() as u64 >= ask.count;
        self.seat.tally.add(entries);
        reply
    }

    /// The state of the stream; `None`: there is no such key.
    pub(in crate::source) async fn info(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        let mut node = self.node.clone();
        for _ in 0..MAX_REDIRECTIONS {
            match self.info_at(&node, key).await {
                Err(error) => node = self.redirected(&node, error)?,
                info => return info,
            }
        }
        self.info_at(&node, key).await
    }

    async fn info_at(&mut self, node: &Node, key: &str) -> Result<Option<StreamInfo>, Error> {
        let mut lease = self.lease(node).await?;
        let (tail, looks) = (&self.tail, &mut self.looks);
        let info = Reads { tail, node, link: lease.link(), looks }.info(key).await;
        give_back_unless_broken(lease, info.as_ref().err());
        info
    }

    /// Fails if the server is a replica that has been orphaned for too long. To be called after a read that found
    /// nothing; the task of its group looks after that from then on.
    pub(in crate::source) async fn check_orphaned(&mut self) -> Result<(), Error> {
        let is_settled = std::mem::replace(&mut self.is_settled, true);
        if is_settled || self.tail.read_from() != ReadFrom::Replica || self.node.must_be_primary {
            return Ok(());
        }
        // Others may be waiting for a permit while they have the links.
        self.permit = None;
        let node = self.node.clone();
        let mut lease = self.lease(&node).await?;
        let role = in_time(ANSWER_TIMEOUT, "ROLE", lease.link().role()).await?;
        lease.give_back();
        let outcome = self.tail.orphaned_replicas().judge(&node.address, role.as_ref());
        outcome.map(drop).inspect_err(|error| {
            self.tail.servers().report_failure(&node, error);
        })
    }

    pub(in crate::source) fn release_permit(&mut self) {
        self.permit = None;
    }

    pub(in crate::source) fn server(&self) -> &Address {
        &self.node.address
    }

    /// The number of the connection that it shares.
    pub(in crate::source) fn group(&self) -> u64 {
        self.place().group.id
    }

    /// Whether another connection should be opened in its place.
    pub(in crate::source) fn is_to_be_redialed(&self) -> bool {
        self.is_misplaced || self.seat.tally.is_to_move()
    }

    pub(in crate::source) fn report_lagging(&self, error: &Error) {
        self.tail.report_lagging(&self.node, error);
    }

    pub(in crate::source) async fn primary_snapshot(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        self.tail.primary_snapshot_for(&self.node, key, patience).await
    }
}

/// How often in a row a read has found nothing.
fn found_none_again(before: u32, reply: Option<&Reply>) -> u32 {
    match reply {
        Some(reply) if reply.entries.is_empty() => before + 1,
        _ => 0,
    }
}

/// What has changed and is not there was there, and went before it was read.
fn note_gone(reply: &mut Reply) {
    if reply.seen == StreamState::Missing {
        reply.seen = StreamState::Gone;
    }
}

/// An error that is an answer leaves the link as it was.
fn give_back_unless_broken(lease: Lease, error: Option<&Error>) {
    if error.is_none_or(|error| error.class == ErrorClass::Key || is_redirection(error)) {
        lease.give_back();
    }
}
