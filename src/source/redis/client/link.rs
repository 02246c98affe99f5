//! One connection to Redis: one exchange at a time, the commands in one write, then their answers.
//!
//! Nothing runs behind the back of whoever holds it. A link that failed, or was left in the middle of
//! an exchange, is dropped and never used again; so no command is ever sent twice.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::replies::{answered, garbled, is_full, stream_info};
use super::request::{Request, read_reply};
use super::resp::{Decoder, Value};
use super::role::{Role, role};

use super::socket::{Socket, dial, lost};
use super::timing::{ANSWER_TIMEOUT, READ_TIMEOUT, in_time, too_late};
use crate::config::{Address, Secret, Tls};
use crate::source::{Error, ErrorClass, ReadRequest, Reply, StreamInfo};

use super::weight::{MOST_AT_ONCE_BYTES, SMALL_REPLY_BYTES, held_bytes, too_large};

/// Room for the input at first, of which a reply's strings are parts; a larger reply makes it larger.
const INPUT_BYTES: usize = 4 << 10;
/// With less room than this left it is made larger.
const LEAST_ROOM_BYTES: usize = 1 << 10;
/// Redis that has something to say is not silent for longer than this.
const SILENCE: Duration = Duration::from_secs(3);
/// How to be let in, by whichever server it is.
#[derive(Clone, Default)]
pub(in crate::source::redis) struct Login {
    pub(in crate::source::redis) tls: Option<Tls>,
    /// Empty: none.
    pub(in crate::source::redis) username: String,
    pub(in crate::source::redis) password: Option<Secret>,
    pub(in crate::source::redis) database: u8,
    /// A cluster's replicas answer only whoever says that staleness is no matter.
    pub(in crate::source::redis) readonly: bool,
}

/// One connection; dropping it closes it.
pub(in crate::source::redis) struct Link {
    socket: Box<dyn Socket>,
    decoder: Decoder,
    input: BytesMut,
    /// What has come of the answers to the present request.
    received_bytes: usize,
    /// Large replies over this link and others take turns.
    permits: Option<Arc<Semaphore>>,
    /// This one's, until it is given back or the next request.
    permit: Option<OwnedSemaphorePermit>,
    /// How long Redis may be silent.
    silence: Duration,
    /// By when the present request has to be answered; `None`: whoever asks sees to that.
    deadline: Option<Instant>,
    /// Each command is announced as one that was sent here by the node that gives the slot away.
    pub(in crate::source::redis) asking: bool,
}

impl Link {
    /// Connects, logs in and chooses the database.
    pub(in crate::source::redis) async fn open(
        address: &Address,
        login: &Login,
    ) -> Result<Self, Error> {
        let mut link = Self::new(dial(address, login.tls.as_ref()).await?);
        link.log_in(login).await?;
        Ok(link)
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Error> {
        if let Some(password) = &login.password {
            let (name, password) = (login.username.as_bytes(), password.expose().as_bytes());
            // Without a name in the form that is all that Redis 5 knows.
            let named = [b"AUTH", name, password];
            let unnamed = [b"AUTH", password];
            let words: &[&[u8]] = if name.is_empty() { &unnamed } else { &named };
            answered(self.ask(words).await?).map_err(refused_login)?;
        }
        if login.database != 0 {
            answered(self.ask(&[b"SELECT", login.database.to_string().as_bytes()]).await?)?;
        }
        if login.readonly {
            answered(self.ask(&[b"READONLY"]).await?).map_err(refused_login)?;
        }
        Ok(())
    }

    /// What the server is to others; `None`: we may not know.
    pub(in crate::source::redis) async fn role(&mut self) -> Result<Option<Role>, Error> {
        role(self.ask(&[b"ROLE"]).await?)
    }

    pub(super) fn new(socket: Box<dyn Socket>) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            input: BytesMut::new(),
            received_bytes: 0,
            permits: None,
            permit: None,
            silence: SILENCE,
            deadline: None,
            asking: false,
        }
    }

    /// Lets its large replies take turns with those of others: so many are in memory at once.
    pub(in crate::source::redis) fn share_permits(&mut self, permits: Arc<Semaphore>) {
        self.permits = Some(permits);
    }

    /// The reply is no longer in memory.
    pub(in crate::source::redis) fn release_permit(&mut self) {
        self.permit = None;
    }

    /// As [`Self::exchange`], of a request that is answered after `block`, and then in `patience`; what
    /// it waits for its turn is not counted.
    pub(in crate::source::redis) async fn exchange_blocked(
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

    /// One command and its answer.
    pub(in crate::source::redis) async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Error> {
        let answers = self.exchange(&Request::new(words)).await?;
        answers.into_iter().next().ok_or_else(|| garbled("no answer"))
    }

    /// All commands in one write, then an answer for each. Where it fails, the link is in the midst of
    /// an exchange and of no more use.
    pub(in crate::source::redis) async fn exchange(
        &mut self,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        if !self.asking {
            return self.exchange_as_is(request).await;
        }
        let answers = self.exchange_as_is(&request.asking()).await?;
        // Behind the answer to each ASKING.
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }

    async fn exchange_as_is(&mut self, request: &Request) -> Result<Vec<Value>, Error> {
        if !self.input.is_empty() {
            return Err(garbled("an answer to nothing"));
        }
        self.permit = None;
        (self.received_bytes, self.decoder.values) = (0, 0);
        self.write(request.bytes()).await?;
        let mut answers = Vec::with_capacity(request.commands());
        for _ in 0..request.commands() {
            answers.push(self.answer(request.most_bytes()).await?);
        }
        if self.input.is_empty() {
            // A large reply's memory goes with the reply, not with the link's next one.
            self.input = BytesMut::new();
        }
        Ok(answers)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let socket = &mut self.socket;
        let written = async {
            socket.write_all(bytes).await?;
            // What TLS has taken may not have left yet.
            socket.flush().await
        };
        by(self.deadline, self.silence, written).await
    }

    async fn answer(&mut self, most_bytes: usize) -> Result<Value, Error> {
        loop {
            let whole = self.decoder.next(&mut self.input);
            let whole = whole.map_err(|malformed| garbled(malformed.0))?;
            self.weigh(most_bytes).await?;
            if let Some(value) = whole {
                return Ok(value);
            }
            if self.input.capacity() - self.input.len() < LEAST_ROOM_BYTES {
                self.input.reserve(INPUT_BYTES.max(self.input.len()));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), Error> {
        let mut input = (&mut self.input).limit(MOST_AT_ONCE_BYTES);
        let count = by(self.deadline, self.silence, self.socket.read_buf(&mut input)).await?;
        if count == 0 {
            return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
        }
        // What it has begun to say it goes on with.
        self.silence = SILENCE;
        self.received_bytes += count;
        Ok(())
    }

    /// Holds what the answers so far take in memory against what they may, and waits for a turn.
    async fn weigh(&mut self, most_bytes: usize) -> Result<(), Error> {
        let held_bytes = held_bytes(self.received_bytes, self.decoder.values);
        if held_bytes > most_bytes {
            return Err(too_large(most_bytes));
        }
        if held_bytes > SMALL_REPLY_BYTES && self.permit.is_none() {
            self.wait_for_permit().await;
        }
        Ok(())
    }

    /// Meanwhile Redis, or the network, holds the rest.
    async fn wait_for_permit(&mut self) {
        let Some(permits) = self.permits.clone() else { return };
        let since = Instant::now();
        self.permit = Some(permits.acquire_owned().await.expect("it is never closed"));
        self.deadline = self.deadline.map(|deadline| deadline + since.elapsed());
    }

    /// Whether Redis has not closed it meanwhile, as far as is known; between two exchanges.
    pub(in crate::source::redis) async fn is_open(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|context| {
            let mut byte = ReadBuf::new(&mut byte);
            // An end, an error, or an answer to nothing: all the same.
            Poll::Ready(Pin::new(&mut *self.socket).poll_read(context, &mut byte).is_pending())
        })
        .await
    }
}

/// What a reader does with the connection that is its own.
impl Link {
    /// Waits up to `block` for entries.
    pub(in crate::source::redis) async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Duration,
    ) -> Result<Reply, Error> {
        let request = Request::read(ask, Some(block));
        let answers = self.exchange_blocked(&request, block, READ_TIMEOUT).await?;
        read_reply(ask, answers)
    }

    pub(in crate::source::redis) async fn info(
        &mut self,
        key: &str,
    ) -> Result<Option<StreamInfo>, Error> {
        let words = [b"XINFO", b"STREAM".as_slice(), key.as_bytes()];
        stream_info(in_time(ANSWER_TIMEOUT, "XINFO", self.ask(&words)).await?)
    }
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

/// Whatever Redis says against a login, nothing but the operator helps; unless it is busy, or full, which
/// it tells whoever comes.
fn refused_login(error: Error) -> Error {
    let busy = error.class == ErrorClass::Away && error.code != "ERR";
    if busy || is_full(&error.message) {
        return error;
    }
    let code = if error.class == ErrorClass::Login { error.code } else { "NOAUTH" };
    Error { class: ErrorClass::Login, code, ..error }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::super::replies::refused;
    use super::*;

    /// A link, and what Redis would hold.
    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(Box::new(ours)), theirs)
    }

    async fn code<T>(work: impl Future<Output = Result<T, Error>>) -> &'static str {
        work.await.err().expect("it fails").code
    }

    #[tokio::test]
    async fn an_answer_comes_in_pieces_after_all_commands_went_in_one() {
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
    async fn large_replies_take_turns_whose_wait_does_not_count() {
        let (mut link, mut redis) = pair();
        let permits = Arc::new(Semaphore::new(1));
        link.share_permits(permits.clone());
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
            let answers = link.exchange_blocked(&Request::new(&[b"A"]), none, patience).await;
            (link, answers)
        });
        tokio::time::sleep(2 * patience).await;
        assert!(!asking.is_finished(), "it waits for its turn");
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
        let silent = link.exchange_blocked(&request, Duration::ZERO, Duration::from_millis(50));
        assert_eq!(code(silent).await, "TIMEOUT");
    }

    #[tokio::test]
    async fn what_is_larger_than_it_may_be_is_given_up() {
        let (mut link, mut redis) = pair();
        let large = format!("$200\r\n{}\r\n", "x".repeat(200));
        redis.write_all(large.as_bytes()).await.unwrap();
        let request = Request::new(&[b"A"]).with_answers_within(100);
        assert_eq!(code(link.exchange(&request)).await, "TOOLARGE");
    }

    #[tokio::test]
    async fn an_answer_to_nothing_and_nonsense_are_garbled() {
        let (mut link, mut redis) = pair();
        redis.write_all(b":1\r\n:2\r\n").await.unwrap();
        assert_eq!(link.ask(&[b"PING"]).await.unwrap(), Value::Integer(1));
        assert_eq!(code(link.ask(&[b"PING"])).await, "PROTOCOL");
        let (mut link, mut redis) = pair();
        redis.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        assert_eq!(code(link.ask(&[b"PING"])).await, "PROTOCOL");
    }

    #[test]
    fn whatever_is_said_against_a_login_is_for_the_operator() {
        let sorted = |words| {
            let error = refused_login(refused(words));
            (error.class, error.code)
        };
        assert_eq!(sorted("WRONGPASS invalid"), (ErrorClass::Login, "WRONGPASS"));
        assert_eq!(sorted("ERR AUTH called without any password"), (ErrorClass::Login, "NOAUTH"));
        assert_eq!(sorted("ERR max number of clients reached"), (ErrorClass::Away, "ERR"));
        let of_a_cluster = "ERR max number of clients + cluster connections reached";
        assert_eq!(sorted(of_a_cluster), (ErrorClass::Away, "ERR"));
        assert_eq!(sorted("BUSY Redis is busy running a script"), (ErrorClass::Away, "BUSY"));
        assert_eq!(sorted("LOADING Redis is loading"), (ErrorClass::Away, "LOADING"));
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
