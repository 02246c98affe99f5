//! What Redis tells unasked, which takes RESP3: that a key has changed of which it was asked to tell.

use bytes::BufMut;
use tokio::io::AsyncReadExt;

use super::{Link, Value};
use crate::source::Error;
use crate::source::redis::tail::client::failure::lost;
use crate::source::redis::tail::client::replies::{accepted, protocol_error};
use crate::source::redis::tail::client::reply_size::{RECEIVE_BYTES, memory_bytes};
use crate::source::redis::tail::client::resp::Malformed;

const UNASKED: &str = "an answer to no command";
/// More than this nobody keeps for its owner: one for each key that it may have asked for.
const MOST_PUSHES: usize = 1 << 18;
/// The memory that one may take.
const MOST_PUSH_BYTES: usize = 1 << 20;

impl Link {
    /// Has Redis tell of keys that change once they were asked for (`CLIENT TRACKING`). Whether it does; else the link
    /// is as before.
    pub(crate) async fn track(&mut self) -> Result<bool, Error> {
        self.decoder.speaks_resp3 = true;
        if is_refused(&self.ask(&[b"HELLO", b"3"]).await?) {
            self.decoder.speaks_resp3 = false;
            return Ok(false);
        }
        if !is_refused(&self.ask(&[b"CLIENT", b"TRACKING", b"ON"]).await?) {
            return Ok(true);
        }
        accepted(self.ask(&[b"HELLO", b"2"]).await?)?;
        self.decoder.speaks_resp3 = false;
        Ok(false)
    }

    /// Returns once Redis has told something; for use between two exchanges. If it is dropped, nothing is lost.
    pub(crate) async fn pushed(&mut self) -> Result<(), Error> {
        self.decoder.values = 0;
        loop {
            self.decode_unasked()?;
            if !self.pushes.is_empty() {
                return Ok(());
            }
            if memory_bytes(self.input.len(), self.decoder.values) > MOST_PUSH_BYTES {
                return Err(protocol_error("told of something too large"));
            }
            self.make_room();
            let mut input = (&mut self.input).limit(RECEIVE_BYTES);
            let count = self.socket.read_buf(&mut input).await.map_err(|error| lost(&error))?;
            if count == 0 {
                return Err(lost(&std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What Redis has told so far.
    pub(crate) fn take_pushes(&mut self) -> Vec<Vec<Value>> {
        std::mem::take(&mut self.pushes)
    }

    /// Decodes what was received between two exchanges: no answer can be among it.
    pub(super) fn decode_unasked(&mut self) -> Result<(), Error> {
        if self.input.is_empty() {
            return Ok(());
        }
        if !self.decoder.speaks_resp3 {
            return Err(protocol_error(UNASKED));
        }
        let malformed = |malformed: Malformed| protocol_error(malformed.0);
        while let Some(value) = self.decoder.next(&mut self.input).map_err(malformed)? {
            let Value::Push(message) = value else { return Err(protocol_error(UNASKED)) };
            self.keep(message)?;
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, message: Vec<Value>) -> Result<(), Error> {
        if self.pushes.len() == MOST_PUSHES {
            return Err(protocol_error("told of more than was asked for"));
        }
        self.pushes.push(message);
        Ok(())
    }
}

fn is_refused(answer: &Value) -> bool {
    matches!(answer, Value::Error(_))
}
