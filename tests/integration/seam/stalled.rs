//! Clients that take nothing for a while, wherever in an event that is, and go on then.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::{KEY, PATH, gaps, narrow, number, read_all, write};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::Redis;

#[test]
fn a_crowd_that_stalls_together_misses_nothing_of_a_ring_that_is_too_small() {
    const CLIENTS: usize = 150;
    const ENTRIES: u64 = 600;
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("ring", "entries = 1")
        .set("ring", "bytes = \"4KiB\"")
        .set("limits", "send_buffer = \"4KiB\"")
        .set("limits", "write_stall = \"120s\"")
        .set("log", "level = \"debug\"")
        .start_ready();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| narrow(&gateway.address)).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    write(&redis, ENTRIES, 600, &AtomicU64::new(0));
    for client in &mut clients {
        read_all(client, ENTRIES, |_| {});
    }
    assert!(gaps(&gateway) < 0.5, "somebody was told of a gap");
}

#[test]
fn whoever_stalls_amid_notices_of_entries_too_large_reads_them_whole() {
    const ENTRIES: u64 = 1500;
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("source", "max_entry = \"100B\"")
        .set("source", "linger = \"0s\"")
        .set("limits", "send_buffer = \"4KiB\"")
        .start_ready();
    write(&redis, ENTRIES, 2000, &AtomicU64::new(0));
    let path = format!("{PATH}?last_event_id=earliest");
    let mut client = Client::with_small_window(&gateway.address, &path);
    for told in 1..=ENTRIES {
        // Longer than a page of the past is kept for a client that takes nothing.
        if told % 300 == 0 {
            std::thread::sleep(Duration::from_millis(1300));
        }
        let (gap, _) = client.control();
        assert_eq!(gap["reason"], "oversize", "{gap}");
        assert_eq!(gap["after"].as_str().map(number), Some(told - 1), "{gap} is the {told}th");
    }
    assert_eq!(client.live().1, format!("{ENTRIES}-0"));
    redis.run(&["XADD", KEY, "*", "payload", "small"]);
    assert_eq!(client.entry().data, "small");
}
