//! Makes one stream of the events of several, without I/O: events are told whole, one after the other, with the
//! composite id; what concerns one part says of which.

use std::sync::Arc;

use super::events::{Events, Found};
use crate::fanout::WireFormat;
use crate::sse::{
    Control, Controls, EndReason, Gap, Reason, StreamId, comment, composite_id, control_of_stream,
    write_control_json,
};

/// No more than about this is made ready in one go.
pub(super) const READY_BYTES: usize = 16 << 10;

/// The parts of a merged stream, and what their client has.
pub(super) struct Composer {
    /// How the client wants the bytes.
    format: WireFormat,
    parts: Vec<Part>,
    /// The part of whose event the client has the first half.
    amid: Option<usize>,
    /// Whether the client was told that it is live.
    is_live: bool,
    /// Entries delivered before that, of all parts.
    replayed: u64,
}

struct Part {
    name: Arc<str>,
    events: Events,
    /// What the client has of it up to here; `None`: it has no position yet.
    position: Option<StreamId>,
    /// Its source is away, or its key cannot be read, and the client was told so.
    is_down: bool,
    standing: Standing,
}

/// How far a part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It was not level with the tail yet.
    Behind,
    /// It was.
    Level,
    /// It is over.
    Over(EndReason),
}

impl Composer {
    /// Of parts with these names, and with the positions that the client has already; `is_live`: it is level with all of
    /// them, and was told so.
    pub(super) fn new(
        format: WireFormat,
        parts: impl Iterator<Item = (Arc<str>, Option<StreamId>)>,
        is_live: bool,
    ) -> Self {
        let standing = if is_live { Standing::Level } else { Standing::Behind };
        let part = |(name, position)| Part {
            name,
            position,
            events: Events::default(),
            is_down: false,
            standing,
        };
        let parts = parts.map(part).collect();
        Self { format, parts, amid: None, is_live, replayed: 0 }
    }

    /// The part of whose event the client has the first half: no other may come before the rest of it.
    pub(super) fn amid(&self) -> Option<usize> {
        self.amid
    }

    /// The composite id of what the client has.
    pub(super) fn id(&self) -> Option<String> {
        let positions = self.parts.iter().filter_map(|part| Some((&*part.name, part.position?)));
        composite_id(positions)
    }

    /// Whether the client was told that it is live.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// What the client has of each part; `None`: of one it has nothing, or that is over or away.
    pub(super) fn positions(&self) -> Option<Vec<(Arc<str>, StreamId)>> {
        let is_there = |part: &&Part| part.standing == Standing::Level && !part.is_down;
        let position = |part: &Part| {
            let position = Some(part).filter(is_there).and_then(|part| part.position);
            position.map(|id| (part.name.clone(), id))
        };
        self.parts.iter().map(position).collect()
    }

    /// The parts whose source is away, as the client knows.
    pub(super) fn down(&self) -> impl Iterator<Item = usize> {
        let down = |(index, part): (usize, &Part)| part.is_down.then_some(index);
        self.parts.iter().enumerate().filter_map(down)
    }

    /// How the stream is over, once all of its parts are: as the marker says, unless one of them ended otherwise.
    pub(super) fn over(&self) -> Option<EndReason> {
        let mut all = EndReason::Marker;
        for part in &self.parts {
            match part.standing {
                Standing::Over(EndReason::Marker) => {}
                Standing::Over(other) => all = other,
                Standing::Behind | Standing::Level => return None,
            }
        }
        Some(all)
    }

    /// Writes what comes next of the part `index`, up to about [`READY_BYTES`] in all; what was taken is off `bytes`.
    /// `finishes_only`: no event is begun.
    pub(super) fn take(
        &mut self,
        index: usize,
        bytes: &mut &[u8],
        finishes_only: bool,
        out: &mut Vec<u8>,
    ) {
        let mut event = Vec::new();
        while out.len() + event.len() < READY_BYTES {
            if finishes_only && !self.parts[index].events.is_amid() {
                break;
            }
            let Some(found) = self.parts[index].events.next(bytes) else { break };
            match found {
                Found::Begin(id, first) => {
                    self.parts[index].position = id.or(self.parts[index].position);
                    if let Some(id) = id.and_then(|_| self.id()) {
                        event.extend_from_slice(format!("id: {id}\n").as_bytes());
                    }
                    event.extend_from_slice(&first);
                    self.replayed += u64::from(!self.is_live);
                    self.amid = Some(index);
                }
                Found::More(more) => event.extend_from_slice(more),
                Found::Last(last) => {
                    event.extend_from_slice(last);
                    self.amid = None;
                    self.format.append_event(&std::mem::take(&mut event), out);
                }
                Found::Control(id, json) => self.tell_control(index, id, &json, out),
                Found::Comment(text) => self.tell_signal(index, &text, out),
            }
        }
        if !event.is_empty() {
            self.format.append_event(&event, out);
        }
    }

    /// A part is over; at this id, which may be that of an entry that its client does not get.
    pub(super) fn end(
        &mut self,
        index: usize,
        reason: EndReason,
        id: Option<StreamId>,
        out: &mut Vec<u8>,
    ) {
        self.parts[index].position = id.or(self.parts[index].position);
        self.parts[index].standing = Standing::Over(reason);
        self.parts[index].is_down = false;
        // The end of the last one is the end of the stream.
        if self.over().is_none() {
            let json = self.of_part(index, &Control::End { reason }.json());
            self.write(self.id().as_deref(), &json, out);
            self.tell_live_if_level(out);
        }
    }

    /// The client has a position in streams that are no parts.
    pub(super) fn tell_strangers(&self, strangers: &[(String, StreamId)], out: &mut Vec<u8>) {
        for (index, (name, after)) in strangers.iter().enumerate() {
            let json = control_of_stream(&Control::Gap(stranger_gap(*after)).json(), name);
            // Once is enough.
            let id = self.id().filter(|_| index + 1 == strangers.len());
            self.write(id.as_deref(), &json, out);
        }
    }

    /// Tells the client something that concerns all of its stream.
    pub(super) fn tell(&self, control: Control, out: &mut Vec<u8>) {
        self.write(self.id().as_deref(), &control.json(), out);
    }

    /// Tells again that the source of a part is away.
    pub(super) fn tell_down(&self, index: usize, out: &mut Vec<u8>) {
        self.tell_source(index, false, out);
    }

    fn tell_control(&mut self, index: usize, id: Option<StreamId>, json: &str, out: &mut Vec<u8>) {
        self.parts[index].position = id.or(self.parts[index].position);
        if json.starts_with(LIVE) {
            self.parts[index].standing = Standing::Level;
            return self.tell_live_if_level(out);
        }
        let json = self.of_part(index, json);
        let id = id.and_then(|_| self.id());
        self.write(id.as_deref(), &json, out);
    }

    /// Of the signs of life of a part only those of its source count.
    fn tell_signal(&mut self, index: usize, text: &str, out: &mut Vec<u8>) {
        let is_down = match text {
            comment::RECONNECTING => true,
            comment::RECONNECTED => false,
            _ => return,
        };
        if std::mem::replace(&mut self.parts[index].is_down, is_down) != is_down {
            self.tell_source(index, !is_down, out);
            self.tell_live_if_level(out);
        }
    }

    fn tell_source(&self, index: usize, up: bool, out: &mut Vec<u8>) {
        if self.format.controls == Controls::None {
            let text = if up { comment::RECONNECTED } else { comment::RECONNECTING };
            return self.format.append_event(text.as_bytes(), out);
        }
        let json = self.of_part(index, &Control::Source { up }.json());
        self.write(None, &json, out);
    }

    /// A part whose source is away holds nobody up: the client knows that it is away.
    fn tell_live_if_level(&mut self, out: &mut Vec<u8>) {
        let is_there = |part: &Part| part.standing != Standing::Behind || part.is_down;
        let is_any_level = self.parts.iter().any(|part| part.standing == Standing::Level);
        if !self.is_live && is_any_level && self.parts.iter().all(is_there) {
            self.is_live = true;
            self.tell(Control::Live { replayed: self.replayed }, out);
        }
    }

    fn of_part(&self, index: usize, json: &str) -> String {
        control_of_stream(json, &self.parts[index].name)
    }

    fn write(&self, id: Option<&str>, json: &str, out: &mut Vec<u8>) {
        let mut event = Vec::new();
        write_control_json(&mut event, self.format.controls, id, json);
        self.format.append_event(&event, out);
    }
}

/// What a client is told that has a position in a stream which is no part.
pub(super) fn stranger_gap(after: StreamId) -> Gap {
    Gap { after: Some(after), next: None, lost: None, reason: Reason::Unknown }
}

/// How the JSON of a part's `live` begins.
const LIVE: &str = r#"{"type":"live","#;
