//! Reads how a route's streams begin, speak and end.

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;

use super::section::{Found, Section};
use super::{headers, snapshot};
use crate::config::units::{self, WrittenValue};
use crate::config::{Absent, Ended, OnGap, Replay, RouteStart, Signals, StreamRules, TokenPlace};
use crate::sse::{Column, Controls, EndMarker, EventName, Rendering, SNAPSHOT_EVENT};

const DEFAULT_ABSENT_AFTER: &str = "5s";

/// What other sections say, as far as routes depend on it.
#[derive(Clone, Copy)]
pub(super) struct OtherSections<'a> {
    /// Whether there are keys that verify tokens.
    pub(super) has_keys: bool,
    /// Where tokens are (`auth.jwt.from`).
    pub(super) tokens: &'a [TokenPlace],
    /// `source.block`
    pub(super) block: Duration,
    /// `source.max_entry`
    pub(super) max_entry_bytes: usize,
    /// Whether the source is the embedded one.
    pub(super) is_embedded: bool,
    /// Whether the source is a cluster.
    pub(super) is_cluster: bool,
}

/// What a route says of its streams besides their entries.
pub(super) struct Rules {
    pub(super) start: RouteStart,
    pub(super) absent: Absent,
    pub(super) ended: Ended,
    pub(super) headers: HeaderMap,
    pub(super) streams: StreamRules,
    /// Where the state is written that clients get first, if it is.
    pub(super) snapshot_found: Option<Found>,
}

/// Reads them. `rendering` is what the route makes of an entry, `columns` tell its clients apart.
pub(super) fn rules(
    section: &mut Section<'_, '_>,
    rendering: Rendering,
    columns: &[Column],
    replay: Replay,
    OtherSections { block, is_embedded, .. }: OtherSections<'_>,
) -> Rules {
    let (start, start_found) = section.read("start", "live", |written| start(written, replay));
    let (snapshot, snapshot_found) = snapshot::snapshot(section, is_embedded).unzip();
    if snapshot.is_some() && start != RouteStart::Live {
        section.fault(&start_found, "the snapshot is where a client begins; leave start out");
    }
    if let Some(found) = snapshot_found.as_ref().filter(|_| names_snapshots(&rendering)) {
        section.fault(
            found,
            "the events that hold the state have the type \"snapshot\", and so have all events of this route; choose another event",
        );
    }
    let (end, end_found) = section.read("end", WrittenValue::Flag(false), end_marker);
    // One with a fault is an end, too: it has been told of.
    let has_end = end_found.value != WrittenValue::Flag(false);
    let stalled = stalled(section, block);
    let absent = absent(section);
    let on_gap = on_gap(section, snapshot.is_some());
    let controls = controls(section, on_gap);
    let signals = signals(section, controls);
    let end_data = end_data(section, has_end);
    let ended = ended(section, has_end);
    let cuts = cuts(section, has_end);
    let headers = headers::headers(section);
    let gaps_have_ids = on_gap != OnGap::Heal;
    let conflate = section.read("conflate", WrittenValue::Flag(false), conflate).0;
    let rendering = Rendering { controls, end, conflate, gaps_have_ids, ..rendering };
    let selected = Arc::new(Rendering { columns: columns.to_vec(), ..rendering.clone() });
    let streams = StreamRules {
        rendering: Arc::new(rendering),
        selected,
        signals,
        stalled,
        on_gap,
        snapshot,
        end_data,
        cuts,
        of_part: false,
    };
    Rules { start, absent, ended, headers, streams, snapshot_found }
}

fn start(written: &WrittenValue, replay: Replay) -> Result<RouteStart, String> {
    const EXPECTED: &str =
        "not a beginning; write \"live\", \"earliest\", \"last:100\" or \"since:15m\"";
    let WrittenValue::Text(text) = written else { return Err(EXPECTED.into()) };
    let start = match text.split_once(':') {
        None if text == "live" => return Ok(RouteStart::Live),
        None if text == "earliest" => RouteStart::Earliest,
        Some(("last", count)) if !count.starts_with('+') => {
            RouteStart::Newest(count.parse().map_err(|_| EXPECTED)?)
        }
        Some(("since", back)) => {
            RouteStart::Back(units::duration(&back.into()).map_err(|_| EXPECTED)?)
        }
        _ => return Err(EXPECTED.into()),
    };
    let allowed = match replay {
        Replay::Newest(0) => {
            return Err("this route is live only (replay = 0); write \"live\", or let clients replay entries".into());
        }
        Replay::Newest(allowed) => allowed,
        Replay::All => u64::MAX,
    };
    match start {
        RouteStart::Newest(count) if !(1..=allowed).contains(&count) => {
            Err(format!("out of range; write \"last:1\" to \"last:{allowed}\" (route.replay)"))
        }
        start => Ok(start),
    }
}

fn end_marker(written: &WrittenValue) -> Result<Option<EndMarker>, String> {
    const WRITE: &str = "write { field = \"type\", equals = [\"done\", \"error\"] }, or false";
    let items = match written {
        WrittenValue::Flag(false) => return Ok(None),
        WrittenValue::Table(items) => items,
        _ => return Err(format!("does not say which entry ends a stream; {WRITE}")),
    };
    let (mut field, mut equals) = (None, None);
    for item in items {
        match item.name.as_str() {
            "field" => field = Some(units::field(&item.value)?),
            "equals" => equals = Some(ends(&item.value)?),
            name => return Err(format!("unknown key \"{name}\"; it takes field and equals")),
        }
    }
    let field = field.ok_or_else(|| format!("names no field; {WRITE}"))?;
    let equals = equals.ok_or_else(|| format!("names no value of the field; {WRITE}"))?;
    Ok(Some(EndMarker { field, equals }))
}

/// The values of the field that end a stream.
fn ends(written: &WrittenValue) -> Result<Vec<String>, String> {
    let expected = || {
        String::from("equals is neither a text nor a list of texts; write [\"done\", \"error\"]")
    };
    let text = |written: &WrittenValue| units::text(written).map_err(|_| expected());
    let WrittenValue::List(elements) = written else { return Ok(vec![text(written)?]) };
    let ends: Vec<String> =
        elements.iter().map(|(_, element)| text(element)).collect::<Result<_, _>>()?;
    if ends.is_empty() {
        return Err("equals is empty, so no entry would end a stream; write [\"done\", \"error\"], or end = false".into());
    }
    match ends.iter().enumerate().find(|&(index, end)| ends[..index].contains(end)) {
        Some((_, end)) => Err(format!("names the value \"{end}\" twice; remove one")),
        None => Ok(ends),
    }
}

fn stalled(section: &mut Section<'_, '_>, block: Duration) -> Duration {
    let (stalled, found) = section.duration_found("stalled", "0s", "0s", "365d");
    if !stalled.is_zero() && stalled < block {
        let mut settings = section.reader.settings.iter();
        let block = settings.find(|setting| (setting.section, setting.key) == ("source", "block"));
        let block = block.map_or("", |block| block.value.as_str());
        let message = format!(
            "less than source.block = {block}, and a read of a silent stream takes as long as that; write {block} or more, or \"0s\" for never"
        );
        section.fault(&found, message);
    }
    stalled
}

fn absent(section: &mut Section<'_, '_>) -> Absent {
    let waits = |written: &WrittenValue| word_or_204(written, "wait");
    let (waits, _) = section.read("absent", "wait", waits);
    let (after, found) = section.duration_found("absent_after", DEFAULT_ABSENT_AFTER, "0s", "10m");
    if !waits {
        return Absent::NoContent(after);
    }
    if Ok(after) != units::duration(&DEFAULT_ABSENT_AFTER.into()) {
        section.fault(
            &found,
            "is for absent = \"204\", and this route waits for the key; write that, or remove this",
        );
    }
    Absent::Wait
}

/// Whether it is `word` rather than 204, which the short form of `SSEGATE_ROUTES` makes a number.
fn word_or_204(written: &WrittenValue, word: &str) -> Result<bool, String> {
    match written {
        WrittenValue::Integer(204) => Ok(false),
        WrittenValue::Text(text) if text == "204" => Ok(false),
        WrittenValue::Text(text) if text == word => Ok(true),
        _ => Err(format!("unknown; write \"{word}\" or \"204\"")),
    }
}

fn conflate(written: &WrittenValue) -> Result<Option<String>, String> {
    match written {
        WrittenValue::Flag(false) => Ok(None),
        WrittenValue::Text(_) => units::field(written).map(Some),
        _ => Err("names no field; write one, as in \"id\", or false".into()),
    }
}

fn names_snapshots(rendering: &Rendering) -> bool {
    let (EventName::Fixed(name) | EventName::Field { otherwise: name, .. }) = &rendering.event;
    name == SNAPSHOT_EVENT
}

fn on_gap(section: &mut Section<'_, '_>, has_snapshot: bool) -> OnGap {
    let (on_gap, found) = section.word("on_gap", &[("tell", OnGap::Tell), ("end", OnGap::End)]);
    if !has_snapshot {
        return on_gap;
    }
    if on_gap == OnGap::End {
        section.fault(&found, "a gap is followed by a snapshot here; remove snapshot, or this");
    }
    OnGap::Heal
}

fn controls(section: &mut Section<'_, '_>, on_gap: OnGap) -> Controls {
    let words =
        [("event", Controls::Event), ("comment", Controls::Comment), ("none", Controls::None)];
    let (controls, found) = section.word("controls", &words);
    if controls == Controls::None && on_gap == OnGap::Tell {
        section.fault(
            &found,
            "entries could be lost without a word, for gaps are told in control events; write on_gap = \"end\", too, or controls = \"comment\"",
        );
    }
    controls
}

fn signals(section: &mut Section<'_, '_>, controls: Controls) -> Signals {
    let words = [("comment", Signals::Comment), ("event", Signals::Event)];
    let (signals, found) = section.word("signals", &words);
    if signals == Signals::Event && controls != Controls::Event {
        section.fault(
            &found,
            "is for control events, which this route does not send; write controls = \"event\", or signals = \"comment\"",
        );
    }
    signals
}

fn end_data(section: &mut Section<'_, '_>, has_end: bool) -> Option<String> {
    let (data, found) = section.text("end_data", "");
    if data.is_empty() {
        return None;
    }
    check_end(section, &found, has_end);
    Some(data)
}

fn ended(section: &mut Section<'_, '_>, has_end: bool) -> Ended {
    let replays = |written: &WrittenValue| word_or_204(written, "replay");
    let (replays, found) = section.read("ended", "204", replays);
    if !replays {
        return Ended::NoContent;
    }
    check_end(section, &found, has_end);
    Ended::Replay
}

/// Whether all but the end leaves a body incomplete. Without an end no client takes a body for whole.
fn cuts(section: &mut Section<'_, '_>, has_end: bool) -> bool {
    let (cuts, found) = section.word("cut", &[("incomplete", true), ("clean", false)]);
    if !cuts {
        check_end(section, &found, has_end);
    }
    cuts && has_end
}

/// Whether a setting about the end of streams has one.
fn check_end(section: &mut Section<'_, '_>, found: &Found, has_end: bool) {
    if !has_end {
        section.fault(
            found,
            "is for streams that end, and no entry ends those of this route; write end = { field = \"type\", equals = \"done\" }, or remove this",
        );
    }
}
