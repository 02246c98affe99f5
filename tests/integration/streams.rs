//! What a client gets, the same from both sources: starting, resuming, replaying.

use std::cell::RefCell;

use serde_json::json;
use ssegate::sse::StreamId;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;

/// What is bounded: what is kept, what a route gives back, how often Redis is asked for it.
mod bounds;
/// What a reader finds missing in Redis.
mod gaps;
/// What was trimmed from the middle of a stream.
mod holes;
/// Last event ids, in the header and in the query.
mod positions;
/// `POST /publish/{key}`.
mod publish;
/// What a resume cannot have any more.
mod resumed_gaps;
/// Loss that Redis does not report, beside a plain reader that does not notice it.
mod silent;
/// `?since=`.
mod since;

/// A gateway, and, where it is warm, a client that was there before everything else: then the ring
/// holds all that was published, else only the source does.
struct Scene {
    gateway: Gateway,
    watcher: Option<RefCell<Client>>,
}

/// Plays `test` on each source, cold and warm.
fn everywhere(change: impl Fn(Setup) -> Setup, test: impl Fn(&Scene)) {
    let sources: [fn(&Redis) -> Setup; 2] = [|_| Setup::memory(), Setup::redis];
    for (source, setup) in sources.into_iter().enumerate() {
        for warm in [false, true] {
            eprintln!("{} source, warm: {warm}", ["memory", "redis"][source]);
            let redis = Redis::start();
            let gateway = change(setup(&redis)).start_ready();
            let watcher = warm.then(|| {
                let mut client = Client::open(&gateway.address, "/events/a");
                client.live();
                RefCell::new(client)
            });
            test(&Scene { gateway, watcher });
        }
    }
}

impl Scene {
    /// Publishes so many entries; their ids. A gateway that reads the key has them in its ring
    /// afterwards, so that a client which starts then is level only after them.
    fn publish(&self, count: usize) -> Vec<String> {
        let ids: Vec<_> =
            (0..count).map(|n| self.gateway.publish("events:a", &n.to_string())).collect();
        let last = ids.last().expect("something was published");
        if let Some(watcher) = &self.watcher {
            while watcher.borrow_mut().entry().last_event_id != *last {}
        }
        self.gateway.has_read("events:a", last);
        ids
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

    /// An entry published now is the next thing that the client gets.
    fn goes_on(&self, client: &mut Client) {
        let id = self.publish(1).remove(0);
        assert_eq!(client.event().last_event_id, id);
    }
}

/// The client gets exactly these, then the live mark with the id of the tail, then what is new.
#[track_caller]
fn replays(scene: &Scene, mut client: Client, ids: &[String], tail: &str) {
    for id in ids {
        let event = client.event();
        assert_eq!((event.event_type.as_str(), &event.last_event_id), ("message", id), "{event:?}");
    }
    assert_eq!(client.live(), (ids.len() as u64, tail.to_owned()));
    scene.goes_on(&mut client);
}

fn prev(id: &str) -> String {
    id.parse::<StreamId>().unwrap().prev().to_string()
}

#[test]
fn a_live_start_is_marked_and_gets_new_entries() {
    everywhere(
        |setup| setup,
        |scene| {
            let mut client = scene.open("");
            assert_eq!(client.live(), (0, "0-0".into()));
            let id = scene.gateway.publish("events:a", "one");
            let event = client.event();
            assert_eq!((event.data.as_str(), &event.last_event_id), ("one", &id));
            let mut later = scene.open("");
            assert_eq!(later.live(), (0, id));
            scene.goes_on(&mut later);
        },
    );
}

#[test]
fn a_client_with_the_200_misses_nothing_after_it() {
    everywhere(
        |setup| setup,
        |scene| {
            for _ in 0..50 {
                let mut live = scene.open("");
                let mut newest = scene.open("?last=1");
                let ids = scene.publish(3);
                for client in [&mut live, &mut newest] {
                    while client.entry().last_event_id != ids[0] {}
                    assert_eq!(client.entry().last_event_id, ids[1]);
                    assert_eq!(client.entry().last_event_id, ids[2]);
                }
            }
        },
    );
}

#[test]
fn a_start_at_the_newest_misses_nothing_after_the_200() {
    everywhere(
        |setup| setup,
        |scene| {
            for round in 0..50 {
                let key = format!("new{round}");
                let mut newest =
                    Client::open(&scene.gateway.address, &format!("/events/{key}?last=1"));
                let ids: Vec<_> = (0..3)
                    .map(|n| scene.gateway.publish(&format!("events:{key}"), &n.to_string()))
                    .collect();
                for id in &ids {
                    assert_eq!(newest.entry().last_event_id, *id, "round {round}");
                }
            }
        },
    );
}

#[test]
fn an_id_resumes_by_header_and_by_query() {
    everywhere(
        |setup| setup,
        |scene| {
            let mut ids = scene.publish(6);
            let asked = ids[2].clone();
            for name in ["", "last_event_id", "lastEventId", "lastEventID"] {
                let client = match name {
                    "" => scene.resume(&asked),
                    name => scene.open(&format!("?{name}={asked}")),
                };
                replays(scene, client, &ids[3..], &ids[ids.len() - 1]);
                ids.push(newest(scene));
            }
            replays(scene, scene.resume(&ids[ids.len() - 1]), &[], &ids[ids.len() - 1]);
        },
    );
}

/// The id of the newest entry.
fn newest(scene: &Scene) -> String {
    scene.open("?last=1").entry().last_event_id
}

#[test]
fn the_header_wins_over_the_query() {
    everywhere(
        |setup| setup,
        |scene| {
            let ids = scene.publish(4);
            let path = format!("/events/a?last_event_id={}", ids[0]);
            let client = Client::resume(&scene.gateway.address, &path, &ids[2]);
            replays(scene, client, &ids[3..], &ids[3]);
        },
    );
}

#[test]
fn a_client_with_nothing_but_the_live_mark_resumes_exactly() {
    everywhere(
        |setup| setup,
        |scene| {
            for before in [0, 3] {
                if before > 0 {
                    scene.publish(before);
                }
                let mut client = scene.open("");
                let (_, mark) = client.live();
                client.leave();
                let ids = scene.publish(5);
                replays(scene, scene.resume(&mark), &ids, &ids[4]);
            }
        },
    );
}

#[test]
fn the_newest_can_be_asked_for_up_to_the_limit() {
    everywhere(
        |setup| setup.routes(&route("replay = 5")),
        |scene| {
            let ids = scene.publish(8);
            replays(scene, scene.open("?last=3"), &ids[5..], &ids[7]);
            let id = newest(scene);
            let all = [&ids[4..], std::slice::from_ref(&id)].concat();
            replays(scene, scene.open("?last=5"), &all, &id);
            for refused in ["0", "6", "-1", "1.5", "x", ""] {
                assert_eq!(scene.status(&format!("?last={refused}")), 400, "last={refused}");
            }
        },
    );
}

#[test]
fn more_of_the_newest_than_there_are_is_all_of_them() {
    everywhere(
        |setup| setup,
        |scene| {
            let ids = scene.publish(3);
            replays(scene, scene.open("?last=10"), &ids, &ids[2]);
        },
    );
}

#[test]
fn earliest_is_everything_kept() {
    everywhere(
        |setup| setup.routes(&route("replay = \"all\"")),
        |scene| {
            replays(scene, scene.open("?last_event_id=earliest"), &[], "0-0");
            let mut ids = vec![newest(scene)];
            ids.extend(scene.publish(20));
            replays(scene, scene.open("?last_event_id=earliest"), &ids, &ids[20]);
        },
    );
}

#[test]
fn a_resume_beyond_the_limit_is_a_gap_and_gets_the_newest() {
    everywhere(
        |setup| setup.routes(&route("replay = 5")),
        |scene| {
            let ids = scene.publish(12);
            let mut client = scene.resume(&ids[2]);
            let (gap, at) = client.control();
            // Six are missing; only the ring counts them for free.
            assert!(gap["lost"] == 4 || gap["lost"].is_null(), "{gap}");
            let expected = json!({"type": "gap", "after": ids[2], "next": ids[7], "lost": gap["lost"], "reason": "limit"});
            assert_eq!((gap, &at), (expected, &prev(&ids[7])));
            // A client that leaves right then neither gets it twice nor misses what is next.
            replays(scene, scene.resume(&at), &ids[7..], &ids[11]);
            for id in &ids[7..] {
                assert_eq!(client.event().last_event_id, *id);
            }
        },
    );
}

#[test]
fn a_resume_exactly_at_the_limit_has_no_gap() {
    everywhere(
        |setup| setup.routes(&route("replay = 5")),
        |scene| {
            let ids = scene.publish(12);
            replays(scene, scene.resume(&ids[6]), &ids[7..], &ids[11]);
        },
    );
}

#[test]
fn a_route_without_replay_is_live_only() {
    everywhere(
        |setup| setup.routes(&route("replay = 0")),
        |scene| {
            let ids = scene.publish(3);
            for mut client in [scene.resume(&ids[0]), scene.open("?last_event_id=earliest")] {
                let (gap, at) = client.control();
                assert_eq!((&gap["reason"], &gap["next"]), (&"limit".into(), &json!(null)));
                assert_eq!(at, ids[2]);
                assert_eq!(client.live(), (0, ids[2].clone()));
            }
            assert_eq!(scene.status("?last=1"), 400);
            replays(scene, scene.resume(&ids[2]), &[], &ids[2]);
        },
    );
}

#[test]
fn an_id_of_another_generation_is_a_reset_and_gets_what_is_kept() {
    everywhere(
        |setup| setup,
        |scene| {
            let ids = scene.publish(3);
            let ahead = "9999999999999-0";
            let within = format!("{}-7777", ids[0].split('-').next().unwrap());
            for id in [ahead, &within] {
                let mut client = scene.resume(id);
                let gap = json!({"type": "gap", "after": id, "next": ids[0], "lost": null, "reason": "reset"});
                assert_eq!(client.control(), (gap, prev(&ids[0])), "{id}");
                for id in &ids {
                    assert_eq!(client.event().last_event_id, *id);
                }
                assert_eq!(client.live(), (3, ids[2].clone()));
            }
        },
    );
}

/// The usual route with further lines.
fn route(lines: &str) -> String {
    format!(
        "[[route]]\npath = \"/events/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\n{lines}\n"
    )
}
