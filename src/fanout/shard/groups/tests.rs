//! Whom an entry is for, looked up and compared with each member in turn.

use std::collections::BTreeSet;
use std::sync::Arc;

use fastrand::Rng;

use super::{Due, Groups, MOST_KEYS, keys};
use crate::fanout::testing::TestFanout;
use crate::fanout::{Subscriber, WireFormat};
use crate::sse::{Column, Entry, Reason, Rendering, RowValue, Selection, StreamId};
use crate::stream::{Batch, Item};

const FIELDS: [&str; 3] = ["tenant", "severity", "source"];

fn rendering() -> Rendering {
    let column = |field: &&str| Column { field: (*field).to_owned(), payload: None };
    Rendering { columns: FIELDS.iter().map(column).collect(), ..Rendering::default() }
}

fn selection(wanted: &[(usize, Vec<String>)]) -> Arc<Selection> {
    let values = |values: &[String]| values.iter().map(|it| RowValue::of(it.as_bytes())).collect();
    Arc::new(Selection::new(wanted.iter().map(|(column, wanted)| (*column, values(wanted)))))
}

/// Up to three columns, each with up to three of few values, so that many of them meet.
fn some_selection(rng: &mut Rng) -> Arc<Selection> {
    let columns = (0..FIELDS.len()).filter(|_| rng.bool()).collect::<Vec<_>>();
    let values = |rng: &mut Rng| (0..rng.usize(1..4)).map(|_| rng.u8(0..5).to_string()).collect();
    selection(&columns.into_iter().map(|column| (column, values(rng))).collect::<Vec<_>>())
}

fn some_item(rng: &mut Rng, ms: u64) -> Item {
    let id = StreamId { ms, seq: 0 };
    let mut fields = vec![("payload".into(), "x".into())];
    for field in FIELDS {
        if rng.u8(0..4) > 0 {
            fields.push((field.into(), rng.u8(0..5).to_string().into()));
        }
    }
    Item::Entry(Entry { id, fields })
}

fn pairs(due: &[Due]) -> BTreeSet<(usize, u64)> {
    let pairs = |due: &Due| {
        let slots = due.slots.clone();
        due.seqs
            .iter()
            .flat_map(move |seq| slots.clone().into_iter().map(|slot| (slot, *seq)))
            .collect::<Vec<_>>()
    };
    due.iter().flat_map(pairs).collect()
}

#[tokio::test]
async fn what_is_looked_up_is_what_each_member_gets() {
    let mut rng = Rng::with_seed(21);
    let test = TestFanout::new();
    let mut groups = Groups::default();
    let mut members: Vec<(usize, Subscriber)> = Vec::new();
    for round in 0..200 {
        if members.len() > 60 || rng.u8(0..3) == 0 && !members.is_empty() {
            let (slot, subscriber) = members.swap_remove(rng.usize(0..members.len()));
            groups.remove(slot, &subscriber);
        } else {
            let (mut subscriber, _) = test.unattached("events:a");
            subscriber.format = WireFormat { rendering: 0, ..subscriber.format };
            subscriber.lease.select(&some_selection(&mut rng), 1000).unwrap();
            groups.insert(round, &subscriber);
            members.push((round, subscriber));
        }
        let items: Vec<_> = (1..=rng.u64(1..8)).map(|ms| some_item(&mut rng, ms)).collect();
        let batches = [Arc::new(Batch::encode(&items, &[rendering()], 1000))];
        let from_seq = rng.u64(0..items.len() as u64);
        let wanted: BTreeSet<_> = members
            .iter()
            .flat_map(|(slot, subscriber)| {
                let selection = subscriber.selection().unwrap();
                let gets = |seq: &u64| batches[0].admits(0, *seq, selection);
                (from_seq..batches[0].end_seq()).filter(gets).map(move |seq| (*slot, seq))
            })
            .collect();
        assert_eq!(pairs(&groups.due(&batches, from_seq)), wanted, "round {round}");
        assert_eq!(pairs(&groups.due_of_all(&batches, from_seq)), wanted, "round {round}");
    }
    members.drain(..).for_each(|(slot, subscriber)| groups.remove(slot, &subscriber));
    assert!(groups.all.is_empty() && groups.by_view.is_empty() && groups.shapes.is_empty());
}

#[test]
fn a_selection_is_looked_up_by_few_combinations_and_equal_columns_are_one_shape() {
    let many = |from: usize, count: usize| (from..from + count).map(|at| at.to_string()).collect();
    for (wanted, columns, combinations) in [
        (vec![(0, many(0, 1)), (1, many(0, 2))], vec![0, 1], 2),
        (vec![(0, many(0, 2)), (1, many(0, 1))], vec![0, 1], 2),
        (vec![(0, many(0, 9)), (1, many(0, 7)), (2, many(0, 1))], vec![0, 1, 2], 63),
        (vec![(0, many(0, 9)), (1, many(0, 8))], vec![1], 8),
        (vec![(0, many(0, 500))], vec![0], 500),
        (vec![], vec![], 1),
    ] {
        let (found, keys) = keys(&selection(&wanted));
        assert_eq!((found, keys.len()), (columns, combinations), "{wanted:?}");
        assert!(combinations <= MOST_KEYS || wanted.len() == 1);
    }
}

#[tokio::test]
async fn gaps_are_for_everybody_and_what_cannot_be_sent_for_whom_it_was() {
    let test = TestFanout::new();
    let (mut subscriber, _) = test.unattached("events:a");
    subscriber.format = WireFormat { rendering: 0, ..subscriber.format };
    subscriber.lease.select(&selection(&[(0, vec!["acme".into()])]), 1).unwrap();
    let mut groups = Groups::default();
    groups.insert(7, &subscriber);
    let id = |ms| StreamId { ms, seq: 0 };
    let entry = |ms, tenant: &str, bytes| {
        let fields = vec![("payload".into(), vec![b'x'; bytes].into())];
        let tenant = ("tenant".into(), tenant.to_owned().into());
        Item::Entry(Entry { id: id(ms), fields: [fields, vec![tenant]].concat() })
    };
    let gap = crate::sse::Gap { after: None, next: None, lost: Some(5), reason: Reason::Trimmed };
    let unreadable = Item::Entry(Entry { id: id(6), fields: Vec::new() });
    let items = [
        Item::Gap(gap, id(1)),
        entry(2, "acme", 10),
        entry(3, "other", 10),
        entry(4, "acme", 2000),
        entry(5, "other", 2000),
        unreadable,
    ];
    let batch = Arc::new(Batch::encode(&items, &[rendering()], 1000));
    assert!(batch.concerns_all());
    let due = groups.due_of_all(std::slice::from_ref(&batch), 0);
    assert_eq!(pairs(&due), [0, 1, 3, 5].map(|seq| (7, seq)).into());
    let event = |seq| String::from_utf8(batch.item(0, seq).to_vec()).unwrap();
    assert!(event(0).contains(r#""lost":null,"at_most":5,"#), "{}", event(0));
    assert!(event(3).contains(r#""lost":1,"reason":"oversize""#), "{}", event(3));
    assert!(event(5).contains(r#""lost":null,"at_most":1,"reason":"unreadable""#), "{}", event(5));
    let (seen, withheld) = batch.selected(0, subscriber.selection().unwrap());
    assert_eq!(withheld, [2, 4]);
    assert_eq!(seen.next_gap(0, 1), Some(3), "what is too large for others is no gap");
    assert!(seen.item(0, 4).is_empty() && seen.item(0, 1) == batch.item(0, 1));
}

/// A shard that is behind has batches that are older than the rendering of a member that has just joined.
#[tokio::test]
async fn a_batch_that_is_older_than_a_members_rendering_is_not_for_it() {
    let test = TestFanout::new();
    let (mut subscriber, _) = test.unattached("events:a");
    subscriber.format = WireFormat { rendering: 7, ..subscriber.format };
    subscriber.lease.select(&selection(&[(0, vec!["acme".into()])]), 1).unwrap();
    let mut groups = Groups::default();
    groups.insert(3, &subscriber);
    let items = [some_item(&mut Rng::with_seed(1), 1)];
    let batches = [Arc::new(Batch::encode(&items, &[rendering()], 1000))];
    assert!(groups.due(&batches, 0).is_empty());
    assert_eq!(pairs(&groups.due_of_all(&batches, 0)), BTreeSet::new());
    let selection = subscriber.selection().unwrap();
    assert!(subscriber.format.selected(&batches, selection).is_empty());
}
