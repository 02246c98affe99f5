//! Whatever bytes an entry has, it arrives as exactly one event or as none: the standard's parser reads back
//! what [`write_entry`] and [`write_control`] wrote, in arbitrary chunks.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::parse::{Event, Item, Parser};
use super::*;

mod ids;

const NO_LIMIT: usize = usize::MAX;

/// Bytes that would break a careless writer, and arbitrary ones.
fn hostile_bytes() -> impl Strategy<Value = Bytes> {
    let traps: Vec<&[u8]> = vec![
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\r",
        b"\n\n",
        b"\r\n\r\n",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xe2\x82",
        b" ",
        b"  ",
        b":",
        b"id: 9-9",
        b"id",
        b"\nid:\n",
        b"event: evil",
        b"data:",
        b"retry: 1",
        b": comment",
        b"\"",
        b"\\",
        b"\t",
        b"\x1b[2J",
        "\u{feff}".as_bytes(),
        "\u{2028}\u{85}".as_bytes(),
        "ü€\u{1f600}".as_bytes(),
    ];
    let piece = prop_oneof![
        6 => select(traps).prop_map(<[u8]>::to_vec),
        2 => vec(any::<u8>(), 0..20),
        1 => (1_usize..9000).prop_map(|len| vec![b'x'; len]),
    ];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat().into())
}

fn field_name() -> impl Strategy<Value = Bytes> {
    let known = select(vec!["payload", "type", "a", "b", ""]).prop_map(Bytes::from);
    prop_oneof![5 => known, 1 => hostile_bytes()]
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    let part = || prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()];
    (part(), part()).prop_map(|(ms, seq)| StreamId { ms, seq })
}

fn entry() -> impl Strategy<Value = Entry> {
    let fields = vec((field_name(), hostile_bytes()), 1..6);
    (stream_id(), fields).prop_map(|(id, fields)| Entry { id, fields })
}

fn rendering() -> impl Strategy<Value = Rendering> {
    let fixed =
        select(vec!["message", "log", " grün: "]).prop_map(|name| EventName::Fixed(name.into()));
    let from_field = Just(EventName::Field { field: "type".into(), otherwise: "other".into() });
    let names = select(vec![vec!["a", "payload"], vec!["payload", "a", "b", ""], vec!["absent"]]);
    let data = prop_oneof![
        select(vec!["payload", "type", ""]).prop_map(|name| Data::Field(name.into())),
        names.prop_map(|names| Data::Fields(names.into_iter().map(String::from).collect())),
        Just(Data::All),
    ];
    let missing = select(vec![None, Some("{}"), Some(""), Some("two\r\nlines\r")]);
    (prop_oneof![fixed, from_field], data, missing.prop_map(|text| text.map(String::from)))
        .prop_map(|(event, data, missing)| Rendering {
            event,
            data,
            missing,
            ..Rendering::default()
        })
}

/// Feeds `bytes` to the parser in chunks of these lengths, over and over.
fn read_in_chunks(bytes: &[u8], lengths: &[usize]) -> (Parser, Vec<Item>) {
    let (mut parser, mut items, mut rest) = (Parser::new(), Vec::new(), bytes);
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*length).min(rest.len()));
        parser.feed(chunk, &mut items).unwrap();
        rest = after;
    }
    (parser, items)
}

fn read(bytes: &[u8]) -> Vec<Item> {
    read_in_chunks(bytes, &[1460]).1
}

fn written(entry: &Entry, rendering: &Rendering, max_entry_bytes: usize) -> (Written, Vec<u8>) {
    let mut out = Vec::new();
    let what = write_entry(&mut out, entry, rendering, max_entry_bytes);
    (what, out)
}

/// The one event that `entry` becomes.
fn sent(entry: &Entry, rendering: &Rendering) -> Event {
    let (what, out) = written(entry, rendering, NO_LIMIT);
    assert_eq!(what, Written::Event);
    only_event(read(&out))
}

fn only_event(items: Vec<Item>) -> Event {
    match <[Item; 1]>::try_from(items) {
        Ok([Item::Event(event)]) => event,
        other => panic!("expected one event, got {other:?}"),
    }
}

/// `text` as SSE carries it.
fn normalised(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The event that a client should get, worked out without the writer's code.
fn expected(entry: &Entry, rendering: &Rendering) -> Option<Event> {
    let first =
        |name: &str| entry.fields.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| lossy(v));
    let data = match &rendering.data {
        Data::Field(name) => first(name).or(rendering.missing.clone())?,
        Data::Fields(names) => match expected_object(entry, |name| names.iter().any(|n| n == name))
        {
            object if object == "{}" => rendering.missing.clone()?,
            object => object,
        },
        Data::All => expected_object(entry, |_| true),
    };
    let event_type = match &rendering.event {
        EventName::Fixed(name) => name.clone(),
        EventName::Field { field, otherwise } => {
            let usable = |name: &String| {
                (1..=1024).contains(&name.len())
                    && name != "ssegate"
                    && !name.chars().any(|c| "\r\n\0".contains(c))
            };
            first(field).filter(usable).unwrap_or(otherwise.clone())
        }
    };
    Some(Event { event_type, data: normalised(&data), last_event_id: entry.id.to_string() })
}

fn expected_object(entry: &Entry, chosen: impl Fn(&str) -> bool) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut values = HashMap::new();
    for (name, value) in entry.fields.iter().map(|(name, value)| (lossy(name), lossy(value))) {
        if chosen(&name) && values.insert(name.clone(), value).is_none() {
            names.push(name);
        }
    }
    let quoted = |text: &String| {
        let json = Value::from(text.as_str()).to_string();
        let json = json.replace('\u{85}', r"\u0085").replace('\u{2028}', r"\u2028");
        json.replace('\u{2029}', r"\u2029")
    };
    let members: Vec<String> =
        names.iter().map(|name| format!("{}:{}", quoted(name), quoted(&values[name]))).collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    #![proptest_config(crate::seed::cases())]

    #[test]
    fn entries_come_back_one_event_each(
        entries in vec(entry(), 1..4),
        rendering in rendering(),
        lengths in vec(1_usize..60, 1..6),
    ) {
        let (mut out, mut events) = (Vec::new(), Vec::new());
        for entry in &entries {
            let before = out.len();
            let what = write_entry(&mut out, entry, &rendering, NO_LIMIT);
            let event = expected(entry, &rendering);
            prop_assert_eq!(what == Written::Event, event.is_some());
            prop_assert_eq!(what == Written::Skipped, out.len() == before);
            events.extend(event.map(Item::Event));
        }
        let (parser, items) = read_in_chunks(&out, &lengths);
        prop_assert_eq!(parser.reconnection_time(), None);
        prop_assert_eq!(items, events);
    }

    #[test]
    fn max_entry_is_inclusive_and_counts_what_the_client_gets(entry in entry(), rendering in rendering()) {
        let Some(event) = expected(&entry, &rendering) else { return Ok(()) };
        let len_bytes = event.data.len();
        prop_assert_eq!(written(&entry, &rendering, len_bytes).0, Written::Event);
        if len_bytes > 0 {
            prop_assert_eq!(written(&entry, &rendering, len_bytes - 1), (Written::Oversize, Vec::new()));
        }
    }

    #[test]
    fn json_is_an_object_of_strings(entry in entry()) {
        let rendering = Rendering { event: EventName::Fixed("log".into()), data: Data::All, missing: None, ..Rendering::default() };
        let object: HashMap<String, String> = serde_json::from_str(&sent(&entry, &rendering).data)?;
        let last: HashMap<String, String> =
            entry.fields.iter().map(|(name, value)| (lossy(name), lossy(value))).collect();
        prop_assert_eq!(object, last);
    }
}

fn payload(value: impl Into<Bytes>) -> Entry {
    Entry { id: StreamId { ms: 5, seq: 1 }, fields: vec![("payload".into(), value.into())] }
}

fn verbatim(event: EventName) -> Rendering {
    Rendering { event, data: Data::Field("payload".into()), missing: None, ..Rendering::default() }
}

#[test]
fn the_bytes_of_an_entry() {
    let (what, out) =
        written(&payload("a\r\nb\r c"), &verbatim(EventName::Fixed("log".into())), NO_LIMIT);
    assert_eq!(what, Written::Event);
    assert_eq!(out, b"id: 5-1\nevent: log\ndata: a\ndata: b\ndata:  c\n\n");
}

#[test]
fn a_mebibyte_in_one_line_arrives_and_one_more_byte_is_oversize() {
    let mebibyte = 1 << 20;
    let rendering = verbatim(EventName::Fixed("log".into()));
    let (what, out) = written(&payload(vec![b'x'; mebibyte]), &rendering, mebibyte);
    assert_eq!(what, Written::Event);
    let event = only_event(read(&out));
    assert!(event.data.len() == mebibyte && event.data.bytes().all(|b| b == b'x'));
    let more = payload(vec![b'x'; mebibyte + 1]);
    assert_eq!(written(&more, &rendering, mebibyte), (Written::Oversize, Vec::new()));
}

#[test]
fn max_entry_counts_replacements_and_joined_line_ends() {
    let rendering = verbatim(EventName::Fixed("log".into()));
    for (value, len_bytes) in
        [(&b"\xff"[..], 3), (b"\r\n", 1), (b"\r\r\n\n", 3), (b"a\r\nb", 3), (b"\0", 1)]
    {
        let entry = payload(value);
        assert_eq!(written(&entry, &rendering, len_bytes).0, Written::Event, "{value:?}");
        assert_eq!(written(&entry, &rendering, len_bytes - 1).0, Written::Oversize, "{value:?}");
    }
    assert_eq!(written(&payload(""), &rendering, 0).0, Written::Event);
}

#[test]
fn an_event_name_from_a_field_forges_nothing() {
    let rendering = verbatim(EventName::Field { field: "type".into(), otherwise: "other".into() });
    let named = |name: &'static [u8]| {
        let mut entry = payload("x");
        entry.fields.push(("type".into(), name.into()));
        sent(&entry, &rendering)
    };
    let forged: [&[u8]; 9] = [
        b"",
        b"ssegate",
        b"a\ndata: evil",
        b"a\rid: 0-0",
        b"a\r\n\r\ndata: evil",
        b"\n",
        b"a\0",
        b"log\n",
        b"\rlog",
    ];
    for name in forged {
        assert_eq!(named(name).event_type, "other", "{name:?}");
        assert_eq!(named(name).data, "x");
        assert_eq!(named(name).last_event_id, "5-1");
    }
    for (name, event_type) in [
        (&b"log"[..], "log"),
        (b" log", " log"),
        (b"a:b", "a:b"),
        (b"\xff", "\u{fffd}"),
        (b"SSEGATE", "SSEGATE"),
    ] {
        assert_eq!(named(name).event_type, event_type);
    }
}

#[test]
fn json_keeps_the_entry_order_and_the_last_of_repeated_fields() {
    let fields = [("b", "1"), ("a", "x\r\ny"), ("b", "2"), ("c", "3"), ("n", "")];
    let fields = fields.map(|(name, value)| (name.into(), value.into())).to_vec();
    let entry = Entry { id: StreamId { ms: 5, seq: 1 }, fields };
    let data = |data| {
        sent(
            &entry,
            &Rendering {
                event: EventName::Fixed("log".into()),
                data,
                missing: None,
                ..Rendering::default()
            },
        )
        .data
    };
    assert_eq!(data(Data::All), r#"{"b":"2","a":"x\r\ny","c":"3","n":""}"#);
    assert_eq!(
        data(Data::Fields(vec!["c".into(), "b".into(), "z".into()])),
        r#"{"b":"2","c":"3"}"#
    );
    assert_eq!(data(Data::Field("b".into())), "1", "a single field is the first of its name");
}

#[test]
fn json_has_no_line_ends_of_unicode() {
    let text = "a\u{85}b\u{2028}c\u{2029}d\u{b}e\u{c}f\u{1c}";
    let rendering = Rendering {
        event: EventName::Fixed("message".into()),
        data: Data::All,
        missing: None,
        ..Rendering::default()
    };
    let fields = vec![(text.to_owned().into(), text.to_owned().into())];
    let entry = Entry { id: StreamId::ZERO, fields };
    let mut out = Vec::new();
    write_entry(&mut out, &entry, &rendering, 1000);
    let out = String::from_utf8(out).unwrap();
    assert!(!out.contains(|c: char| !c.is_ascii() || c.is_ascii_control() && c != '\n'), "{out}");
    let data = out.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), json!({ text: text }));
}

#[test]
fn control_events_are_the_documented_json() {
    let id = |ms| Some(StreamId { ms, seq: 0 });
    let gap = |after, next, lost, reason| Control::Gap(Gap { after, next, lost, reason });
    let mut cases = vec![
        (Control::Live { replayed: 3 }, json!({"type": "live", "replayed": 3})),
        (Control::Drain, json!({"type": "drain"})),
        (
            Control::Unavailable { reason: "overload" },
            json!({"type": "unavailable", "reason": "overload"}),
        ),
        (Control::Ping, json!({"type": "ping"})),
        (Control::Source { up: false }, json!({"type": "source", "up": false})),
        (Control::Source { up: true }, json!({"type": "source", "up": true})),
        (
            gap(id(5), id(9), Some(3), Reason::Trimmed),
            json!({"type": "gap", "after": "5-0", "next": "9-0", "lost": 3, "reason": "trimmed"}),
        ),
    ];
    let reasons = ["trimmed", "deleted", "reset", "oversize", "unreadable", "limit", "unknown"];
    for (reason, name) in Reason::ALL.into_iter().zip(reasons) {
        let json =
            json!({"type": "gap", "after": null, "next": null, "lost": null, "reason": name});
        cases.push((gap(None, None, None, reason), json));
    }
    for (control, json) in cases {
        let mut out = b"id: 1-0\n\n".to_vec();
        write_control(&mut out, Controls::Event, id(7), control);
        write_control(&mut out, Controls::Event, None, control);
        let [with_id, without] = <[Item; 2]>::try_from(read(&out)).unwrap();
        let Item::Event(event) = &with_id else { panic!("{with_id:?}") };
        assert_eq!((event.event_type.as_str(), event.last_event_id.as_str()), ("ssegate", "7-0"));
        assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), json);
        assert_eq!(without, with_id, "without an id the last one stays");
    }
}

#[test]
fn comments_and_retry_are_not_events() {
    let mut out = Vec::new();
    write_retry(&mut out, Duration::from_millis(2500));
    for text in [comment::OPEN, comment::KEEPALIVE, comment::RECONNECTING, comment::RECONNECTED] {
        out.extend_from_slice(text.as_bytes());
    }
    // Some parsers make an empty message of each blank line.
    assert!(!String::from_utf8_lossy(&out).contains("\n\n"), "a blank line without an event");
    let (parser, items) = read_in_chunks(&out, &[3]);
    assert_eq!(parser.reconnection_time(), Some(Duration::from_millis(2500)));
    let comments = ["ssegate", "keepalive", "reconnecting", "reconnected"];
    assert_eq!(items, comments.map(|text| Item::Comment(text.into())));
}
