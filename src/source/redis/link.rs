//! One connection to Redis: one exchange at a time, the commands in one write, then their answers.
//!
//! Nothing runs behind the back of whoever holds it. A link that failed, or was left in the middle of
//! an exchange, is dropped and never used again; so no command is ever sent twice.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::reply::{answered, garbled};
use super::request::Request;
use super::resp::{Decoder, Value};
use super::role::{Role, role};
use super::socket::{Socket, dial, lost};
use crate::config::{Address, Secret, Tls};
use crate::source::{Class, Error};

/// Room for the input at first, of which a reply's strings are parts; a larger reply makes it larger.
const INPUT_BYTES: usize = 4 << 10;
/// With less room than this left it is made larger.
const LEAST_ROOM_BYTES: usize = 1 << 10;

/// How to be let in, by whichever server it is.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) tls: Option<Tls>,
    /// Empty: none.
    pub(super) username: String,
    pub(super) password: Option<Secret>,
    pub(super) database: u8,
    /// A cluster's replicas answer only whoever says that staleness is no matter.
    pub(super) readonly: bool,
}

/// One connection; dropping it closes it.
pub(super) struct Link {
    socket: Box<dyn Socket>,
    decoder: Decoder,
    input: BytesMut,
    /// Each command is announced as one that was sent here by the node that gives the slot away.
    pub(super) asking: bool,
}

impl Link {
    /// Connects, logs in and chooses the database.
    pub(super) async fn open(address: &Address, login: &Login) -> Result<Self, Error> {
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
    pub(super) async fn role(&mut self) -> Result<Option<Role>, Error> {
        role(self.ask(&[b"ROLE"]).await?)
    }

    fn new(socket: Box<dyn Socket>) -> Self {
        let (input, decoder) = (BytesMut::new(), Decoder::default());
        Self { socket, decoder, input, asking: false }
    }

    /// One command and its answer.
    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Error> {
        let answers = self.exchange(&Request::new(words)).await?;
        answers.into_iter().next().ok_or_else(|| garbled("no answer"))
    }

    /// All commands in one write, then an answer for each. Where it fails, the link is in the midst of
    /// an exchange and of no more use.
    pub(super) async fn exchange(&mut self, request: &Request) -> Result<Vec<Value>, Error> {
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
        // A large reply's memory goes with the reply.
        self.input = BytesMut::new();
        self.write(request.bytes()).await.map_err(|error| lost(&error))?;
        let mut answers = Vec::with_capacity(request.commands());
        for _ in 0..request.commands() {
            answers.push(self.answer().await?);
        }
        Ok(answers)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        // What TLS has taken may not have left yet.
        self.socket.flush().await
    }

    async fn answer(&mut self) -> Result<Value, Error> {
        loop {
            let whole = self.decoder.next(&mut self.input);
            if let Some(value) = whole.map_err(|malformed| garbled(malformed.0))? {
                return Ok(value);
            }
            if self.input.capacity() - self.input.len() < LEAST_ROOM_BYTES {
                self.input.reserve(INPUT_BYTES.max(self.input.len()));
            }
            let count =
                self.socket.read_buf(&mut self.input).await.map_err(|error| lost(&error))?;
            if count == 0 {
                return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Whether Redis has not closed it meanwhile, as far as is known; between two exchanges.
    pub(super) async fn is_open(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|context| {
            let mut byte = ReadBuf::new(&mut byte);
            // An end, an error, or an answer to nothing: all the same.
            Poll::Ready(Pin::new(&mut *self.socket).poll_read(context, &mut byte).is_pending())
        })
        .await
    }
}

/// Whatever Redis says against a login, nothing but the operator helps.
fn refused_login(error: Error) -> Error {
    let code = if error.class == Class::Login { error.code } else { "NOAUTH" };
    Error { class: Class::Login, code, ..error }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixStream;

    use super::super::reply::refused;
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
        assert_eq!(sorted("WRONGPASS invalid"), (Class::Login, "WRONGPASS"));
        assert_eq!(sorted("ERR AUTH called without any password"), (Class::Login, "NOAUTH"));
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
