//! Rows by token: which entries of one stream a client gets, by what its token says and by what it asks for.

use serde_json::{Value, json};

use crate::support::Folder;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::post;
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};

/// What docs/rows.md shows.
mod documented;
/// What is refused: queries, tokens, and too many selections.
mod refusals;
/// Streams that go on, or not, under another configuration.
mod reload;

/// A route for tokens with these keys, to which everybody adds entries; and one for everybody with filters.
fn routes(keys: &str) -> String {
    format!(
        r#"
[[route]]
path    = "/alerts"
key     = "alerts"
access  = "jwt"
publish = {{ access = "public", fields = "json" }}
{keys}

[[route]]
path    = "/open"
key     = "alerts"
access  = "public"
filter  = ["severity", "source"]

[[route]]
path    = "/plain"
key     = "alerts"
access  = "public"
"#
    )
}

const WHERE: &str = "where = { tenant = \"tenants\" }\nfilter = [\"severity\"]";

/// A gateway that takes HS256 tokens with [`SECRET`] for the first of [`routes`]; its secret is in a folder that stays.
struct Tokens(Folder);

impl Tokens {
    fn new() -> Self {
        let folder = Folder::new();
        std::fs::write(folder.0.join("jwt"), SECRET).unwrap();
        Self(folder)
    }

    fn setup(&self, source: Setup, keys: &str) -> Setup {
        let file = self.0.0.join("jwt");
        let keys_of_tokens = format!("keys = [{{ alg = \"HS256\", secret_file = {file:?} }}]");
        source
            .routes(&routes(keys))
            .set("server", "keepalive = \"1h\"")
            .set("auth.jwt", &keys_of_tokens)
            .set("auth.jwt", "from = [\"header\", \"query:token\"]")
    }
}

/// Calls `of` with a setup for each source.
fn with_both_sources(of: impl Fn(&dyn Fn() -> Setup)) {
    of(&Setup::memory);
    let redis = Redis::start();
    of(&|| Setup::redis(&redis));
}

/// A token that is good for ten minutes, and says this besides.
fn token(claims: &Value) -> String {
    let mut all = json!({"sub": "alice", "exp": seconds_from_now(600)});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    hs256(&all)
}

/// The path with the token in its query.
fn asked(path: &str, claims: &Value) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}token={}", token(claims))
}

fn open(gateway: &Gateway, path: &str) -> Client {
    let mut client = Client::open(&gateway.address, path);
    client.live();
    client
}

/// Adds an entry with these fields.
#[track_caller]
fn add(gateway: &Gateway, fields: &Value) {
    let json = ["Content-Type: application/json"];
    let response = post::post(gateway, "/alerts", &json, &fields.to_string());
    assert_eq!(response.status, 200, "{response:?}");
}
