//! What a client gets over each version of HTTP, head and body, as curl prints it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ssegate::sse::parse::{Event, Item, Parser};

use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;

/// The versions of HTTP, as curl names them.
pub const PROTOCOLS: [&str; 3] = ["--http1.1", "--http1.0", "--http2-prior-knowledge"];

/// Plays `test` on each source with these routes.
pub fn on_both_sources(routes: &str, test: impl Fn(&Gateway)) {
    let sources: [fn(&Redis) -> Setup; 2] = [|_| Setup::memory(), Setup::redis];
    for (source, name) in sources.into_iter().zip(["memory", "redis"]) {
        eprintln!("{name} source");
        let redis = Redis::start();
        test(&source(&redis).routes(routes).start_ready());
    }
}

/// A public route that reads `events:{name}`, with these lines.
pub fn route(path: &str, lines: &str) -> String {
    format!(
        "[[route]]\npath = \"{path}/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\n{lines}\n"
    )
}

/// What a client got so far: the head as it came, and the bytes of the body.
pub struct Answer {
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Asks with curl over `protocol`, and reads up to the end of the event that has `last`.
    fn until(last: &str, protocol: &str, url: &str, headers: &[&str]) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["-sNi", "-m", "60", protocol, url]).stdout(Stdio::piped());
        headers.iter().for_each(|header| _ = curl.args(["-H", header]));
        let mut curl = curl.spawn().expect("curl must be installed");
        let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines().map_while(Result::ok);
        let head: Vec<_> = lines.by_ref().take_while(|line| !line.trim().is_empty()).collect();
        let (mut body, mut seen) = (String::new(), false);
        for line in lines {
            body += &line;
            body.push('\n');
            seen |= line.contains(last);
            if seen && line.is_empty() {
                break;
            }
        }
        curl.kill().unwrap();
        curl.wait().unwrap();
        assert!(seen, "{protocol} {url}: no {last} in {head:?} {body}");
        Self { head: head.join("\n"), body }
    }

    /// Up to the moment when the client is level with the tail.
    pub fn live(protocol: &str, gateway: &Gateway, path: &str, headers: &[&str]) -> Self {
        let url = format!("http://{}{path}", gateway.address);
        Self::until("\"type\":\"live\"", protocol, &url, headers)
    }

    pub fn events(&self) -> Vec<Event> {
        let mut items = Vec::new();
        Parser::new().feed(self.body.as_bytes(), &mut items).unwrap();
        let event = |item| match item {
            Item::Event(event) => Some(event),
            Item::Comment(_) => None,
        };
        items.into_iter().filter_map(event).collect()
    }

    /// The ids of the entries.
    pub fn ids(&self) -> Vec<String> {
        let events = self.events().into_iter().filter(|event| event.event_type != "ssegate");
        events.map(|event| event.last_event_id).collect()
    }

    /// The values of a header, one for each line that has it.
    pub fn values(&self, name: &str) -> Vec<String> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let wanted = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        wanted.map(|(_, value)| value.trim().to_owned()).collect()
    }
}
