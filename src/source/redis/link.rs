//! One connection to Redis: one exchange at a time, the commands in one write, then their answers.
//!
//! Nothing runs behind the back of whoever holds it. A link that failed, or was left in the middle of
//! an exchange, is dropped and never used again; so no command is ever sent twice.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::reply::{garbled, refused};
use super::resp::{Decoder, Value, write_command};
use crate::config::{self, Place};
use crate::source::{Class, Error};

/// Room for the input at first, of which a reply's strings are parts; a larger reply makes it larger.
const INPUT_BYTES: usize = 4 << 10;
/// With less room than this left it is made larger.
const LEAST_ROOM_BYTES: usize = 1 << 10;

trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// One connection; dropping it closes it.
pub struct Link {
    socket: Box<dyn Socket>,
    decoder: Decoder,
    input: BytesMut,
    output: Vec<u8>,
}

impl Link {
    /// Connects, logs in and chooses the database.
    pub(super) async fn open(source: &config::Source) -> Result<Self, Error> {
        let (socket, database) = connect(&source.place).await.map_err(|error| lost(&error))?;
        let mut link = Self::new(socket);
        link.log_in(source, database).await?;
        Ok(link)
    }

    async fn log_in(&mut self, source: &config::Source, database: u8) -> Result<(), Error> {
        if let Some(password) = &source.password {
            let (name, password) = (source.username.as_bytes(), password.expose().as_bytes());
            // Without a name in the form that is all that Redis 5 knows.
            let named = [b"AUTH", name, password];
            let unnamed = [b"AUTH", password];
            let words: &[&[u8]] = if name.is_empty() { &unnamed } else { &named };
            accepted(self.ask(words).await?).map_err(login)?;
        }
        if database != 0 {
            accepted(self.ask(&[b"SELECT", database.to_string().as_bytes()]).await?)?;
        }
        Ok(())
    }

    fn new(socket: Box<dyn Socket>) -> Self {
        let (input, decoder) = (BytesMut::new(), Decoder::default());
        Self { socket, decoder, input, output: Vec::new() }
    }

    /// One command and its answer.
    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Error> {
        self.queue(words);
        self.send().await?;
        self.answer().await
    }

    /// Keeps a command for the next [`Self::send`].
    pub(super) fn queue(&mut self, words: &[&[u8]]) {
        write_command(&mut self.output, words);
    }

    /// Begins an exchange.
    pub(super) async fn send(&mut self) -> Result<(), Error> {
        if !self.input.is_empty() {
            return Err(garbled("an answer to nothing"));
        }
        // A large reply's memory goes with the reply.
        self.input = BytesMut::new();
        let outcome = self.socket.write_all(&self.output).await;
        self.output.clear();
        outcome.map_err(|error| lost(&error))
    }

    /// The next answer; one for each command.
    pub(super) async fn answer(&mut self) -> Result<Value, Error> {
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

async fn connect(place: &Place) -> io::Result<(Box<dyn Socket>, u8)> {
    match place {
        Place::Unix { path, database } => {
            Ok((Box::new(UnixStream::connect(path).await?), *database))
        }
        Place::Tcp { host, port, database } => {
            let socket = TcpStream::connect((host.as_str(), *port)).await?;
            socket.set_nodelay(true)?;
            Ok((Box::new(socket), *database))
        }
        Place::Memory => unreachable!("Source::open chooses by place"),
    }
}

fn accepted(answer: Value) -> Result<(), Error> {
    match answer {
        Value::Refusal(words) => Err(refused(&words)),
        _ => Ok(()),
    }
}

/// Whatever Redis says against a login, nothing but the operator helps.
fn login(error: Error) -> Error {
    let code = if error.class == Class::Login { error.code } else { "NOAUTH" };
    Error { class: Class::Login, code, ..error }
}

fn lost(error: &io::Error) -> Error {
    let message = format!("the connection was lost or cannot be had: {error}");
    Error { class: Class::Away, code: "IO", message }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        link.queue(&[b"A"]);
        link.queue(&[b"B"]);
        link.send().await.unwrap();
        let mut heard = [0; 22];
        redis.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n");
        let answering = tokio::spawn(async move {
            let large = "x".repeat(20 * INPUT_BYTES);
            let answers = format!("${}\r\n{large}\r\n:7\r\n", large.len());
            for piece in answers.as_bytes().chunks(1_000) {
                redis.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            redis
        });
        let Value::Bytes(large) = link.answer().await.unwrap() else { panic!("no string") };
        assert_eq!(large.len(), 20 * INPUT_BYTES);
        assert_eq!(link.answer().await.unwrap(), Value::Integer(7));
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
            let error = login(refused(words));
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
        link.queue(&[b"GET"]);
        assert_eq!(code(link.answer()).await, "IO");
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
