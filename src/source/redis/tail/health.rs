//! Whether Redis answers, and whether it does what readers need of it. A server may answer `PING` and know no streams
//! (a sentinel, a proxy), or serve all streams and not answer `PING` (renamed, or denied).

use std::time::Instant;

use super::client::ANSWER_TIMEOUT;
use super::client::replies::{accepted, stream_info};
use super::client::request::Request;
use super::client::resp::Value;
use super::routing::Tail;
use super::topology::{Node, Servers};
use crate::source::redis::refusal::{error_reply, is_command_denied, is_too_many_clients};
use crate::source::{Error, ErrorClass};

/// A cluster's nodes are asked one after another, at most so many.
const MOST_NODES: usize = 3;
/// Keys that nobody uses, of the first and the last slots: a node of a cluster does not serve both.
const UNUSED_KEYS: [&[u8]; 2] = [b"ssegate:{06S}", b"ssegate:{6ZJ}"];

impl Tail {
    /// Fails unless a server answers; and, unless that was shown (`is_shown`), does what readers need.
    pub(in crate::source) async fn check(&self, is_shown: bool) -> Result<(), Error> {
        let mut last = None;
        for node in self.servers().to_ask().await?.iter().take(MOST_NODES) {
            match self.check_at(node, is_shown).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.servers().report_failure(node, &error);
                    last = Some(self.servers().explained(error));
                }
            }
        }
        Err(last.expect("source.url names at least one server"))
    }

    async fn check_at(&self, node: &Node, is_shown: bool) -> Result<(), Error> {
        let ping = Request::new(&[b"PING"]);
        let answers = self.ask(node, "PING", &ping).await;
        match answers.as_deref() {
            Ok([Value::Error(words)]) if is_too_many_clients(words) => {
                return Err(error_reply(words));
            }
            // A command that is unknown, renamed or denied is an answer, too.
            Ok(_) => {}
            Err(error) if error.class == ErrorClass::Key => {}
            Err(error) => return Err(error.clone()),
        }
        if is_shown { Ok(()) } else { self.check_reading_at(node).await }
    }

    /// Asks this node and no other.
    async fn ask(&self, node: &Node, doing: &str, request: &Request) -> Result<Vec<Value>, Error> {
        let asked = Instant::now();
        let outcome = self.pool().exchange(node, ANSWER_TIMEOUT, doing, request).await;
        self.command_durations().observe(asked.elapsed(), 1);
        outcome
    }

    async fn check_reading_at(&self, node: &Node) -> Result<(), Error> {
        for key in UNUSED_KEYS {
            let request = Request::new(&[b"XREAD", b"COUNT", b"1", b"STREAMS", key, b"0"])
                .and(&[b"XINFO", b"STREAM", key]);
            match self.ask(node, "XREAD", &request).await {
                Ok(answers) => is_understood(answers)?,
                Err(error) if self.is_no_fault(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The key is denied, not the command; or it is another node's.
    fn is_no_fault(&self, error: &Error) -> bool {
        let is_cluster = matches!(self.servers(), Servers::Cluster(_));
        match error.code {
            "MOVED" | "ASK" | "TRYAGAIN" => is_cluster,
            "NOPERM" => !is_command_denied(&error.message),
            _ => error.class == ErrorClass::Key,
        }
    }
}

fn is_understood(answers: Vec<Value>) -> Result<(), Error> {
    let mut answers = answers.into_iter();
    if let Some(read) = answers.next() {
        accepted(read)?;
    }
    answers.next().map_or(Ok(()), |info| stream_info(info).map(drop))
}
