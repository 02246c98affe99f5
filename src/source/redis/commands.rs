//! Single commands about a stream, over shared connections: questions with small answers, and `XADD`.

use bytes::Bytes;

use super::client::replies::{accepted, entries, sole, stream_id, stream_info};
use super::client::request::Request;
use super::client::{ANSWER_TIMEOUT, READ_TIMEOUT, in_time};
use super::routing::Redis;
use crate::source::{Error, StreamInfo};
use crate::sse::StreamId;

impl Redis {
    pub(in crate::source) async fn ping(&self) -> Result<(), Error> {
        accepted(self.command("", ANSWER_TIMEOUT, &["PING"]).await?).map(drop)
    }

    pub(in crate::source) async fn info(&self, key: &str) -> Result<Option<StreamInfo>, Error> {
        stream_info(self.command(key, ANSWER_TIMEOUT, &["XINFO", "STREAM", key]).await?)
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

    pub(in crate::source) async fn publish(
        &self,
        key: &str,
        payload: Bytes,
    ) -> Result<StreamId, Error> {
        let keep = self.publish_keep().to_string();
        let words: [&[u8]; 8] =
            [b"XADD", key.as_bytes(), b"MAXLEN", b"~", keep.as_bytes(), b"*", b"payload", &payload];
        let add = Request::new(&words);
        let mut node = in_time(ANSWER_TIMEOUT, "ROLE", self.primary(key)).await?;
        let mut added = self.request_at(&node, ANSWER_TIMEOUT, "XADD", &add).await;
        if added.as_ref().is_err_and(|error| error.code == "READONLY") {
            // The server has become a replica, and has added nothing.
            node = in_time(ANSWER_TIMEOUT, "ROLE", self.head_of_chain(node)).await?;
            added = self.request_at(&node, ANSWER_TIMEOUT, "XADD", &add).await;
        }
        stream_id(&accepted(sole(added?)?)?)
    }
}
