//! Loss as Redis hides it: a plain reader goes on without an error, our client gets a gap.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::json;

use super::prev;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};

const KEY: &str = "events:a";

/// A stream of 10-0, 20-0 and 30-0, and two that have read them.
struct Scene {
    redis: Redis,
    client: Client,
    plain: Plain,
    _gateway: Gateway,
}

/// `XREAD BLOCK` in a loop, from the last id that it got.
struct Plain {
    connection: Connection,
    last: String,
}

impl Plain {
    /// What one read brings, which must not be an error; a list without entries is one more way to
    /// say nothing.
    fn read(&mut self) -> Vec<String> {
        self.ask("500");
        self.answer()
    }

    fn ask(&mut self, block_ms: &str) {
        let words = ["XREAD", "BLOCK", block_ms, "STREAMS", KEY, &self.last];
        self.connection.send(&words.map(str::as_bytes)).unwrap();
    }

    fn answer(&mut self) -> Vec<String> {
        let streams = match self.connection.answer().unwrap() {
            Answer::Null => return Vec::new(),
            Answer::List(streams) => streams,
            other => panic!("XREAD answered {other:?}"),
        };
        let [Answer::List(stream)] = &streams[..] else { panic!("{streams:?}") };
        let Answer::List(entries) = &stream[1] else { panic!("{stream:?}") };
        let id = |entry: &Answer| match entry {
            Answer::List(entry) => match &entry[0] {
                Answer::Text(id) => id.clone(),
                other => panic!("no id: {other:?}"),
            },
            other => panic!("no entry: {other:?}"),
        };
        let ids: Vec<_> = entries.iter().map(id).collect();
        self.last = ids.last().unwrap_or(&self.last).clone();
        ids
    }
}

impl Scene {
    fn new() -> Self {
        let redis = Redis::start();
        let gateway = Setup::redis(&redis).set("source", "block = \"1s\"").start_ready();
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        let connection = Connection::open(&redis).unwrap();
        let plain = Plain { connection, last: "0-0".into() };
        let mut scene = Self { redis, client, plain, _gateway: gateway };
        for id in ["10-0", "20-0", "30-0"] {
            scene.at_once(&[&["XADD", KEY, id, "payload", id]]);
            assert_eq!(scene.client.event().last_event_id, id);
        }
        assert_eq!(scene.plain.read(), ["10-0", "20-0", "30-0"]);
        scene.gateway_waits();
        scene
    }

    /// Runs these as one transaction.
    fn at_once(&self, commands: &[&[&str]]) {
        let mut connection = Connection::open(&self.redis).unwrap();
        connection.run(&["MULTI"]).unwrap();
        for command in commands {
            connection.run(command).unwrap();
        }
        let Some(Answer::List(answers)) = connection.run(&["EXEC"]) else { panic!("no EXEC") };
        assert!(!answers.iter().any(|a| matches!(a, Answer::Error(_))), "{answers:?}");
    }

    /// The gateway's reader is blocked in its read.
    fn gateway_waits(&self) {
        self.wait(1);
    }

    fn wait(&self, readers: usize) {
        eventually("the readers wait", || self.redis.blocked() == readers);
    }

    fn adds(&self, id: &str) {
        self.at_once(&[&["XADD", KEY, id, "payload", id]]);
    }

    /// The plain reader goes on with these; our client gets the gap first.
    #[track_caller]
    fn hears(&mut self, plain: &[&str], next: Option<&str>, lost: Option<u64>, reason: &str) {
        assert_eq!(self.plain.read(), plain);
        let gap =
            json!({"type": "gap", "after": "30-0", "next": next, "lost": lost, "reason": reason});
        let (control, id) = self.client.control();
        assert_eq!(control, gap);
        if let Some(next) = next {
            assert_eq!(id, prev(next));
        }
    }

    #[track_caller]
    fn client_goes_on(&mut self, ids: &[&str]) {
        for id in ids {
            assert_eq!(self.client.event().last_event_id, *id);
        }
    }
}

/// A reader that asks from `$` each time, as many do: what comes while it is not waiting is before that.
#[test]
fn added_between_two_reads_from_the_end() {
    let mut scene = Scene::new();
    for (between, id) in [(None, "40-0"), (Some("50-0"), "60-0")] {
        if let Some(id) = between {
            scene.adds(id);
            scene.client_goes_on(&[id]);
        }
        scene.plain.last = "$".into();
        scene.plain.ask("10000");
        scene.wait(2);
        scene.adds(id);
        assert_eq!(scene.plain.answer(), [id], "it never has {between:?}");
        scene.client_goes_on(&[id]);
    }
}

#[test]
fn trimmed_past_the_reader() {
    let mut scene = Scene::new();
    let add = |id| ["XADD", KEY, id, "payload", "x"];
    let trim: &[&str] = &["XTRIM", KEY, "MAXLEN", "1"];
    scene.at_once(&[&add("40-0"), &add("50-0"), &add("60-0"), trim]);
    scene.hears(&["60-0"], Some("60-0"), Some(2), "trimmed");
    scene.client_goes_on(&["60-0"]);
}

#[test]
fn trimmed_by_the_command_that_added() {
    let mut scene = Scene::new();
    scene.plain.ask("10000");
    scene.wait(2);
    scene.at_once(&[&["XADD", KEY, "MAXLEN", "0", "40-0", "payload", "x"]]);
    // It was woken, for nothing.
    assert_eq!(scene.plain.answer(), [""; 0]);
    scene.hears(&[], None, Some(1), "trimmed");
    scene.adds("50-0");
    scene.client_goes_on(&["50-0"]);
}

#[test]
fn deleted_before_the_reader_came() {
    let mut scene = Scene::new();
    let add = |id| ["XADD", KEY, id, "payload", "x"];
    scene.at_once(&[&add("40-0"), &add("50-0"), &["XDEL", KEY, "40-0"]]);
    scene.hears(&["50-0"], Some("50-0"), Some(1), "deleted");
    scene.client_goes_on(&["50-0"]);
}

#[test]
fn deleted_at_the_end() {
    let mut scene = Scene::new();
    let add = |id| ["XADD", KEY, id, "payload", "x"];
    scene.at_once(&[&add("40-0"), &add("50-0"), &["XDEL", KEY, "50-0"]]);
    assert_eq!(scene.plain.read(), ["40-0"]);
    scene.client_goes_on(&["40-0"]);
    // Nothing wakes the reader: it notices when its read ends.
    let gap = json!({"type": "gap", "after": "40-0", "next": null, "lost": 1, "reason": "deleted"});
    assert_eq!(scene.client.control(), (gap, "50-0".into()));
}

/// A consumer that deletes what it has handled: for others nothing is lost.
#[test]
fn deleted_right_after_it_was_read_is_no_gap() {
    let mut scene = Scene::new();
    scene.at_once(&[&["XTRIM", KEY, "MAXLEN", "0"]]);
    let mut consumer = UnixStream::connect(scene.redis.socket()).unwrap();
    for n in 1..=50 {
        let (first, second) = (format!("{n}01-0"), format!("{n}02-0"));
        // In one write, so that the deletion comes between the reader's read and its look.
        let add = |id| format!("XADD {KEY} {id} payload x\r\n");
        let add_both = format!("MULTI\r\n{}{}EXEC\r\n", add(&first), add(&second));
        let handled = format!("{add_both}XDEL {KEY} {second}\r\n");
        consumer.write_all(handled.as_bytes()).unwrap();
        scene.client_goes_on(&[&first, &second]);
        scene.gateway_waits();
        scene.at_once(&[&["XDEL", KEY, &first]]);
    }
}

#[test]
fn recreated_with_greater_ids() {
    let mut scene = Scene::new();
    scene.at_once(&[&["DEL", KEY], &["XADD", KEY, "40-0", "payload", "x"]]);
    scene.hears(&["40-0"], Some("40-0"), None, "reset");
    scene.client_goes_on(&["40-0"]);
}

#[test]
fn recreated_with_as_many_greater_ids() {
    let mut scene = Scene::new();
    let add = |id| ["XADD", KEY, id, "payload", "x"];
    scene.at_once(&[&["DEL", KEY], &add("40-0"), &add("50-0"), &add("60-0"), &add("70-0")]);
    scene.hears(&["40-0", "50-0", "60-0", "70-0"], Some("40-0"), None, "reset");
    scene.client_goes_on(&["40-0", "50-0", "60-0", "70-0"]);
}

#[test]
fn recreated_with_ids_that_the_reader_is_past() {
    for (ids, heard) in [(&["5-0"][..], &[][..]), (&["30-0"], &[]), (&["5-0", "45-0"], &["45-0"])] {
        let mut scene = Scene::new();
        let add: Vec<_> = ids.iter().map(|id| ["XADD", KEY, id, "payload", "x"]).collect();
        let delete: &[&str] = &["DEL", KEY];
        let commands: Vec<_> =
            std::iter::once(delete).chain(add.iter().map(|add| &add[..])).collect();
        scene.at_once(&commands);
        // Nothing has woken our reader: it notices at the next look.
        if heard.is_empty() {
            assert_eq!(scene.plain.read(), [""; 0], "it would wait for ever");
            scene.adds("60-0");
        }
        scene.plain.last = "30-0".into();
        let plain = if heard.is_empty() { &["60-0"][..] } else { heard };
        scene.hears(plain, Some(ids[0]), None, "reset");
        scene.client_goes_on(ids);
    }
}

#[test]
fn all_flushed_and_recreated() {
    let mut scene = Scene::new();
    let add = |id| ["XADD", KEY, id, "payload", "x"];
    scene.at_once(&[&["FLUSHALL"], &add("15-0"), &add("25-0"), &add("35-0")]);
    scene.hears(&["35-0"], Some("15-0"), None, "reset");
    scene.client_goes_on(&["15-0", "25-0", "35-0"]);
}

#[test]
fn the_key_replaced_by_another_stream() {
    let mut scene = Scene::new();
    for id in ["35-0", "45-0", "55-0", "65-0"] {
        scene.redis.run(&["XADD", "other", id, "payload", "x"]);
    }
    scene.at_once(&[&["RENAME", "other", KEY]]);
    scene.hears(&["35-0", "45-0", "55-0", "65-0"], Some("35-0"), None, "reset");
    scene.client_goes_on(&["35-0", "45-0", "55-0", "65-0"]);
}

#[test]
fn the_key_a_string_for_a_moment() {
    let mut scene = Scene::new();
    let add = ["XADD", KEY, "40-0", "payload", "x"];
    scene.at_once(&[&["SET", KEY, "no stream"], &["DEL", KEY], &add]);
    scene.hears(&["40-0"], Some("40-0"), None, "reset");
    scene.client_goes_on(&["40-0"]);
}

/// The tail of a stream, lost in a crash or a failover, with others added in its place.
#[test]
fn an_older_state_that_was_written_to_since() {
    let mut scene = Scene::new();
    scene.redis.run(&["COPY", KEY, "snapshot"]);
    for id in ["40-0", "50-0"] {
        scene.adds(id);
        scene.client_goes_on(&[id]);
    }
    scene.gateway_waits();
    assert_eq!(scene.plain.read(), ["40-0", "50-0"]);
    let add = |id| ["XADD", KEY, id, "payload", "x"];
    let restore: &[&str] = &["COPY", "snapshot", KEY, "REPLACE"];
    scene.at_once(&[restore, &add("45-0"), &add("55-0"), &add("65-0")]);
    // As many as before and one more; the plain reader never has 45-0.
    assert_eq!(scene.plain.read(), ["55-0", "65-0"]);
    let gap =
        json!({"type": "gap", "after": "50-0", "next": "10-0", "lost": null, "reason": "reset"});
    assert_eq!(scene.client.control(), (gap, prev("10-0")));
    scene.client_goes_on(&["10-0", "20-0", "30-0", "45-0", "55-0", "65-0"]);
}

/// An operator's `XSETID`: nothing is lost, and there is no gap.
#[test]
fn an_end_moved_forward_is_no_gap() {
    let mut scene = Scene::new();
    scene.at_once(&[&["XSETID", KEY, "100-0"]]);
    for id in ["110-0", "120-0"] {
        scene.adds(id);
        scene.client_goes_on(&[id]);
    }
    assert_eq!(scene.plain.read(), ["110-0", "120-0"]);
}

/// No entry is there, so none can be missing, where a new connection looks for what was read last.
#[test]
fn an_end_moved_forward_is_no_gap_after_a_new_connection_either() {
    let mut scene = Scene::new();
    scene.at_once(&[&["XSETID", KEY, "100-0"]]);
    let looks = scene.redis.calls("xinfo|stream");
    eventually("the reader has looked twice", || {
        scene.redis.calls("xinfo|stream") >= looks + 2 && scene.redis.blocked() == 1
    });
    // At once, so that the new connection is the one that finds it.
    scene
        .at_once(&[&["CLIENT", "KILL", "TYPE", "normal"], &["XADD", KEY, "110-0", "payload", "x"]]);
    scene.client_goes_on(&["110-0"]);
}

/// A client that leaves after the entry behind the gap, and resumes from Redis, could not get the gap later.
#[test]
fn a_gap_amid_large_entries_is_sent_before_the_entry_after_it() {
    let mut scene = Scene::new();
    let large = "x".repeat(200_000);
    for id in ["40-0", "50-0"] {
        scene.at_once(&[&["XADD", KEY, id, "payload", &large]]);
        scene.client_goes_on(&[id]);
        scene.gateway_waits();
    }
    scene.at_once(&[
        &["XADD", KEY, "60-0", "payload", &large],
        &["XADD", KEY, "70-0", "payload", &large],
        &["XTRIM", KEY, "MAXLEN", "1"],
    ]);
    let gap = json!({
        "type": "gap", "after": "50-0", "next": "70-0", "lost": 1, "reason": "trimmed"
    });
    assert_eq!(scene.client.control(), (gap, prev("70-0")));
    scene.client_goes_on(&["70-0"]);
}
