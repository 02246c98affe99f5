//! Pages of a stream's past, read over shared connections.

use super::looks::Beside;
use super::xread;
use crate::source::redis::tail::client::READ_TIMEOUT;
use crate::source::redis::tail::client::replies::{accepted, entries, sole};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::routing::Tail;
use crate::source::{Error, ReadRequest, Reply, StreamState};
use crate::sse::{Entry, StreamId};

/// The most memory that the reply to a look back at the newest entries may take.
pub const LOOK_BACK_BYTES: usize = 4 << 20;

impl Tail {
    /// Reads onwards without blocking.
    pub(in crate::source) async fn read(&self, ask: ReadRequest<'_>) -> Result<Reply, Error> {
        let request = xread::request(ask, None, Beside::Look);
        let answers = self.request(ask.key, READ_TIMEOUT, "XREAD", &request).await?;
        let mut reply = xread::reply(ask, answers)?;
        if let StreamState::Stream(info) = &mut reply.seen {
            *info = self.with_possible_holes(ask.key, *info).await;
        }
        Ok(reply)
    }

    /// Reads backwards from `before`, or from the newest entry.
    pub(in crate::source) async fn newest(
        &self,
        key: &str,
        before: Option<StreamId>,
        count: u64,
    ) -> Result<Vec<Entry>, Error> {
        let end = match before {
            Some(StreamId::ZERO) => return Ok(Vec::new()),
            Some(id) => id.prev().to_string(),
            None => "+".into(),
        };
        let count_word = count.to_string();
        let words = ["XREVRANGE", key, &end, "-", "COUNT", &count_word].map(str::as_bytes);
        // A single entry may have any size, or it would never be read.
        let max_bytes = if count > 1 { LOOK_BACK_BYTES } else { usize::MAX };
        let request = Request::new(&words).with_max_answer_bytes(max_bytes);
        entries(accepted(sole(self.request(key, READ_TIMEOUT, "XREVRANGE", &request).await?)?)?)
    }
}
