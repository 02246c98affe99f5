//! What a ring keeps, and where a client goes on in it.

use super::*;
use crate::stream::item::Item;

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn ring(entries: usize) -> Ring {
    let limits = config::Ring { entries, bytes: 1 << 20, total_bytes: 1 << 20 };
    Ring::new(limits)
}

fn batch(ids: &[u64]) -> Batch {
    let entry = |ms: &u64| Item::Entry(crate::sse::Entry { id: id(*ms), fields: Vec::new() });
    Batch::encode(&ids.iter().map(entry).collect::<Vec<_>>(), &[], 1024)
}

#[test]
fn an_id_is_found_where_it_is_and_a_foreign_one_is_not() {
    let mut ring = ring(100);
    ring.start_generation(id(10));
    ring.push(batch(&[20, 30]), u64::MAX);
    assert_eq!(ring.find(id(10)), RingLookup::At(0));
    assert_eq!(ring.find(id(20)), RingLookup::At(1));
    assert_eq!(ring.find(id(30)), RingLookup::At(2));
    assert_eq!(ring.find(id(30).prev()), RingLookup::At(1));
    assert_eq!(ring.find(id(25)), RingLookup::Foreign);
    assert_eq!(ring.find(id(9)), RingLookup::Outside);
    assert_eq!(ring.find(id(31)), RingLookup::Outside);
}

#[test]
fn what_no_shard_needs_is_dropped_and_the_floor_rises() {
    let mut ring = ring(2);
    ring.start_generation(id(0));
    for ms in 1..=5 {
        ring.push(batch(&[ms]), 3);
    }
    assert_eq!((ring.first_seq(), ring.items()), (3, 2));
    assert_eq!(ring.find(id(3)), RingLookup::At(3));
    assert_eq!(ring.find(id(2)), RingLookup::Outside);
    ring.push(batch(&[6]), 0);
    assert_eq!(ring.first_seq(), 3, "a shard still needs it");
    assert_eq!(ring.id_before(3), id(3));
}

#[test]
fn ids_of_an_earlier_generation_are_outside() {
    let mut ring = ring(100);
    ring.start_generation(id(0));
    ring.push(batch(&[20, 30]), u64::MAX);
    ring.start_generation(id(4));
    ring.push(batch(&[5]), u64::MAX);
    assert_eq!(ring.find(id(20)), RingLookup::Outside);
    assert_eq!(ring.find(id(4)), RingLookup::At(2));
    assert_eq!(ring.id_before(2), id(4));
    assert!(
        !ring.knows_generation(2),
        "a client at the new generation's first item was not told yet"
    );
    assert!(ring.knows_generation(3));
}

#[test]
fn a_gap_with_the_id_of_the_entry_before_it_is_sent_to_a_client_with_that_id() {
    let gap = |next: StreamId| {
        let reason = crate::sse::Reason::Deleted;
        let gap = crate::sse::Gap { after: None, next: Some(next), lost: Some(1), reason };
        Batch::encode(&[Item::Gap(gap, next.prev())], &[], 1024)
    };
    let mut ring = ring(100);
    ring.start_generation(id(1));
    // As the reader announces a new generation: a client with this id was told of it.
    ring.push(gap(StreamId { ms: 1, seq: 1 }), u64::MAX);
    ring.push(batch(&[5]), u64::MAX);
    ring.push(gap(StreamId { ms: 5, seq: 1 }), u64::MAX);
    ring.push(batch(&[7]), u64::MAX);
    ring.push(gap(id(9)), u64::MAX);
    assert_eq!(ring.find(id(1)), RingLookup::At(1));
    assert_eq!(ring.find(id(5)), RingLookup::At(2));
    assert_eq!(ring.find(id(7)), RingLookup::At(4));
    assert_eq!(ring.find(id(9).prev()), RingLookup::At(5));
}

#[test]
fn more_than_half_a_ring_is_far_behind() {
    let mut ring = ring(10);
    for ms in 1..=6 {
        ring.push(batch(&[ms]), u64::MAX);
    }
    assert!(ring.is_far_behind(0));
    assert!(!ring.is_far_behind(1));
    assert!(!ring.is_far_behind(6));
}
