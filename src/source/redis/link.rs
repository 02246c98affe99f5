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
        let (input, decoder) = (BytesMut::new(), Decoder::default());
        let mut link = Self { socket, decoder, input, output: Vec::new() };
        if let Some(password) = &source.password {
            let (name, password) = (source.username.as_bytes(), password.expose().as_bytes());
            // Without a name in the form that is all that Redis 5 knows.
            let named = [b"AUTH", name, password];
            let unnamed = [b"AUTH", password];
            let words: &[&[u8]] = if name.is_empty() { &unnamed } else { &named };
            accepted(link.ask(words).await?).map_err(login)?;
        }
        if database != 0 {
            accepted(link.ask(&[b"SELECT", database.to_string().as_bytes()]).await?)?;
        }
        Ok(link)
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
