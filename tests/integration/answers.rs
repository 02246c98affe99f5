//! Streams that end, as the output of a language model does.

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;

/// A key that is not there when a client comes.
mod absent;
/// What leaves a body incomplete, so that no client takes it for whole.
mod bodies;
/// In which form control events are sent, and what comes in place of the last one.
mod controls;
/// What its page in docs/ shows.
mod documented;
/// The end of a stream, and what clients get when they come back.
mod ends;
/// Streams that end at a gap.
mod gaps;
/// Further headers of a stream's response.
mod headers;
/// Random histories.
mod histories;
/// What comes over each version of HTTP.
mod protocols;
/// A change of each key while clients are there.
mod reloads;
/// Streams that are ended for another reason than their marker.
mod stalled;
/// Where a client begins that names no beginning.
mod start;
/// `ssegate tail`.
mod tail;

/// A gateway with a route of these keys, and one for the same streams without.
struct Scene {
    gateway: Gateway,
}

fn routes(keys: &str) -> String {
    let route = |path: &str| {
        format!(
            "[[route]]\npath = \"/{path}/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\n"
        )
    };
    format!("{}{keys}\n{}", route("events"), route("plain"))
}

/// Plays `test` on each source.
fn everywhere(keys: &str, test: impl Fn(&Scene)) {
    let sources: [fn(&Redis) -> Setup; 2] = [|_| Setup::memory(), Setup::redis];
    for setup in sources {
        let redis = Redis::start();
        let gateway = setup(&redis).routes(&routes(keys)).start_ready();
        test(&Scene { gateway });
    }
}

/// Plays `test` on Redis; it gets the first gateway, and what starts another.
fn on_redis(keys: &str, test: impl FnOnce(&Redis, Gateway, &dyn Fn() -> Gateway)) {
    let redis = Redis::start();
    let start = || Setup::redis(&redis).routes(&routes(keys)).start_ready();
    test(&redis, start(), &start);
}

impl Scene {
    fn publish(&self, payloads: &[&str]) -> Vec<String> {
        payloads.iter().map(|payload| self.gateway.publish("events:a", payload)).collect()
    }

    fn open(&self, query: &str) -> Client {
        Client::open(&self.gateway.address, &format!("/events/a{query}"))
    }

    fn resume(&self, id: &str) -> Client {
        Client::resume(&self.gateway.address, "/events/a", id)
    }

    fn status(&self, query: &str) -> u16 {
        self.gateway.get(&format!("/events/a{query}")).status
    }
}

/// The head of the response to a request with these lines.
fn raw_head(scene: &Scene, lines: &str) -> String {
    let request = format!("GET /events/a HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    Client::raw(&scene.gateway.address, &request).head
}
