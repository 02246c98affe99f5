//! Clients that take nothing for a while, wherever in an event that is, and go on then.
//!
//! Over unix sockets: what a stalled TCP connection does next depends on its congestion control,
//! which may make it crawl.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ssegate::sse::parse::Item;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{KEY, PATH, gaps, number, write};
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address, Stream};
use crate::support::{DEADLINE, Folder, eventually, pause_of_the_scenario};

/// Waits, and not for ever.
fn soon<T>(runtime: &Runtime, work: impl Future<Output = Result<T, String>>) -> T {
    runtime.block_on(async { timeout(DEADLINE, work).await }).expect("it goes on").unwrap()
}

/// A gateway behind a unix socket whose connections take next to nothing ahead of their readers.
fn narrow(setup: Setup, folder: &Folder) -> (Gateway, Address) {
    let path = folder.0.join("http.sock");
    let listen = format!("listen = [\"unix:{}\"]", path.display());
    let setup = setup.set("server", &listen).set("limits", "send_buffer = \"4KiB\"");
    (setup.set("limits", "write_stall = \"120s\"").start_ready(), Address::Unix(path))
}

#[test]
fn a_crowd_that_stalls_together_misses_nothing_of_a_ring_that_is_too_small() {
    const CLIENTS: usize = 150;
    const ENTRIES: u64 = 600;
    const PAYLOAD_BYTES: usize = 600;
    let (redis, folder, runtime) = (Redis::start(), Folder::new(), swarm::runtime());
    let setup = Setup::redis(&redis).set("ring", "entries = 1").set("ring", "bytes = \"4KiB\"");
    let (gateway, address) = narrow(setup, &folder);
    let open = || {
        soon(&runtime, async {
            let mut stream = Stream::open(&address, PATH, None).await?;
            stream.live().await.map(|()| stream)
        })
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| open()).collect();
    write(&redis, ENTRIES, PAYLOAD_BYTES, &AtomicU64::new(0));
    let filling = "x".repeat(PAYLOAD_BYTES);
    for client in &mut clients {
        let all = (1..=ENTRIES).map(|number| format!("{number} {filling}"));
        soon(&runtime, client.entries(all));
    }
    assert!(gaps(&gateway) < 0.5, "a client got a gap");
}

#[test]
fn a_client_that_stalls_amid_oversize_notices_reads_them_whole() {
    const ENTRIES: u64 = 1500;
    let (redis, folder, runtime) = (Redis::start(), Folder::new(), swarm::runtime());
    let setup = Setup::redis(&redis).set("source", "max_entry = \"100B\"");
    let (_gateway, address) = narrow(setup, &folder);
    write(&redis, ENTRIES, 2000, &AtomicU64::new(0));
    let path = format!("{PATH}?last_event_id=earliest");
    let mut client = soon(&runtime, Stream::open(&address, &path, None));
    for nth in 1..=ENTRIES {
        // Longer than a page of the past is kept for a client that takes nothing.
        if nth % 300 == 0 {
            pause_of_the_scenario(Duration::from_millis(1300), "it takes nothing");
        }
        let event = soon(&runtime, client.event());
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(gap["reason"], "oversize", "{gap}");
        assert_eq!(gap["after"].as_str().map(number), Some(nth - 1), "{gap} is the {nth}th");
    }
    soon(&runtime, client.live());
    redis.run(&["XADD", KEY, "*", "payload", "small"]);
    assert_eq!(soon(&runtime, client.event()).data, "small");
}

/// The rest of the entry cannot be had any more, and nothing may follow the half.
#[test]
fn a_client_with_half_of_an_entry_when_its_key_is_refused_gets_nothing_after_it() {
    let (redis, folder, runtime) = (Redis::start(), Folder::new(), swarm::runtime());
    let setup = Setup::redis(&redis).set("ring", "entries = 1").set("source", "block = \"200ms\"");
    let (gateway, address) = narrow(setup, &folder);
    write(&redis, 10, 100_000, &AtomicU64::new(0));
    let path = format!("{PATH}?last_event_id=earliest");
    let mut client = soon(&runtime, Stream::open(&address, &path, None));
    let pages_bytes = || gateway.report()["replays"]["page_bytes"].as_u64().unwrap();
    eventually("it has a page", || pages_bytes() > 0);
    eventually("its page is given up, for it takes nothing", || pages_bytes() == 0);
    redis.run(&["SET", KEY, "no stream"]);
    eventually("the key is refused", || gateway.streams()[0]["reader"] == "refused");
    let end = soon(&runtime, async {
        while let Some(item) = client.next().await? {
            let Item::Event(event) = item else { continue };
            assert!(event.data.len() > 100_000, "{event:?}");
        }
        Ok(String::from_utf8_lossy(client.unfinished()).into_owned())
    });
    assert!(
        end.len() > 100 && end.ends_with('x'),
        "it ends with {:?}",
        end.split_at(end.len() - 200).1
    );
}

/// The kernel does not call its socket writable before it has taken most of what is there.
#[test]
fn a_client_that_takes_a_little_at_a_time_is_not_cut_as_slow() {
    let (redis, folder) = (Redis::start(), Folder::new());
    let path = folder.0.join("http.sock");
    let listen = format!("listen = [\"unix:{}\"]", path.display());
    let setup = Setup::redis(&redis).set("server", &listen).set("ring", "entries = 10");
    let gateway = setup.set("limits", "write_stall = \"1s\"").start_ready();
    write(&redis, 100, 20_000, &AtomicU64::new(0));
    let mut stream = UnixStream::connect(&path).unwrap();
    let request = format!("GET {PATH}?last_event_id=earliest HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let disconnects = || gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}");
    let mut body = [0; 20_000];
    // As many seconds as a client may take nothing, and more.
    for _ in 0..8 {
        stream.read_exact(&mut body).unwrap();
        pause_of_the_scenario(Duration::from_millis(400), "it takes a little at a time");
    }
    assert!(disconnects() < 0.5 && gateway.metric("ssegate_clients") > 0.5);
    // And a client that takes nothing is.
    eventually("it is cut", || disconnects() > 0.5);
}
