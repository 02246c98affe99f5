//! Clients of other makes, for streams that end: each has a parser of its own and takes another thing for the end.
//! What they are and where they come from: `tests/clients`.

/// Chunks of an answer, as OpenAI's API sends them.
mod completions;
/// What reads any stream of events.
mod event_sources;
/// A run, as LangGraph's SDK joins it.
mod runs;
/// Messages of the AI SDK.
mod ui_messages;

use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};

/// The key of the answer that the tests are about.
const ANSWER: &str = "answer:a";
/// A route for the answers of a language model, to clients that expect nothing but their own.
const ROUTE: [&str; 10] = [
    "path = \"/answers/{id}\"",
    "key = \"answer:{id}\"",
    "access = \"public\"",
    "event = \"\"",
    // The marker has no payload; "{}" in its place breaks those that parse JSON.
    "missing = false",
    "replay = \"all\"",
    "start = \"earliest\"",
    "end = { field = \"end\", equals = [\"done\", \"failed\"] }",
    "controls = \"none\"",
    "on_gap = \"end\"",
];

/// That route, with these lines in place of its own of the same key.
fn route(lines: &[&str]) -> String {
    let key = |line: &str| line.split_once(" = ").unwrap().0.to_owned();
    let own = ROUTE.into_iter().filter(|own| lines.iter().all(|line| key(line) != key(own)));
    let lines: Vec<_> = own.chain(lines.iter().copied()).collect();
    format!("[[route]]\n{}\n", lines.join("\n"))
}

fn setup(redis: &Redis, lines: &[&str]) -> Setup {
    Setup::redis(redis).set("server", "retry = \"200ms\"").routes(&route(lines))
}

/// A gateway with that route.
fn start(redis: &Redis, lines: &[&str]) -> Gateway {
    setup(redis, lines).start_ready()
}

/// The URL of the answer.
fn url(gateway: &Gateway) -> String {
    format!("http://{}/answers/a", gateway.address)
}

/// The producer's part: adds these to the answer.
fn add(redis: &Redis, payloads: &[String]) -> Vec<String> {
    payloads.iter().map(|payload| redis.add(ANSWER, payload)).collect()
}

/// The producer's last: the entry that ends the answer.
fn finish(redis: &Redis) -> String {
    match redis.run(&["XADD", ANSWER, "*", "end", "done"]) {
        Answer::Text(id) => id,
        other => panic!("XADD answered {other:?}"),
    }
}

/// How many requests were answered so.
fn answered(gateway: &Gateway, code: u16) -> f64 {
    gateway.metric(&format!("ssegate_http_responses_total{{code=\"{code}\"}}"))
}
