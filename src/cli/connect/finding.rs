//! What was found about a server, and how it is told.

use std::fmt;

use serde_json::{Value, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing, or not to be found out.
    Note,
    /// A server cannot be asked.
    Unreachable,
    /// Streams will fail, or lose entries.
    Wrong,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// The server's address; the source as a whole where it is about several.
    pub(super) server: String,
    /// A name that stays the same, to search for.
    pub(super) code: &'static str,
    /// What was found, what follows, what to do.
    pub(super) text: String,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Unreachable => "unreachable",
            Self::Wrong => "wrong",
        }
    }
}

impl Finding {
    pub(super) fn json(&self) -> Value {
        let Self { level, server, code, text } = self;
        json!({ "level": level.as_str(), "server": server, "code": code, "text": text })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {:<14} {}", self.level.as_str(), self.code, self.text)
    }
}

/// A finding that has no server yet.
pub(super) type Judgement = (Level, &'static str, String);

/// The judgements about one server.
pub(super) fn about(server: &str, judged: impl IntoIterator<Item = Judgement>) -> Vec<Finding> {
    let finding = |(level, code, text)| Finding { level, server: server.to_owned(), code, text };
    judged.into_iter().map(finding).collect()
}
