//! The connection of a group: it waits for entries of several streams, and looks at them.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};
use tracing::debug;

use super::group_read;
use crate::source::redis::tail::client::ANSWER_TIMEOUT;
use crate::source::redis::tail::client::replies::{number, protocol_error};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::reading::{ReaderConnection, UNASKED_PAUSE};
use crate::source::redis::tail::routing::Tail;
use crate::source::redis::tail::seats::{Group, News, Waiting};
use crate::source::redis::tail::topology::{Node, Servers, slot};
use crate::source::{Error, ErrorClass};

/// A read that nothing can end early ends after this, so that a reader that comes is soon part of the next one.
const SHORT_BLOCK: Duration = Duration::from_millis(100);
/// A read is not ended for a reader that comes before it has lasted this long: others may come as well.
const NEWCOMERS_WAIT: Duration = Duration::from_millis(10);
/// To begin a read costs Redis more than a microsecond for each key. So two begin this far apart, for each,
const LENGTH_PER_KEY: Duration = Duration::from_micros(5);
/// but no farther than this.
const LEAST_LENGTH: Duration = Duration::from_millis(5);
/// Where one read cannot wait for several keys, they are asked for at this interval,
const LEAST_INTERVAL: Duration = Duration::from_millis(20);
/// or one that is so many times as long as asking took, for each group.
const INTERVAL_PER_ASKING: u32 = 10;
/// Where one read of several keys failed for no key's fault, they are tried again after this.
const ASKED_IN_TURN: Duration = Duration::from_secs(60);
/// So many lists of keys are asked for in one exchange,
const LISTS: usize = 64;
/// and so many streams looked at: more would count as a large reply.
pub(super) const LOOKS: usize = 8;

/// How the entries of several streams are waited for.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// One read waits for all.
    Together,
    /// They are asked for in turn; since then.
    InTurn(Instant),
}

/// The connection of a group; after an error it cannot be used any more.
pub(super) struct Watch<'a> {
    pub(super) tail: &'a Tail,
    node: &'a Node,
    pub(super) connection: ReaderConnection,
    pub(super) manner: Manner,
    pub(super) opened: Instant,
    /// To end a read of its connection; `None`: we may not, or it is not known yet.
    client_id: Option<String>,
    /// When the server's role was asked for last.
    checked: Instant,
}

impl<'a> Watch<'a> {
    /// `was_lost`: the group had a connection before.
    pub(super) async fn open(
        tail: &'a Tail,
        node: &'a Node,
        was_lost: bool,
    ) -> Result<Self, Error> {
        let opening = ReaderConnection::open(tail.clone(), node.clone(), None, was_lost);
        let connection = Box::pin(opening).await?;
        if was_lost {
            // The server's name may lead to another one by now.
            tail.reading_pool().retire(node);
        }
        let opened = Instant::now();
        let manner = Manner::Together;
        Ok(Self { tail, node, connection, manner, opened, client_id: None, checked: opened })
    }

    /// Finds out whether reads of its connection may be ended.
    pub(super) async fn prepare_to_end_reads(&mut self) -> Result<(), Error> {
        self.client_id = client_id(&mut self.connection).await?;
        Ok(())
    }

    /// Looks at streams, and tells what is seen.
    pub(super) async fn look(
        &mut self,
        at: &[Waiting],
        tell: impl Fn(&Waiting, News),
    ) -> Result<(), Error> {
        for some in at.chunks(LOOKS) {
            let answers = self.connection.ask(&group_read::looks(some)).await?;
            for (waiting, answer) in some.iter().zip(answers) {
                tell(waiting, News::Look(answer, self.opened));
            }
            self.connection.release_permit();
        }
        Ok(())
    }

    /// Fails if the server is a replica that has been orphaned for too long; it is asked once in a `pace`. To be called
    /// after a read that found nothing.
    pub(super) async fn check_server(&mut self, pace: Duration) -> Result<(), Error> {
        if self.checked.elapsed() < pace {
            return Ok(());
        }
        self.checked = Instant::now();
        self.connection.look_behind_name_again().await?;
        self.connection.check_orphaned().await
    }

    /// The streams that hold entries, once there are any, or none after about `length`. A reader that comes to `group`
    /// ends the wait. `groups`: how many there are at this server, all of which may ask in turn.
    pub(super) async fn wait(
        &mut self,
        of: &[Waiting],
        length: Duration,
        group: &Group,
        groups: usize,
    ) -> Result<Vec<Waiting>, Error> {
        match self.manner {
            Manner::InTurn(since) if since.elapsed() < ASKED_IN_TURN => {}
            _ if self.is_of_several_slots(of) => self.manner = Manner::InTurn(Instant::now()),
            _ => {
                self.manner = Manner::Together;
                return self.wait_together(of, length, group).await;
            }
        }
        let began = Instant::now();
        let found = self.ask_in_turn(of).await?;
        let turns = u32::try_from(groups.max(1)).unwrap_or(u32::MAX);
        let interval = LEAST_INTERVAL.max(began.elapsed() * INTERVAL_PER_ASKING * turns);
        sleep(interval.min(length)).await;
        Ok(found)
    }

    async fn wait_together(
        &mut self,
        of: &[Waiting],
        length: Duration,
        group: &Group,
    ) -> Result<Vec<Waiting>, Error> {
        let block = if self.client_id.is_some() { length } else { length.min(SHORT_BLOCK) };
        let began = Instant::now();
        let request = group_read::request(&[of], Some(block));
        let (answer, was_ended) = self.read_until_somebody_comes(&request, block, group).await?;
        let keys = group_read::keys(answer);
        self.connection.release_permit();
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => return self.at_fault(of, error).await,
        };
        if keys.is_empty() && !was_ended && began.elapsed() < block / 2 {
            // Something in between answers at once whatever we wait for.
            sleep(UNASKED_PAUSE.min(block)).await;
        }
        Ok(named(of, &keys))
    }

    /// The answer to a read that waits, and whether it was ended early, for readers that are to be part of the next
    /// one.
    async fn read_until_somebody_comes(
        &mut self,
        request: &Request,
        block: Duration,
        group: &Group,
    ) -> Result<(Value, bool), Error> {
        let mut may_end_at = Instant::now() + NEWCOMERS_WAIT;
        let mut ending: Option<JoinHandle<EndedRead>> = None;
        let (mut client_id, mut was_ended) = (self.client_id.clone(), false);
        let mut reading = pin!(self.connection.ask_blocking(request, block));
        let answers = loop {
            tokio::select! {
                answers = &mut reading => break answers?,
                () = somebody_comes(group, may_end_at), if ending.is_none() && client_id.is_some() => {
                    let Some(id) = client_id.clone() else { continue };
                    was_ended = true;
                    ending = Some(tokio::spawn(end_read(self.tail.clone(), self.node.clone(), id)));
                }
                Some(ended) = joined(&mut ending) => {
                    // Redis may not have seen the read yet: it is ended once more.
                    (ending, may_end_at) = (None, Instant::now() + NEWCOMERS_WAIT);
                    if ended == EndedRead::Denied {
                        client_id = None;
                    }
                }
            }
        };
        self.client_id = client_id;
        let answer = answers.into_iter().next().ok_or_else(|| protocol_error("no answer"))?;
        Ok((answer, was_ended))
    }

    /// One read of several streams failed: those that it failed for, or the error if it concerns all of them.
    async fn at_fault(&mut self, of: &[Waiting], error: Error) -> Result<Vec<Waiting>, Error> {
        let is_about_a_key = error.class == ErrorClass::Key
            || matches!(error.code, "MOVED" | "ASK" | "TRYAGAIN" | "ERR");
        if !is_about_a_key {
            return Err(error);
        }
        let at_fault = self.halve(of).await?;
        if at_fault.is_empty() {
            // Each alone can be read: it is the server that does not read them together.
            debug!(%error, "streams cannot be read together, and are asked for in turn");
            self.manner = Manner::InTurn(Instant::now());
        }
        Ok(at_fault)
    }

    /// The streams of which a read fails: the list is halved until they stand alone.
    async fn halve(&mut self, of: &[Waiting]) -> Result<Vec<Waiting>, Error> {
        let mut suspects = vec![of.to_vec()];
        while suspects.iter().any(|list| list.len() > 1) {
            let halves = suspects.iter().flat_map(|list| list.chunks(list.len().div_ceil(2)));
            let halves: Vec<&[Waiting]> = halves.collect();
            let answers = self.ask_lists(&halves).await?;
            let failed = halves.into_iter().zip(answers).filter(|(_, answer)| answer.is_err());
            suspects = failed.map(|(list, _)| list.to_vec()).collect();
        }
        Ok(suspects.into_iter().flatten().collect())
    }

    async fn ask_in_turn(&mut self, of: &[Waiting]) -> Result<Vec<Waiting>, Error> {
        let mut sorted = of.to_vec();
        sorted.sort_by_key(|waiting| slot(&waiting.key));
        let lists: Vec<&[Waiting]> = if self.is_cluster() {
            sorted.chunk_by(|a, b| slot(&a.key) == slot(&b.key)).collect()
        } else {
            sorted.chunks(1).collect()
        };
        let mut found = Vec::new();
        for lists in lists.chunks(LISTS) {
            for (list, answer) in lists.iter().zip(self.ask_lists(lists).await?) {
                match answer {
                    Ok(keys) => found.extend(named(list, &keys)),
                    Err(_) => found.extend(self.halve(list).await?),
                }
            }
        }
        Ok(found)
    }

    /// What one read of each list says, without waiting.
    async fn ask_lists(
        &mut self,
        lists: &[&[Waiting]],
    ) -> Result<Vec<Result<Vec<Bytes>, Error>>, Error> {
        let answers = self.connection.ask(&group_read::request(lists, None)).await?;
        let keys = answers.into_iter().map(group_read::keys).collect();
        self.connection.release_permit();
        Ok(keys)
    }

    fn is_cluster(&self) -> bool {
        matches!(self.tail.servers(), Servers::Cluster(_))
    }

    fn is_of_several_slots(&self, of: &[Waiting]) -> bool {
        let mut slots = of.iter().map(|waiting| slot(&waiting.key));
        let first = slots.next();
        self.is_cluster() && slots.any(|slot| Some(slot) != first)
    }
}

/// The number by which Redis knows a connection; `None`: we may not end its reads.
async fn client_id(connection: &mut ReaderConnection) -> Result<Option<String>, Error> {
    let answers = connection.ask(&Request::new(&[b"CLIENT", b"ID"])).await?;
    let Some(Ok(id)) = answers.first().map(number) else { return Ok(None) };
    let id = id.to_string();
    // Nothing is to be ended now: what it answers tells whether we may.
    let request = Request::new(&[b"CLIENT", b"UNBLOCK", id.as_bytes()]);
    let answers = connection.ask(&request).await?;
    Ok(answers.first().is_some_and(|answer| number(answer).is_ok()).then_some(id))
}

/// Returns once a reader waits that is not part of the read, but not before that time.
async fn somebody_comes(group: &Group, at_least: Instant) {
    group.has_newcomers().await;
    sleep_until(at_least.into()).await;
}

/// What became of ending a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EndedRead {
    /// Redis was asked to.
    Asked,
    /// We may not.
    Denied,
}

/// Ends the read of another connection.
async fn end_read(tail: Tail, node: Node, client_id: String) -> EndedRead {
    let request = Request::new(&[b"CLIENT", b"UNBLOCK", client_id.as_bytes()]);
    let answers = tail.pool().exchange(&node, ANSWER_TIMEOUT, "CLIENT UNBLOCK", &request).await;
    match answers.as_deref() {
        Ok([Value::Error(_)]) => EndedRead::Denied,
        Err(error) if error.class == ErrorClass::Key => EndedRead::Denied,
        _ => EndedRead::Asked,
    }
}

/// What became of it; never, if none is being ended.
async fn joined(ending: &mut Option<JoinHandle<EndedRead>>) -> Option<EndedRead> {
    match ending {
        Some(handle) => Some(handle.await.unwrap_or(EndedRead::Asked)),
        None => std::future::pending().await,
    }
}

/// How long a read of so many keys lasts at least.
pub(super) fn least_length(keys: usize) -> Duration {
    LEAST_LENGTH.min(LENGTH_PER_KEY * u32::try_from(keys).unwrap_or(u32::MAX))
}

fn named(of: &[Waiting], keys: &[Bytes]) -> Vec<Waiting> {
    if keys.is_empty() {
        return Vec::new();
    }
    let keys: HashSet<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    of.iter().filter(|waiting| keys.contains(waiting.key.as_bytes())).cloned().collect()
}
