//! What a write to a crowd holds, and where a client is that took some of it.

use std::sync::Arc;

use super::write::{Composed, Position};
use crate::fanout::WireFormat;
use crate::sse::parse::{Event, Item as Parsed, Parser};
use crate::sse::{Controls, Entry, Rendering, StreamId};
use crate::stream::{Batch, Item};

const FORMAT: WireFormat = WireFormat { rendering: 0, controls: Controls::Event, framed: false };

fn positions() -> Vec<Position> {
    let position = |(name, ms): (&str, u64)| Position {
        name: name.into(),
        seq: 0,
        id: StreamId { ms, seq: 0 },
    };
    [("chat", 1), ("alerts", 2)].map(position).into()
}

/// Entries with these ids; one with an odd id is skipped.
fn batch(ids: &[u64]) -> Arc<Batch> {
    let entry = |ms: &u64| {
        let name = if ms.is_multiple_of(2) { "payload" } else { "other" };
        let fields = vec![(name.into(), format!("of {ms}").into())];
        Item::Entry(Entry { id: StreamId { ms: *ms, seq: 0 }, fields })
    };
    let rendering = Rendering { missing: None, ..Rendering::default() };
    Arc::new(Batch::encode(&ids.iter().map(entry).collect::<Vec<_>>(), &[rendering], 1000))
}

fn composed() -> (Composed, Vec<Position>) {
    let (mut composed, mut positions) = (Composed::default(), positions());
    composed.add(&mut positions, 0, &[batch(&[10, 11, 12])], 3, (FORMAT, FORMAT));
    composed.add(&mut positions, 1, &[batch(&[20, 22])], 2, (FORMAT, FORMAT));
    (composed, positions)
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut items = Vec::new();
    Parser::new().feed(bytes, &mut items).unwrap();
    let event = |item| if let Parsed::Event(event) = item { Some(event) } else { None };
    items.into_iter().filter_map(event).collect()
}

#[test]
fn each_event_has_the_positions_after_it() {
    let (composed, positions) = composed();
    let told: Vec<_> = events(&composed.bytes)
        .into_iter()
        .map(|event| (event.last_event_id, event.data))
        .collect();
    let told: Vec<_> = told.iter().map(|(id, data)| (id.as_str(), data.as_str())).collect();
    assert_eq!(
        told,
        [
            ("chat=10-0,alerts=2-0", "of 10"),
            ("chat=12-0,alerts=2-0", "of 12"),
            ("chat=12-0,alerts=20-0", "of 20"),
            ("chat=12-0,alerts=22-0", "of 22"),
        ]
    );
    assert_eq!(composed.events(), 4);
    let at = |position: &Position| (position.seq, position.id.ms);
    assert_eq!(positions.iter().map(at).collect::<Vec<_>>(), [(3, 12), (2, 22)]);
}

/// Wherever its socket stops, what it has and what is left are whole events, and its positions are those of the last.
#[test]
fn a_client_that_took_some_is_after_the_event_that_it_has_begun() {
    let (composed, end) = composed();
    for sent in 0..=composed.bytes.len() {
        let mut at = positions();
        let (count, rest) = composed.advance(&mut at, sent);
        let all = [&composed.bytes[..sent], rest].concat();
        let had = events(&all);
        assert_eq!(had.len() as u64, count, "{sent}");
        if let Some(last) = had.last() {
            let ids: Vec<_> = at.iter().map(|it| format!("{}={}", it.name, it.id)).collect();
            // What is skipped after an event moves a client on as well.
            let ids = ids.join(",").replace("chat=11-0", "chat=10-0");
            assert_eq!(ids, last.last_event_id, "{sent}");
        } else {
            assert_eq!(at, positions(), "{sent}");
        }
        if sent == composed.bytes.len() {
            assert_eq!((at, rest), (end.clone(), &[][..]));
        }
    }
}
