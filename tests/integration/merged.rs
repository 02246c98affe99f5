//! Several streams on one connection.

use serde_json::Value;
use ssegate::sse::parse::{Event, Item};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::multiplexed::{End, Session};
use crate::support::redis::Redis;

/// What concerns the client and none of its streams: its token, a drain, a slow one, Redis away.
mod clients;
/// Many clients of the same streams.
mod crowd;
/// What its page in docs/ shows.
mod documented;
/// The end of streams, and streams that are not there.
mod ends;
/// Order, ids, and where each stream goes on.
mod positions;
/// Long ids through the shipped proxies.
mod proxied;
/// Random histories of several streams, with restarts.
mod random;
/// What is refused, of all.
mod refusals;
/// Some entries of each.
mod selected;
/// One stream that fares otherwise than the others.
mod single;

/// Two streams, and those that a client chooses.
const ROUTES: &str = r#"
[[route]]
path   = "/all/{user}"
merge  = [{ name = "chat", key = "chat:{user}" }, { name = "alerts", key = "alerts" }]
access = "public"

[[route]]
path   = "/any"
merge_query = { name = "stream", key = "events:{stream}", most = 3 }
event  = { stream = true }
access = "public"

[[route]]
path   = "/plain/{name}"
key    = "events:{name}"
access = "public"
"#;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// One client, over either.
enum Viewer {
    One(Box<Client>),
    Two(Box<Session>, u32),
}

/// A gateway, and how its clients ask.
struct Scene {
    redis: Redis,
    gateway: Gateway,
    http: Http,
    is_memory: bool,
}

/// Plays `test` on each source over each version of HTTP, with a gateway of these routes.
fn everywhere(routes: &str, test: impl Fn(&Scene)) {
    everywhere_with(routes, |setup| setup, test);
}

fn everywhere_with(routes: &str, set: impl Fn(Setup) -> Setup, test: impl Fn(&Scene)) {
    for http in [Http::One, Http::Two] {
        for is_memory in [true, false] {
            eprintln!("{http:?}, embedded source: {is_memory}");
            let redis = Redis::start();
            let setup = if is_memory { Setup::memory() } else { Setup::redis(&redis) };
            let gateway = set(setup.routes(routes)).start_ready();
            test(&Scene { redis, gateway, http, is_memory });
        }
    }
}

/// Plays `test` over each version of HTTP, on Redis.
fn on_redis(routes: &str, test: impl Fn(Scene)) {
    for http in [Http::One, Http::Two] {
        eprintln!("{http:?}");
        let redis = Redis::start();
        let setup = Setup::redis(&redis).routes(routes).set("source", "block = \"200ms\"");
        let gateway = setup.start_ready();
        test(Scene { redis, gateway, http, is_memory: false });
    }
}

impl Scene {
    fn add(&self, key: &str, payload: &str) -> String {
        self.gateway.publish(key, payload)
    }

    fn open(&self, path: &str) -> Viewer {
        Viewer::open(self.http, &self.gateway, path, &[])
    }

    fn resume(&self, path: &str, id: &str) -> Viewer {
        Viewer::open(self.http, &self.gateway, path, &[("Last-Event-ID", id)])
    }
}

impl Viewer {
    #[track_caller]
    fn open(http: Http, gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Self {
        if http == Http::One {
            return Self::One(Box::new(Client::with(&gateway.address, path, headers)));
        }
        let mut session = Session::open(&gateway.address);
        let id = session.get(path, headers);
        assert_eq!(session.status(id), 200);
        Self::Two(Box::new(session), id)
    }

    /// The next event or comment; `None` at the end of the stream.
    fn item(&mut self) -> Option<Item> {
        match self {
            Self::One(client) => client.next_within(crate::support::DEADLINE),
            Self::Two(session, id) => session.item(*id),
        }
    }

    #[track_caller]
    fn event(&mut self) -> Event {
        match self {
            Self::One(client) => client.event(),
            Self::Two(session, id) => session.event(*id),
        }
    }

    /// The next event's type, data and id.
    #[track_caller]
    fn told(&mut self) -> (String, String, String) {
        let Event { event_type, data, last_event_id, .. } = self.event();
        (event_type, data, last_event_id)
    }

    /// The next event is this one.
    #[track_caller]
    fn hears(&mut self, event: &str, data: &str, id: &str) {
        let expected = (event.to_owned(), data.to_owned(), id.to_owned());
        assert_eq!(self.told(), expected);
    }

    /// The next control event, and its id; entries before it are an error.
    #[track_caller]
    fn control(&mut self) -> (Value, String) {
        let event = self.event();
        assert_eq!(event.event_type, "ssegate", "an entry came first: {event:?}");
        (serde_json::from_str(&event.data).unwrap(), event.last_event_id)
    }

    /// The `live` mark: how many were replayed, and its id.
    #[track_caller]
    fn live(&mut self) -> (u64, String) {
        let (control, id) = self.control();
        assert_eq!(control["type"], "live", "{control}");
        assert_eq!(control["stream"], Value::Null, "it is told of all");
        (control["replayed"].as_u64().unwrap(), id)
    }

    /// Whether the stream, which has ended, was left incomplete.
    fn was_cut(&mut self) -> bool {
        match self {
            Self::One(client) => !client.complete,
            Self::Two(session, id) => session.end(*id) != End::Whole,
        }
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    fn rest(&mut self) -> Vec<Item> {
        match self {
            Self::One(client) => client.rest(),
            Self::Two(..) => std::iter::from_fn(|| self.item()).collect(),
        }
    }
}

/// The id of both streams of `/all/{user}`.
fn both(chat: &str, alerts: &str) -> String {
    format!("chat={chat},alerts={alerts}")
}
