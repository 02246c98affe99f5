//! The state, and then the stream.

use serde_json::Value;
use ssegate::sse::parse::Event;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};

/// What a client that is behind is spared.
mod conflation;
/// What the document shows.
mod documented;
/// Where a client begins, and what a gap leads to.
mod healing;
/// What a key holds, and how its clients get it.
mod kinds;
/// The newest entry of each, from the stream itself.
mod newest;
/// A writer that changes a state and its stream without pause, and clients that join, stall and return.
mod random;
/// What is refused, and what a crowd costs.
mod shares;

const OF_KEY: &str = "snapshot = \"state:{name}\"";
const NEWEST: &str = "snapshot = { newest_by = \"id\" }";

/// A route `/events/{name}` with these keys, and one for the same streams without.
fn routes(keys: &str) -> String {
    let route = |path: &str| {
        format!(
            "[[route]]\npath = \"/{path}/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\n"
        )
    };
    format!("{}{keys}\n{}", route("events"), route("plain"))
}

fn start(redis: &Redis, keys: &str) -> Gateway {
    Setup::redis(redis).routes(&routes(keys)).start_ready()
}

fn open(gateway: &Gateway) -> Client {
    Client::open(&gateway.address, "/events/a")
}

fn resume(gateway: &Gateway, id: &str) -> Client {
    Client::resume(&gateway.address, "/events/a", id)
}

/// The next event, which is a state.
#[track_caller]
fn state_of(client: &mut Client) -> Event {
    let event = client.event();
    assert_eq!(event.event_type, "snapshot", "{event:?}");
    event
}

/// Its data, which is JSON.
#[track_caller]
fn json_of(client: &mut Client) -> (Value, String) {
    let event = state_of(client);
    (serde_json::from_str(&event.data).unwrap(), event.last_event_id)
}

/// Writes a field of the state and the entry that tells of it, in one transaction.
fn write(redis: &Redis, name: &str, value: &str) -> String {
    let script = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) \
        return redis.call('XADD', KEYS[2], '*', 'id', ARGV[1], 'payload', ARGV[2])";
    let command = ["EVAL", script, "2", "state:a", "events:a", name, value];
    match redis.run(&command) {
        Answer::Text(id) => id,
        other => panic!("EVAL answered {other:?}"),
    }
}
