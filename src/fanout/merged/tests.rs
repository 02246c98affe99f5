//! The composer: what it makes of events that come in arbitrary pieces.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::composer::Composer;
use crate::fanout::WireFormat;
use crate::sse::parse::{Event, Item, Parser};
use crate::sse::{
    Control, Controls, EndReason, Gap, Reason, StreamId, comment, parse_composite, write_chunk,
    write_control,
};

const NAMES: [&str; 3] = ["chat", "alerts", "a.b-c"];

fn format_of(controls: Controls, framed: bool) -> WireFormat {
    WireFormat { rendering: 0, controls, framed }
}

fn composer(format: WireFormat) -> Composer {
    Composer::new(format, NAMES.iter().map(|name| ((*name).into(), None)), false)
}

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn control(id: Option<StreamId>, control: Control) -> Vec<u8> {
    let mut out = Vec::new();
    write_control(&mut out, Controls::Event, id, control);
    out
}

fn entry(ms: u64, event: &str, data: &str) -> Vec<u8> {
    let name = if event.is_empty() { String::new() } else { format!("event: {event}\n") };
    let data: Vec<String> = data.split('\n').map(|line| format!("data: {line}\n")).collect();
    format!("id: {ms}-0\n{name}{}\n", data.concat()).into_bytes()
}

fn events_in(bytes: &[u8]) -> Vec<Event> {
    let mut items = Vec::new();
    Parser::new().feed(bytes, &mut items).unwrap();
    let event = |item| if let Item::Event(event) = item { Some(event) } else { None };
    items.into_iter().filter_map(event).collect()
}

/// The bytes in HTTP/1.1 chunks.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        assert!(size > 0, "an empty chunk ends the body");
        all.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        assert_eq!(&bytes[end + 2 + size..end + 4 + size], b"\r\n");
        bytes = &bytes[end + 4 + size..];
    }
    all
}

fn take_all(composer: &mut Composer, part: usize, mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let mut piece = Vec::new();
        composer.take(part, &mut bytes, false, &mut piece);
        out.extend(piece);
    }
    out
}

fn text_of(composer: &mut Composer, part: usize, bytes: &[u8]) -> String {
    String::from_utf8(take_all(composer, part, bytes)).unwrap()
}

#[test]
fn an_event_has_the_position_in_every_stream() {
    let mut composer = composer(format_of(Controls::Event, false));
    let told = text_of(&mut composer, 1, &entry(7, "message", "x"));
    assert_eq!(told, "id: alerts=7-0\nevent: message\ndata: x\n\n");
    let told = text_of(&mut composer, 0, &entry(5, "", "y"));
    assert_eq!(told, "id: chat=5-0,alerts=7-0\ndata: y\n\n");
}

#[test]
fn what_concerns_a_stream_says_of_which() {
    let gap = Gap { after: Some(id(1)), next: None, lost: Some(2), reason: Reason::Trimmed };
    let gap = control(Some(id(3)), Control::Gap(gap));
    let json =
        r#"{"type":"gap","stream":"chat","after":"1-0","next":null,"lost":2,"reason":"trimmed"}"#;
    for (controls, expected) in [
        (Controls::Event, format!("id: chat=3-0\nevent: ssegate\ndata: {json}\n\n")),
        (Controls::Comment, format!(": gap {json}\n")),
        (Controls::None, String::new()),
    ] {
        let mut composer = composer(format_of(controls, false));
        assert_eq!(text_of(&mut composer, 0, &gap), expected);
        assert_eq!(composer.id().as_deref(), Some("chat=3-0"), "{controls:?}");
    }
}

#[test]
fn live_is_told_once_when_all_are_level() {
    let live = |ms, replayed| control(Some(id(ms)), Control::Live { replayed });
    let mut composer = composer(format_of(Controls::Event, false));
    (1..3).for_each(|ms| _ = text_of(&mut composer, 0, &entry(ms, "m", "replayed")));
    assert_eq!(text_of(&mut composer, 0, &live(2, 2)), "");
    assert_eq!(text_of(&mut composer, 2, &live(3, 0)), "");
    assert!(!composer.is_live());
    let told = text_of(&mut composer, 1, &live(0, 0));
    assert_eq!(
        told,
        "id: chat=2-0,alerts=0-0,a.b-c=3-0\nevent: ssegate\ndata: {\"type\":\"live\",\"replayed\":2}\n\n"
    );
    assert_eq!(text_of(&mut composer, 1, &live(4, 3)), "", "once");
}

#[test]
fn a_stream_that_is_away_holds_up_no_other() {
    let live = |ms| control(Some(id(ms)), Control::Live { replayed: 0 });
    let mut composer = composer(format_of(Controls::Event, false));
    text_of(&mut composer, 0, &live(1));
    let mut out = Vec::new();
    composer.end(2, EndReason::Marker, None, &mut out);
    let down = comment::RECONNECTING.as_bytes();
    let told = text_of(&mut composer, 1, down);
    assert!(told.starts_with("event: ssegate\ndata: {\"type\":\"source\",\"stream\":\"alerts\",\"up\":false}\n\nid: chat=1-0\n"), "{told}");
    assert!(composer.is_live());
    assert_eq!(text_of(&mut composer, 1, down), "", "it knows");
    assert_eq!(composer.down().collect::<Vec<_>>(), [1]);
    let told = text_of(&mut composer, 1, comment::RECONNECTED.as_bytes());
    assert!(told.ends_with("\"stream\":\"alerts\",\"up\":true}\n\n"), "{told}");
    assert_eq!(text_of(&mut composer, 1, &live(4)), "");
    assert_eq!(composer.id().as_deref(), Some("chat=1-0,alerts=4-0"));
}

#[test]
fn the_stream_is_over_with_the_last_of_its_parts() {
    let mut composer = composer(format_of(Controls::Event, false));
    let ends = |composer: &mut Composer, part, reason| {
        let mut out = Vec::new();
        composer.end(part, reason, None, &mut out);
        String::from_utf8(out).unwrap()
    };
    let told = ends(&mut composer, 1, EndReason::Marker);
    let json = r#"{"type":"end","stream":"alerts","reason":"marker"}"#;
    assert_eq!(told, format!("event: ssegate\ndata: {json}\n\n"));
    assert!(ends(&mut composer, 0, EndReason::Stalled).contains("stalled"));
    assert_eq!(composer.over(), None);
    assert_eq!(ends(&mut composer, 2, EndReason::Marker), "", "the closing frame says it");
    assert_eq!(composer.over(), Some(EndReason::Stalled));
}

#[test]
fn strangers_are_told_by_their_escaped_names() {
    let composer = composer(format_of(Controls::Event, false));
    let mut out = Vec::new();
    let strangers = [("a\"\n</b".to_owned(), id(1)), ("b".to_owned(), id(2))];
    composer.tell_strangers(&strangers, &mut out);
    let told: Vec<_> = events_in(&out).into_iter().map(|event| event.data).collect();
    let names = told.iter().map(|data| {
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        (data["stream"].as_str().unwrap().to_owned(), data["reason"].as_str().unwrap().to_owned())
    });
    let unknown = |name: &str| (name.to_owned(), "unknown".to_owned());
    assert_eq!(names.collect::<Vec<_>>(), [unknown("a\"\n</b"), unknown("b")]);
}

#[test]
fn a_large_event_goes_through_without_being_held() {
    let mut composer = composer(format_of(Controls::Event, true));
    let event = entry(5, "", &"x".repeat(1 << 20));
    let mut all = Vec::new();
    for (number, mut piece) in event.chunks(16 << 10).enumerate() {
        let mut out = Vec::new();
        composer.take(0, &mut piece, false, &mut out);
        assert!(piece.is_empty() && out.len() < 17 << 10, "piece {number}");
        let is_last = (number + 1) * (16 << 10) >= event.len();
        assert_eq!(composer.amid(), (!is_last).then_some(0));
        all.extend(out);
    }
    assert_eq!(unchunked(&all).len(), event.len() + "chat=".len());
}

#[test]
fn who_is_due_gets_the_rest_of_an_event_and_no_other() {
    let mut composer = composer(format_of(Controls::Event, false));
    let two = [entry(1, "m", "abc"), entry(2, "m", "def")].concat();
    let mut out = Vec::new();
    let mut bytes = &two[..20];
    composer.take(0, &mut bytes, false, &mut out);
    assert_eq!(composer.amid(), Some(0));
    let mut bytes = &two[20..];
    composer.take(0, &mut bytes, true, &mut out);
    assert_eq!(out, b"id: chat=1-0\nevent: m\ndata: abc\n\n");
    assert_eq!(bytes, entry(2, "m", "def"));
}

/// What a part tells, and the event that a client makes of it: its type and data.
#[derive(Clone, Debug)]
enum Told {
    Entry(String, String),
    Gap(u64),
    Down,
    Up,
}

fn told() -> impl Strategy<Value = Told> {
    let name = prop_oneof!["", "[a-z]{1,8}", "ssegat", "ssegatee"];
    let data = prop_oneof!["[a-z :\n]{0,40}", "[a-z]{4000,5000}"];
    prop_oneof![
        8 => (name, data).prop_map(|(name, data)| Told::Entry(name, data)),
        1 => (1..9_u64).prop_map(Told::Gap),
        1 => Just(Told::Down),
        1 => Just(Told::Up),
    ]
}

fn bytes_of(ms: u64, told: &Told) -> Vec<u8> {
    match told {
        Told::Entry(name, data) => entry(ms, name, data),
        Told::Gap(lost) => {
            let gap = Gap { after: None, next: None, lost: Some(*lost), reason: Reason::Deleted };
            control(Some(id(ms)), Control::Gap(gap))
        }
        Told::Down => comment::RECONNECTING.into(),
        Told::Up => comment::RECONNECTED.into(),
    }
}

proptest! {
    #![proptest_config(crate::seed::cases())]

    #[test]
    fn pieces_of_any_size_in_any_turn_are_whole_events_in_order(
        parts in prop::collection::vec(prop::collection::vec(told(), 0..8), NAMES.len()),
        turns in prop::collection::vec((any::<Index>(), any::<Index>()), 0..200),
        framed in any::<bool>(),
    ) {
        let mut composer = composer(format_of(Controls::Event, framed));
        let mut left: Vec<Vec<u8>> = parts.iter().map(|told| {
            let numbered = (1..).zip(told);
            numbered.flat_map(|(ms, told)| bytes_of(ms, told)).collect()
        }).collect();
        let mut out = Vec::new();
        let turns = turns.into_iter().map(Some).chain(std::iter::repeat(None)).take(2000);
        for turn in turns {
            let open: Vec<usize> = (0..left.len()).filter(|part| !left[*part].is_empty()).collect();
            let Some(first) = open.first() else { break };
            let part = composer.amid().unwrap_or_else(|| turn.map_or(*first, |(part, _)| *part.get(&open)));
            let size = turn.map_or(left[part].len(), |(_, size)| size.index(left[part].len()) + 1);
            let mut piece = &left[part][..size];
            let mut ready = Vec::new();
            composer.take(part, &mut piece, false, &mut ready);
            let taken = size - piece.len();
            left[part].drain(..taken);
            out.extend(ready);
        }
        prop_assert!(left.iter().all(Vec::is_empty) && composer.amid().is_none());
        let bare = if framed { unchunked(&out) } else { out };
        let mut next = vec![0; NAMES.len()];
        let mut position = HashMap::new();
        for event in events_in(&bare) {
            let now: HashMap<_, _> = parse_composite(&event.last_event_id).unwrap_or_default()
                .into_iter().map(|(name, id)| (name.to_owned(), id)).collect();
            if event.event_type == "ssegate" && event.data.contains("\"source\"") {
                prop_assert_eq!(&now, &position);
                continue;
            }
            let moved: Vec<_> = now.iter().filter(|(name, id)| position.get(*name) != Some(*id)).collect();
            prop_assert_eq!(moved.len(), 1, "{:?}", &event);
            let part = NAMES.iter().position(|name| *name == moved[0].0).unwrap();
            // What is no event has no id.
            let skipped = parts[part][next[part]..].iter()
                .take_while(|told| matches!(told, Told::Down | Told::Up)).count();
            let told = &parts[part][next[part] + skipped];
            next[part] += skipped + 1;
            prop_assert_eq!(moved[0].1.ms, next[part] as u64);
            if let Told::Entry(name, data) = told {
                let name = if name.is_empty() { "message" } else { name };
                prop_assert_eq!((&*event.event_type, &event.data), (name, data));
            } else {
                let stream = format!("\"stream\":\"{}\"", NAMES[part]);
                prop_assert!(event.data.contains(&stream));
            }
            position = now;
        }
        for (part, next) in next.iter().enumerate() {
            let is_event = |told: &&Told| !matches!(told, Told::Down | Told::Up);
            prop_assert_eq!(parts[part][*next..].iter().filter(is_event).count(), 0);
        }
    }
}

#[test]
fn a_chunk_is_an_event() {
    let mut composer = composer(format_of(Controls::Event, true));
    let two = [entry(1, "m", "a"), entry(2, "m", "b")].concat();
    let mut expected = Vec::new();
    for (ms, data) in [(1, "a"), (2, "b")] {
        let event = format!("id: chat={ms}-0\nevent: m\ndata: {data}\n\n");
        write_chunk(&mut expected, event.as_bytes());
    }
    assert_eq!(take_all(&mut composer, 0, &two), expected);
}
