//! Rounds over all members of a shard: what they hold up, and what they cost once the members have left.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::inbox::Inbox;
use super::task::Shard;
use crate::fanout::members::Members;
use crate::fanout::signal::Signal;
use crate::fanout::testing::{OtherTask, TestFanout};
use crate::fanout::{Socket, uring};
use crate::stream::{Lease, ReaderState};
use crate::telemetry::metrics::DisconnectReason;

fn shard(test: &TestFanout) -> (Shard, Lease) {
    let (_, lease) = test.unattached("events:a");
    (Shard::at_tail(&test.fanout, lease.topic(), 0, Arc::new(Inbox::new())), lease)
}

/// A new member, and its client's end.
fn join(test: &TestFanout, shard: &mut Shard) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (subscriber, _) = test.unattached("events:a");
    shard.inbox.subscribers.fetch_add(1, Ordering::Relaxed);
    shard.take_in(Socket::new(OwnedFd::from(ours)), subscriber, 0);
    theirs
}

#[tokio::test]
async fn a_round_over_many_members_lets_other_tasks_have_their_turns() {
    const BURSTS: usize = 4;
    let test = TestFanout::new();
    let (mut shard, _lease) = shard(&test);
    shard.members = Members::with_capacity(BURSTS * uring::MOST);
    let other = OtherTask::start();
    shard.signal(Signal::of_silence(&ReaderState::Up)).await;
    assert!(other.turns() >= BURSTS - 1, "a sign of life");
    shard.apply_deadlines(Instant::now()).await;
    assert!(other.turns() >= BURSTS - 1, "deadlines");
    shard.begin_drain().await;
    assert!(other.turns() >= BURSTS - 1, "a drain");
    shard.reader_changed(ReaderState::Refused("WRONGTYPE")).await;
    assert!(other.turns() >= BURSTS - 1, "a key that cannot be read");
}

#[tokio::test]
async fn a_crowd_that_has_left_costs_nothing_and_those_who_stay_are_known() {
    const LEFT: usize = 300;
    let test = TestFanout::new();
    let (mut shard, _lease) = shard(&test);
    for _ in 0..LEFT {
        drop(join(&test, &mut shard));
    }
    let mut clients: Vec<_> = (0..10).map(|_| join(&test, &mut shard)).collect();
    shard.close_ranks();
    assert!(shard.members.slots().len() >= LEFT, "they are here");
    for slot in 0..LEFT {
        shard.remove(slot, DisconnectReason::Client);
    }
    shard.close_ranks();
    assert_eq!((shard.members.len(), shard.members.slots().len()), (10, 10));
    // The shard still knows whose socket tells of an end.
    drop(clients.remove(3));
    let slots = timeout(Duration::from_secs(20), shard.members.readable()).await.unwrap().unwrap();
    shard.read_input(&slots);
    assert_eq!(shard.members.len(), 9);
    shard.signal(Signal::of_silence(&ReaderState::Up)).await;
    for mut client in clients {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(client.read(&mut [0; 100]).unwrap() > 0);
    }
}
