//! Single questions about a stream, with small answers, over shared connections.

use super::client::replies::{accepted, entries, sole, stream_info};
use super::client::request::Request;
use super::client::{ANSWER_TIMEOUT, READ_TIMEOUT};
use super::holes::hello_makes_holes;
use super::routing::Tail;
use super::topology::{Node, Purpose};
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

    /// As [`Self::without_impossible_holes`], for the server where `key` is read.
    pub(super) async fn with_possible_holes(&self, key: &str, info: StreamInfo) -> StreamInfo {
        if !info.may_have_holes {
            return info;
        }
        match self.servers().find(key, Purpose::Reading).await {
            Ok(node) => self.without_impossible_holes(&node, info).await,
            Err(_) => info,
        }
    }

    /// The stream, without the suspicion of holes if the server cannot make any. Asking is rare: it is boxed, and
    /// takes no memory of each reader.
    pub(super) async fn without_impossible_holes(
        &self,
        node: &Node,
        info: StreamInfo,
    ) -> StreamInfo {
        let may_have_holes = info.may_have_holes && Box::pin(self.makes_holes(node)).await;
        StreamInfo { may_have_holes, ..info }
    }

    /// A server that does not tell its version may be a new one.
    async fn makes_holes(&self, node: &Node) -> bool {
        if let Some(makes_holes) = self.hole_makers().find(&node.address) {
            return makes_holes;
        }
        let request = Request::new(&[b"HELLO"]);
        let Ok(answer) =
            self.request_at(node, ANSWER_TIMEOUT, "HELLO", &request).await.and_then(sole)
        else {
            return true;
        };
        let makes_holes = hello_makes_holes(answer);
        self.hole_makers().note(&node.address, makes_holes);
        makes_holes
    }
}
