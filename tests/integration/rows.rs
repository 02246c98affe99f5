//! Clients that get only some entries of a stream, by their token or by what they ask for.

use serde_json::{Value, json};

use crate::support::Folder;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::history::ids;
use crate::support::multiplexed::Session;
use crate::support::post::{ids_in, post};
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};

/// Which entries come, live and from the past, over both sources and both protocols.
mod delivery;
/// Random entries, tokens, filters and starts.
mod random;
/// A route's other rules: end, snapshot, conflate, gaps that end or heal.
mod together;
/// What a client hears of what it does not get.
mod withheld;

const OWN: &str = "where = { tenant = \"tenants\" }\nfilter = [\"severity\", \"source\"]\n";

/// `/events/{name}` for tokens, with these lines, and `/all/{name}` for everybody; both read `events:{name}`.
fn routes(lines: &str) -> String {
    format!(
        "[[route]]\npath = \"/events/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"jwt\"\nmatch = \"any\"\n\
         publish = {{ access = \"public\", fields = \"json\", rate = \"0/s\", maxlen = 0 }}\n{lines}\n\
         [[route]]\npath = \"/all/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\n"
    )
}

fn on(setup: Setup, lines: &str) -> Gateway {
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), SECRET).unwrap();
    let keys = "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]";
    let setup = setup.set("auth.jwt", keys).set("server", "keepalive = \"1s\"");
    setup.routes(&routes(lines)).credentials(credentials).start_ready()
}

/// Plays `test` on each source.
fn on_both_sources(lines: &str, test: impl Fn(&Gateway)) {
    let redis = Redis::start();
    for (name, setup) in [("memory", Setup::memory()), ("redis", Setup::redis(&redis))] {
        eprintln!("{name} source");
        test(&on(setup, lines));
    }
}

fn token(tenants: &Value) -> String {
    let claims = json!({ "sub": "u", "exp": seconds_from_now(600), "tenants": tenants });
    format!("Bearer {}", hs256(&claims))
}

fn open(gateway: &Gateway, tenants: &Value, query: &str) -> Client {
    let path = format!("/events/a{query}");
    Client::with(&gateway.address, &path, &[("Authorization", &token(tenants))])
}

fn resume(gateway: &Gateway, tenants: &Value, id: &str) -> Client {
    let headers = [("Authorization", &*token(tenants)), ("Last-Event-ID", id)];
    Client::with(&gateway.address, "/events/a", &headers)
}

/// Adds entries with these fields; their ids.
fn add(gateway: &Gateway, entries: &[Value]) -> Vec<String> {
    let add = |entry: &Value| {
        let json = ["Content-Type: application/json"];
        ids_in(&post(gateway, "/events/a", &json, &entry.to_string())).remove(0)
    };
    entries.iter().map(add).collect()
}

fn row(tenant: &str, payload: &str) -> Value {
    json!({ "tenant": tenant, "payload": payload })
}

/// The payloads that a client gets up to the last of them.
#[track_caller]
fn heard(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.entry().data).collect()
}
