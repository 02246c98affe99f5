//! Tells the events of a part from each other, in the bytes that it gives piece by piece. They are our own text: the
//! first lines of an event say what it is, and nothing but those is kept.

use crate::sse::{CONTROL_EVENT, StreamId};

/// What comes next in a part's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The event of an entry begins: its id, and its first bytes after the line of that.
    Begin(Option<StreamId>, Vec<u8>),
    /// More of it.
    More(&'a [u8]),
    /// The last of it.
    Last(&'a [u8]),
    /// A whole control event: the id that it has, and its JSON.
    Control(Option<StreamId>, String),
    /// A whole comment, with its line end.
    Comment(String),
}

/// Where a part is.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The first lines of an event of which nothing was told yet.
    head: Vec<u8>,
    /// Within the event of an entry; and whether the last line has just ended.
    amid: Option<bool>,
}

/// What the first lines of an event say.
enum Head {
    Undecided,
    Entry,
    Control,
    Comment,
}

impl Events {
    /// Whether an event was begun whose end was not found yet.
    pub(super) fn is_amid(&self) -> bool {
        self.amid.is_some()
    }

    /// Takes what comes next off `bytes`; `None`: it takes more of them to tell.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Found<'a>> {
        if let Some(after_line) = self.amid {
            return self.next_amid(after_line, bytes);
        }
        while !bytes.is_empty() {
            let line_end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(line_end.map_or(bytes.len(), |end| end + 1));
            self.head.extend_from_slice(line);
            *bytes = rest;
            if let Some(found) = self.decided() {
                return Some(found);
            }
        }
        None
    }

    fn decided(&mut self) -> Option<Found<'static>> {
        let (id, rest) = id_line(&self.head)?;
        match kind(rest) {
            Head::Undecided => return None,
            Head::Entry => {
                let first = rest.to_vec();
                self.amid = Some(first.ends_with(b"\n"));
                self.head.clear();
                return Some(Found::Begin(id, first));
            }
            Head::Control | Head::Comment => {}
        }
        let text = String::from_utf8_lossy(rest).into_owned();
        self.head.clear();
        if text.starts_with(':') {
            return Some(Found::Comment(text));
        }
        let data = text.lines().find_map(|line| line.strip_prefix("data: "));
        Some(Found::Control(id, data.unwrap_or_default().to_owned()))
    }

    fn next_amid<'a>(&mut self, after_line: bool, bytes: &mut &'a [u8]) -> Option<Found<'a>> {
        if bytes.is_empty() {
            return None;
        }
        let end = if after_line && bytes[0] == b'\n' {
            Some(1)
        } else {
            bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2)
        };
        let (found, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        *bytes = rest;
        if end.is_some() {
            self.amid = None;
            return Some(Found::Last(found));
        }
        self.amid = Some(found.ends_with(b"\n"));
        Some(Found::More(found))
    }
}

/// The id in the first line, if it has one, and what follows it; `None`: the line has not ended.
fn id_line(head: &[u8]) -> Option<(Option<StreamId>, &[u8])> {
    const ID: &[u8] = b"id: ";
    if head.len() < ID.len() && ID.starts_with(head) {
        return None;
    }
    let Some(rest) = head.strip_prefix(ID) else { return Some((None, head)) };
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let id = std::str::from_utf8(&rest[..end]).ok().and_then(|id| id.parse().ok());
    Some((id, &rest[end + 1..]))
}

fn kind(lines: &[u8]) -> Head {
    let control = format!("event: {CONTROL_EVENT}\n");
    if lines.starts_with(b":") {
        return if lines.ends_with(b"\n") { Head::Comment } else { Head::Undecided };
    }
    if control.as_bytes().starts_with(lines) {
        return Head::Undecided;
    }
    if !lines.starts_with(control.as_bytes()) {
        return Head::Entry;
    }
    if lines.ends_with(b"\n\n") { Head::Control } else { Head::Undecided }
}
