//! The reads of one key over one link, and the looks that go with them.

use std::time::{Duration, Instant};

use super::looks::{Beside, Looks};
use super::xread;
use crate::source::redis::tail::client::replies::{accepted, entries, number, stream_info};
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::client::{Link, READ_TIMEOUT, in_time};
use crate::source::redis::tail::routing::Tail;
use crate::source::redis::tail::topology::Node;
use crate::source::{Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};
use crate::sse::StreamId;

/// After a blocking read that came back at once and found nothing, the next one waits for this.
pub(crate) const UNASKED_PAUSE: Duration = Duration::from_millis(100);

/// Reads of one key over one link. After an error that is no answer, the link is in the middle of an exchange.
pub(crate) struct Reads<'a> {
    pub(crate) tail: &'a Tail,
    pub(crate) node: &'a Node,
    pub(crate) link: &'a mut Link,
    pub(crate) looks: &'a mut Looks,
}

impl Reads<'_> {
    /// Reads; waits up to `block` for an entry, or not at all. While entries come, there is a look each `pace`.
    pub(crate) async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Option<Duration>,
        pace: Duration,
    ) -> Result<Reply, Error> {
        let are_cut = self.tail.cut_looks().are_cut(ask.key);
        let beside = if are_cut { Beside::Nothing } else { self.looks.beside_read() };
        let since = Instant::now();
        let mut answers = self.exchange(ask, block, beside).await?.into_iter();
        let entries = xread::found(ask, answers.next().unwrap_or(Value::Nil))?;
        if let Some(block) =
            block.filter(|block| entries.is_empty() && since.elapsed() < *block / 2)
        {
            // Something in between answers at once whatever we wait for.
            tokio::time::sleep(UNASKED_PAUSE.min(block)).await;
        }
        let seen = match (beside, answers.next()) {
            _ if are_cut => StreamState::Unseen,
            (Beside::Look, Some(answer)) if !self.link.was_late => {
                self.seen(ask.key, answer).await?
            }
            (Beside::Length, Some(length))
                if !self.looks.is_due(entries.len() as u64, number(&length).ok(), pace)
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
        let answers = unless_replaced(self.tail, self.node, exchange).await;
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
        unless_replaced(self.tail, self.node, answer).await
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

    async fn seen(&mut self, key: &str, answer: Value) -> Result<StreamState, Error> {
        seen(self.tail, self.node, self.looks, key, answer).await
    }

    /// The state of the stream; `None`: there is no such key.
    pub(crate) async fn info(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        if self.tail.cut_looks().are_cut(key) {
            return self.last_entry(key).await;
        }
        match self.look(key).await? {
            StreamState::Stream(info) => Ok(Some(info)),
            StreamState::Missing | StreamState::Gone | StreamState::Unseen => Ok(None),
        }
    }
}

/// What a look says.
pub(crate) async fn seen(
    tail: &Tail,
    node: &Node,
    looks: &mut Looks,
    key: &str,
    answer: Value,
) -> Result<StreamState, Error> {
    tail.cut_looks().note_answer(key);
    let weight_bytes = answer.weight_bytes();
    let Some(info) = stream_info(answer)? else {
        looks.note(0, weight_bytes);
        return Ok(StreamState::Missing);
    };
    looks.note(info.length, weight_bytes);
    Ok(StreamState::Stream(tail.without_impossible_holes(node, info).await))
}

/// Does the work, and gives it up once another server is to be read from: `node` may be frozen, and its
/// kernel accepts connections all the same.
pub(crate) async fn unless_replaced<T>(
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
