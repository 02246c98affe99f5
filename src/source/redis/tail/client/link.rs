//! A link: one connection to Redis, with one exchange at a time. All commands of an exchange go in one write,
//! then their answers come.
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
        if !self.input.is_empty() {
            return Err(protocol_error("an answer to no command"));
        }
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
            if let Some(value) = whole {
                return Ok(value);
            }
            if self.input.capacity() - self.input.len() < MIN_ROOM_BYTES {
                self.input.reserve(INPUT_BYTES.max(self.input.len()));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), Error> {
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
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    /// A link, and Redis' end of its connection.
    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(Box::new(ours)), theirs)
    }

    async fn code<T>(work: impl Future<Output = Result<T, Error>>) -> &'static str {
        work.await.err().expect("it fails").code
    }

    #[tokio::test]
    async fn commands_go_in_one_write_and_answers_may_come_in_pieces() {
        let (mut link, mut redis) = pair();
        let answering = tokio::spawn(async move {
            let mut heard = [0; 22];
            redis.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n");
            let large = "x".repeat(20 * INPUT_BYTES);
            let answers = format!("${}\r\n{large}\r\n:7\r\n", large.len());
            for piece in answers.as_bytes().chunks(1_000) {
                redis.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            redis
        });
        let answers = link.exchange(&Request::new(&[b"A"]).and(&[b"B"])).await.unwrap();
        let [Value::Bytes(large), Value::Integer(7)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(large.len(), 20 * INPUT_BYTES);
        drop(answering.await.unwrap());
    }

    #[tokio::test]
    async fn a_large_reply_waits_for_a_permit_and_the_wait_does_not_count() {
        let (mut link, mut redis) = pair();
        let permits = Arc::new(Semaphore::new(1));
        link.limit_large_replies(permits.clone());
        let other = permits.clone().try_acquire_owned().unwrap();
        let large = "x".repeat(4 * SMALL_REPLY_BYTES);
        let answer = format!("${}\r\n{large}\r\n", large.len());
        let answering = tokio::spawn(async move {
            redis.write_all(answer.as_bytes()).await.unwrap();
            redis
        });
        let patience = Duration::from_millis(300);
        let asking = tokio::spawn(async move {
            let none = Duration::ZERO;
            let answers = link.exchange_blocking(&Request::new(&[b"A"]), none, patience).await;
            (link, answers)
        });
        tokio::time::sleep(2 * patience).await;
        assert!(!asking.is_finished(), "it waits for a permit");
        drop(other);
        let (mut link, answers) = asking.await.unwrap();
        assert_eq!(answers.unwrap(), [Value::Bytes(large.into())]);
        assert_eq!(permits.available_permits(), 0, "the reply may still be in memory");
        link.release_permit();
        assert_eq!(permits.available_permits(), 1);
        link.permit = permits.clone().try_acquire_owned().ok();
        let mut redis = answering.await.unwrap();
        redis.write_all(b":1\r\n").await.unwrap();
        link.exchange(&Request::new(&[b"B"])).await.unwrap();
        assert_eq!(permits.available_permits(), 1);
        let request = Request::new(&[b"C"]);
        let silent = link.exchange_blocking(&request, Duration::ZERO, Duration::from_millis(50));
        assert_eq!(code(silent).await, "TIMEOUT");
    }

    #[tokio::test]
    async fn an_answer_over_its_limit_is_abandoned() {
        let (mut link, mut redis) = pair();
        let large = format!("$200\r\n{}\r\n", "x".repeat(200));
        redis.write_all(large.as_bytes()).await.unwrap();
        let request = Request::new(&[b"A"]).with_max_answer_bytes(100);
        assert_eq!(code(link.exchange(&request)).await, "TOOLARGE");
    }

    #[tokio::test]
    async fn an_unasked_answer_and_nonsense_are_protocol_errors() {
        let (mut link, mut redis) = pair();
        redis.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(link.ask(&[b"PING"]).await.unwrap(), Value::Integer(1));
        assert_eq!(code(link.ask(&[b"PING"])).await, "PROTOCOL");
        let (mut link, mut redis) = pair();
        redis.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        assert_eq!(code(link.ask(&[b"PING"])).await, "PROTOCOL");
    }

    #[tokio::test]
    async fn a_refusal_before_the_end_is_why_the_exchange_failed() {
        let (mut link, mut redis) = pair();
        redis.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
        drop(redis);
        let error = link.exchange(&Request::new(&[b"A"])).await.unwrap_err();
        assert_eq!(error.message, "ERR max number of clients reached");
        let (mut link, mut redis) = pair();
        redis.write_all(b"-UNBLOCKED state changed\r\n").await.unwrap();
        let answering = tokio::spawn(async move {
            redis.read_exact(&mut [0; 11]).await.unwrap();
        });
        let request = Request::new(&[b"A"]).and(&[b"B"]);
        assert_eq!(code(link.exchange(&request)).await, "UNBLOCKED");
        answering.await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_connection_is_noticed_between_and_within_exchanges() {
        let (mut link, mut redis) = pair();
        assert!(link.is_open().await);
        redis.write_all(b"$5\r\nhal").await.unwrap();
        drop(redis);
        assert_eq!(code(link.ask(&[b"GET"])).await, "IO");
        let (mut link, redis) = pair();
        drop(redis);
        let noticed = async {
            while link.is_open().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), noticed).await.expect("it is noticed");
    }
}
