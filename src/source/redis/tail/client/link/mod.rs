//! A link: one connection to Redis, with one exchange at a time. All commands of an exchange go in one write,
//! then their answers come. What Redis tells unasked ([`pushes`]) is kept apart.
//!
//! No task runs behind a link. Its owner drops it when an exchange failed or was abandoned, and opens
//! another one; so no command is ever sent twice.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

mod pushes;

use super::failure::{lost, too_late};
use super::replies::protocol_error;
use super::reply_size::{RECEIVE_BYTES, SMALL_REPLY_BYTES, memory_bytes, too_large};
use super::request::Request;
use super::resp::{Decoder, Value};
use super::role::{Role, role};
use crate::net::dial::DialedSocket;
use crate::source::Error;
use crate::source::redis::refusal::error_reply;

/// The input buffer begins with this much; a reply's strings are slices of it, and a large reply enlarges it.
const INPUT_BYTES: usize = 4 << 10;
/// With less free room than this, the input buffer is enlarged.
const MIN_ROOM_BYTES: usize = 1 << 10;
/// Redis is dead if it stays silent for longer than this when it has an answer to give.
const SILENCE: Duration = Duration::from_secs(3);

/// A command that went with another is answered together with it, or the server has not seen it.
const LATE: Duration = Duration::from_millis(100);
/// What Redis said before it closed a connection has arrived by then.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// One connection to Redis; dropping it closes it.
pub(crate) struct Link {
    socket: Box<dyn DialedSocket>,
    decoder: Decoder,
    input: BytesMut,
    /// What Redis has told unasked, until its owner takes it.
    pushes: Vec<Vec<Value>>,
    /// Bytes received of the answers to the current request.
    received_bytes: usize,
    /// Where set, a large reply needs one of these permits: links share them.
    permits: Option<Arc<Semaphore>>,
    /// Held from a large reply until its owner releases it, or sends the next request.
    permit: Option<OwnedSemaphorePermit>,
    /// How long Redis may be silent.
    silence: Duration,
    /// When the current request has to be answered; `None`: the caller sees to that.
    deadline: Option<Instant>,
    /// When it was opened.
    pub(crate) opened: std::time::Instant,
    /// How many commands of the last exchange were answered.
    pub(crate) answered: usize,
    /// In the last exchange, a command had to be sent again before it was answered.
    pub(crate) was_late: bool,
    /// `ASKING` goes before each command: the node that gives the slot away has sent us here.
    pub(crate) asking: bool,
}

impl Link {
    pub(super) fn new(socket: Box<dyn DialedSocket>) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            input: BytesMut::new(),
            pushes: Vec::new(),
            received_bytes: 0,
            permits: None,
            permit: None,
            silence: SILENCE,
            deadline: None,
            opened: std::time::Instant::now(),
            answered: 0,
            was_late: false,
            asking: false,
        }
    }

    /// From now on a large reply waits for one of `permits`: that many are in memory at once.
    pub(crate) fn limit_large_replies(&mut self, permits: Arc<Semaphore>) {
        self.permits = Some(permits);
    }

    /// The last reply is no longer in memory.
    pub(crate) fn release_permit(&mut self) {
        self.permit = None;
    }

    /// What its owner may hold on to when it lends the link to somebody else.
    pub(crate) fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }

    /// The server's role; `None`: this user may not ask.
    pub(crate) async fn role(&mut self) -> Result<Option<Role>, Error> {
        role(self.ask(&[b"ROLE"]).await?)
    }

    /// One command and its answer.
    pub(crate) async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Error> {
        let answers = self.exchange(&Request::new(words)).await?;
        answers.into_iter().next().ok_or_else(|| protocol_error("no answer"))
    }

    /// As [`Self::exchange`], for a request that Redis may hold back for `block` and has to answer within
    /// `patience` from then on. Waiting for a permit does not count.
    pub(crate) async fn exchange_blocking(
        &mut self,
        request: &Request,
        block: Duration,
        patience: Duration,
    ) -> Result<Vec<Value>, Error> {
        self.silence = block + SILENCE;
        self.deadline = Some(Instant::now() + block + patience);
        let answers = self.exchange(request).await;
        (self.silence, self.deadline) = (SILENCE, None);
        answers
    }

    /// Sends all commands in one write, then receives an answer for each. After an error the link is in the
    /// middle of an exchange: drop it.
    pub(crate) async fn exchange(&mut self, request: &Request) -> Result<Vec<Value>, Error> {
        if !self.asking {
            return self.exchange_as_is(request).await;
        }
        let answers = self.exchange_as_is(&request.asking()).await?;
        // Each answer follows the one to its ASKING.
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }

    async fn exchange_as_is(&mut self, request: &Request) -> Result<Vec<Value>, Error> {
        self.decode_unasked()?;
        self.permit = None;
        (self.received_bytes, self.decoder.values, self.answered) = (0, 0, 0);
        self.was_late = false;
        if let Err(failure) = self.write(request.bytes()).await {
            return Err(self.refusal().await.unwrap_or(failure));
        }
        let mut answers = Vec::with_capacity(request.commands());
        while answers.len() < request.commands() {
            self.answered = answers.len();
            if let Some(repeated) = request.repeated(answers.len()) {
                self.repeat_if_late(repeated, request.max_answer_bytes()).await?;
            }
            match self.answer(request.max_answer_bytes()).await {
                Ok(answer) => answers.push(answer),
                Err(failure) => return Err(refusal_among(&answers).unwrap_or(failure)),
            }
        }
        if self.input.is_empty() {
            // The memory of a large reply goes with the reply, not with the link.
            self.input = BytesMut::new();
        }
        Ok(answers)
    }

    /// Some servers, woken from a blocking command, do not look at what else they have received until more comes.
    async fn repeat_if_late(&mut self, command: &[u8], max_bytes: usize) -> Result<(), Error> {
        if self.input.is_empty() {
            self.was_late = match timeout(LATE, self.receive()).await {
                Ok(received) => received.map(|()| false)?,
                Err(_) => true,
            };
        }
        if self.was_late {
            self.write(command).await?;
            // Of the two answers, the second is the newer one.
            self.answer(max_bytes).await?;
        }
        Ok(())
    }

    /// Why Redis has closed the connection, if it said so before we wrote.
    async fn refusal(&mut self) -> Option<Error> {
        let answer = timeout(LAST_WORDS, self.answer(usize::MAX)).await;
        refusal_among(&[answer.ok()?.ok()?])
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let socket = &mut self.socket;
        let written = async {
            socket.write_all(bytes).await?;
            // TLS may still hold what it has taken.
            socket.flush().await
        };
        by(self.deadline, self.silence, written).await
    }

    async fn answer(&mut self, max_bytes: usize) -> Result<Value, Error> {
        loop {
            let whole = self.decoder.next(&mut self.input);
            let whole = whole.map_err(|malformed| protocol_error(malformed.0))?;
            self.check_size(max_bytes).await?;
            match whole {
                Some(Value::Push(message)) => self.keep(message)?,
                Some(value) => return Ok(value),
                None => self.receive().await?,
            }
        }
    }

    /// Room for what is received next.
    fn make_room(&mut self) {
        if self.input.capacity() - self.input.len() < MIN_ROOM_BYTES {
            self.input.reserve(INPUT_BYTES.max(self.input.len()));
        }
    }

    async fn receive(&mut self) -> Result<(), Error> {
        self.make_room();
        let mut input = (&mut self.input).limit(RECEIVE_BYTES);
        let count = by(self.deadline, self.silence, self.socket.read_buf(&mut input)).await?;
        if count == 0 {
            return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
        }
        // Redis has begun to answer: it no longer blocks.
        self.silence = SILENCE;
        self.received_bytes += count;
        Ok(())
    }

    /// Compares the memory of the answers so far with their limit, and waits for a permit if they are large.
    async fn check_size(&mut self, max_bytes: usize) -> Result<(), Error> {
        let bytes = memory_bytes(self.received_bytes, self.decoder.values);
        if bytes > max_bytes {
            return Err(too_large(max_bytes));
        }
        if bytes > SMALL_REPLY_BYTES && self.permit.is_none() {
            self.wait_for_permit().await;
        }
        Ok(())
    }

    /// Meanwhile Redis, or the network, holds the rest of the reply.
    async fn wait_for_permit(&mut self) {
        let Some(permits) = self.permits.clone() else { return };
        let since = Instant::now();
        self.permit = Some(permits.acquire_owned().await.expect("the semaphore is never closed"));
        self.deadline = self.deadline.map(|deadline| deadline + since.elapsed());
    }

    /// Whether Redis has kept the connection open, as far as we know; for use between two exchanges.
    pub(crate) async fn is_open(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|context| {
            let mut byte = ReadBuf::new(&mut byte);
            // Anything but "nothing yet" makes the link useless: the end, an error, or unasked bytes.
            Poll::Ready(Pin::new(&mut *self.socket).poll_read(context, &mut byte).is_pending())
        })
        .await
    }
}

/// The refusal among the answers that came before a connection was lost: it tells why.
fn refusal_among(answers: &[Value]) -> Option<Error> {
    answers.iter().find_map(|answer| match answer {
        Value::Error(words) => Some(error_reply(words)),
        _ => None,
    })
}

async fn by<T>(
    deadline: Option<Instant>,
    silence: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    let silent = Instant::now() + silence;
    let deadline = deadline.map_or(silent, |deadline| deadline.min(silent));
    let outcome = timeout_at(deadline, work).await.map_err(|_| too_late("silence"))?;
    outcome.map_err(|error| lost(&error))
}

#[cfg(test)]
mod tests;
