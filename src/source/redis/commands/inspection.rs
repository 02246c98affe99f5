//! Single questions to one server, for `ssegate check --connect`.

use std::sync::Arc;

use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::client::Client;
use super::events::CommandConnections;
use super::outcome;
use super::settings::{Settings, one};
use crate::config::{Address, Source};
use crate::source::Error;

/// What a server is asked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// It holds streams.
    Data,
    /// It watches servers that do, and has a login of its own.
    Sentinel,
}

/// A connection to one server.
pub struct Inspector {
    client: Client,
    settings: Settings,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Nothing.
    Nil,
    /// A string, or a number that is written as one.
    Text(String),
    /// Several answers.
    List(Vec<Answer>),
}

impl Inspector {
    /// Connects and logs in, as the gateway would.
    pub async fn open(source: &Source, server: &Address, kind: ServerKind) -> Result<Self, Error> {
        let settings = Settings::new(source);
        // In RESP2 every server answers alike.
        let mut config = settings.client(true);
        config.server = one(server);
        if kind == ServerKind::Sentinel {
            (config.username, config.password) = settings.sentinel_login();
            config.database = None;
        }
        let connections = Arc::new(CommandConnections::default());
        Ok(Self { client: Client::connect(config, 1, &connections).await?, settings })
    }

    /// Asks, and waits up to 2 s for the answer.
    pub async fn ask(&self, words: &[&str]) -> Result<Answer, Error> {
        let (name, arguments) = words.split_first().expect("a question has words");
        let command = CustomCommand::new((*name).to_owned(), ClusterHash::FirstKey, false);
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let client = self.client.pool().with_options(&self.settings.options());
        let answer: Result<Value, _> = client.custom(command, arguments).await;
        answer.map(Answer::from).map_err(|error| outcome::not_sent(&error))
    }
}

impl Answer {
    /// The string; empty if it is none.
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// The parts of a list; none if it is none.
    pub fn parts(&self) -> &[Answer] {
        if let Self::List(parts) = self { parts } else { &[] }
    }

    /// The value behind `name` in a list of names and values.
    pub fn value_of(&self, name: &str) -> Option<&Answer> {
        let mut pairs = self.parts().chunks_exact(2);
        pairs.find(|pair| pair[0].text() == name).map(|pair| &pair[1])
    }

    /// The value behind `name:` in the lines of `INFO`.
    pub fn line(&self, name: &str) -> Option<&str> {
        self.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
            value => Self::Text(value.as_string().unwrap_or_default()),
        }
    }
}
