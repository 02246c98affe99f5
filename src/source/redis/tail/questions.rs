//! Single questions about a stream, with small answers, over shared connections.

use super::client::replies::{accepted, entries, stream_info};
use super::client::{ANSWER_TIMEOUT, READ_TIMEOUT};
use super::routing::Tail;
use crate::source::{Error, StreamInfo};
use crate::sse::StreamId;

impl Tail {
    pub(in crate::source) async fn info(&self, key: &str) -> Result<Option<StreamInfo>, Error> {
        let answer = self.command(key, ANSWER_TIMEOUT, &["XINFO", "STREAM", key]).await?;
        let Some(info) = stream_info(answer)? else { return Ok(None) };
        Ok(Some(self.with_possible_holes(key, info).await))
    }

    pub(in crate::source) async fn holds(
        &self,
        key: &str,
        from: StreamId,
        to: StreamId,
    ) -> Result<bool, Error> {
        let (from, to) = (from.to_string(), to.to_string());
        let words = ["XRANGE", key, &from, &to, "COUNT", "1"];
        Ok(!entries(accepted(self.command(key, READ_TIMEOUT, &words).await?)?)?.is_empty())
    }
}
