//! The parser: reads an event stream as a browser does. With it `ssegate tail` and the tests check what we
//! send by the standard's rules, rather than by those of our own writer.

use std::time::Duration;

/// The longest line and the largest data that are read, unless another limit is set.
pub const DEFAULT_LIMIT_BYTES: usize = 64 << 20;

/// One part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event; its blank line has come.
    Event(Event),
    /// A comment, without its colon and one space after that.
    Comment(String),
}

/// An event as a page gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` if the stream names none.
    pub event_type: String,
    /// Its `data:` lines, joined by LF.
    pub data: String,
    /// The last id in the stream, of this event or an earlier one; empty if there was none.
    pub last_event_id: String,
}

/// A line, or an event's data, exceeds the parser's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a line or an event of more than {limit_bytes} bytes: the server's entries are larger than this client reads"
)]
pub struct TooLarge {
    /// The limit.
    pub limit_bytes: usize,
}

/// An incremental parser of event streams; chunks may end anywhere, even within a character.
#[derive(Debug)]
pub struct Parser {
    limit_bytes: usize,
    /// The unfinished line. It is decoded once it is finished: a character may be cut, too.
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// No line was finished yet: this one may begin with a BOM.
    at_start: bool,
    event_type: String,
    data: String,
    /// Of the last `id:` line; with the next blank line it becomes the last event id.
    id: String,
    last_event_id: String,
    reconnection_time: Option<Duration>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the start of a stream, without a last event id.
    pub fn new() -> Self {
        Self {
            limit_bytes: DEFAULT_LIMIT_BYTES,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            event_type: String::new(),
            data: String::new(),
            id: String::new(),
            last_event_id: String::new(),
            reconnection_time: None,
        }
    }

    /// The longest line, and the largest data of an event, that it reads.
    #[must_use]
    pub fn with_limit_bytes(self, limit_bytes: usize) -> Self {
        Self { limit_bytes, ..self }
    }

    /// Starts with a last event id, as a client that resumes does.
    #[must_use]
    pub fn with_last_event_id(self, last_event_id: String) -> Self {
        Self { id: last_event_id.clone(), last_event_id, ..self }
    }

    /// The last event id, with which a client resumes; empty if it has none.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// How long to wait before reconnecting, if the stream said so.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.reconnection_time
    }

    /// The stream has ended, and another one continues it. Drops what was unfinished; keeps the last event id
    /// and the reconnection time.
    pub fn reconnect(&mut self) {
        self.line.clear();
        self.after_cr = false;
        self.at_start = true;
        self.event_type.clear();
        self.data.clear();
        self.id.clone_from(&self.last_event_id);
    }

    /// Reads on, and appends what is complete now to `items`. After an error the stream cannot be read on.
    pub fn feed(&mut self, mut bytes: &[u8], items: &mut Vec<Item>) -> Result<(), TooLarge> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
                return self.keep(bytes);
            };
            self.keep(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];

            let mut line = std::mem::take(&mut self.line);
            items.extend(self.read_line(&line)?);
            line.clear();
            self.line = line;
        }
        Ok(())
    }

    /// Adds to the unfinished line.
    fn keep(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        self.check_limit(self.line.len() + part.len())?;
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn check_limit(&self, len_bytes: usize) -> Result<(), TooLarge> {
        let limit_bytes = self.limit_bytes;
        if len_bytes > limit_bytes { Err(TooLarge { limit_bytes }) } else { Ok(()) }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<Option<Item>, TooLarge> {
        let line = String::from_utf8_lossy(line);
        let bom = if std::mem::take(&mut self.at_start) { "\u{feff}" } else { "" };
        let line = line.strip_prefix(bom).unwrap_or(&line);
        if line.is_empty() {
            return Ok(self.dispatch().map(Item::Event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if field.is_empty() {
            return Ok(Some(Item::Comment(value.to_owned())));
        }
        self.set(field, value)?;
        Ok(None)
    }

    fn set(&mut self, field: &str, value: &str) -> Result<(), TooLarge> {
        match field {
            "data" => {
                self.check_limit(self.data.len() + value.len())?;
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.event_type),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.reconnection_time = milliseconds(value).or(self.reconnection_time),
            _ => {}
        }
        Ok(())
    }

    /// A blank line: sets the last event id, and ends an event if there was data.
    fn dispatch(&mut self) -> Option<Event> {
        self.last_event_id.clone_from(&self.id);
        let mut data = std::mem::take(&mut self.data);
        let event_type = std::mem::take(&mut self.event_type);
        data.pop()?;
        let event_type = if event_type.is_empty() { "message".to_owned() } else { event_type };
        Some(Event { event_type, data, last_event_id: self.last_event_id.clone() })
    }
}

/// The value of a `retry:` line: ASCII digits and nothing else. More than a `u64` holds means for ever.
fn milliseconds(value: &str) -> Option<Duration> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_millis(value.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All items of `bytes`, fed whole and byte by byte: the two must agree.
    fn items_of(bytes: &[u8]) -> Vec<Item> {
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        Parser::new().feed(bytes, &mut whole).unwrap();
        let mut parser = Parser::new();
        for byte in bytes {
            parser.feed(&[*byte], &mut single).unwrap();
        }
        assert_eq!(whole, single, "{bytes:?} reads the same in any chunks");
        whole
    }

    /// Type and data of the events alone.
    fn events_of(bytes: impl AsRef<[u8]>) -> Vec<(String, String)> {
        let event = |item| match item {
            Item::Event(event) => Some((event.event_type, event.data)),
            Item::Comment(_) => None,
        };
        items_of(bytes.as_ref()).into_iter().filter_map(event).collect()
    }

    fn data_of(bytes: impl AsRef<[u8]>) -> Vec<String> {
        events_of(bytes).into_iter().map(|(_, data)| data).collect()
    }

    fn after(bytes: &[u8]) -> Parser {
        let mut parser = Parser::new();
        parser.feed(bytes, &mut Vec::new()).unwrap();
        parser
    }

    #[test]
    fn one_bom_is_dropped_at_the_start_and_nowhere_else() {
        assert_eq!(data_of("\u{feff}data: a\n\n\u{feff}data: b\n\ndata: c\n\n"), ["a", "c"]);
        assert_eq!(data_of("\u{feff}\u{feff}data: a\n\ndata: b\n\n"), ["b"]);
        assert_eq!(data_of(b"\xef\xbbdata: a\n\ndata: b\n\n"), ["b"]);
        assert_eq!(data_of("data: \u{feff}a\n\n"), ["\u{feff}a"]);
    }

    #[test]
    fn cr_lf_and_crlf_end_lines_in_any_mix() {
        assert_eq!(data_of("data: a\r\ndata\ndata: b\r\n\r"), ["a\n\nb"]);
        assert_eq!(data_of("data: a\rdata: b\r\rdata: c\r\r\n"), ["a\nb", "c"]);
        assert_eq!(data_of("data: a\n\r\ndata: b\r\n\r\n"), ["a", "b"]);
    }

    #[test]
    fn a_cr_dispatches_before_its_lf_has_come() {
        let (mut parser, mut items) = (Parser::new(), Vec::new());
        parser.feed(b"data: a\r\n\r", &mut items).unwrap();
        assert_eq!(items.len(), 1);
        parser.feed(b"", &mut items).unwrap();
        parser.feed(b"\ndata: b\n", &mut items).unwrap();
        assert_eq!(items.len(), 1, "the LF belongs to the CR and is not a blank line");
        parser.feed(b"\n", &mut items).unwrap();
        assert_eq!(items.len(), 2);
    }

    #[test]
    fn data_may_be_empty_but_not_absent() {
        assert_eq!(data_of("data:\n\ndata\ndata\n\ndata: x\n\n"), ["", "\n", "x"]);
        assert_eq!(data_of("event: x\n\n\n\nid: 1\n\ndata: y\n\n"), ["y"]);
    }

    #[test]
    fn one_space_is_removed_and_no_tab() {
        assert_eq!(data_of("data:\ta\ndata: \ndata:b\ndata:  c\n\n"), ["\ta\n\nb\n c"]);
        assert_eq!(data_of("data:::a\ndata: :b\n\n"), ["::a\n:b"]);
    }

    #[test]
    fn field_names_match_exactly() {
        let stream = "Data: 1\ndata\0: 2\n\0data: 3\nda-ta: 4\ndata_5\n data: 6\ndata : 7\nxyz: 8\ndata: ok\n\n";
        assert_eq!(data_of(stream), ["ok"]);
        assert_eq!(data_of("data:\0\ndata: a\0b\n\n"), ["\0\na\0b"]);
    }

    #[test]
    fn the_type_is_the_last_one_named_and_holds_for_one_event() {
        let named = |event_type: &str, data: &str| (event_type.to_owned(), data.to_owned());
        assert_eq!(
            events_of(
                "event: a\ndata: 1\nevent: b\n\ndata: 2\n\nevent: \ndata: 3\n\nevent\ndata: 4\n\n"
            ),
            [named("b", "1"), named("message", "2"), named("message", "3"), named("message", "4")]
        );
        assert_eq!(events_of("event: lost\n\ndata: 1\n\n"), [named("message", "1")]);
    }

    #[test]
    fn comments_are_items_and_touch_no_event() {
        let long = "x".repeat(3000);
        let stream = format!("data: 1\r:\0\n:\r\ndata: 2\n:{long}\r: data: no\ndata: 3\n\n: end\n");
        let items = items_of(stream.as_bytes());
        let comments: Vec<&str> = items
            .iter()
            .filter_map(
                |item| if let Item::Comment(text) = item { Some(text.as_str()) } else { None },
            )
            .collect();
        assert_eq!(comments, ["\0", "", &long, "data: no", "end"]);
        assert_eq!(data_of(&stream), ["1\n2\n3"]);
    }

    #[test]
    fn invalid_utf8_becomes_replacement_characters() {
        assert_eq!(
            data_of(b"data: a\xffb\ndata: \xe2\x82\ndata: \xc3\n\n"),
            ["a\u{fffd}b\n\u{fffd}\n\u{fffd}"]
        );
        assert_eq!(data_of("data: grün €\u{1f600}\n\n"), ["grün €\u{1f600}"]);
    }

    #[test]
    fn the_id_counts_from_the_blank_line_on() {
        assert_eq!(after(b"id: 1\n").last_event_id(), "");
        assert_eq!(after(b"id: 1\n\n").last_event_id(), "1", "even without data");
        assert_eq!(after(b"id: 1\ndata: a\n\nid: 2\ndata: b").last_event_id(), "1");
        assert_eq!(
            after(b"id: 1\n\nid: 2\0\n\n").last_event_id(),
            "1",
            "an id with NUL is ignored"
        );
        assert_eq!(after(b"id: 1\n\ndata: a\n\n").last_event_id(), "1", "it stays");
        assert_eq!(after(b"id: 1\n\nid\n\n").last_event_id(), "", "an empty one resets");
        assert_eq!(after("id: …\n\n".as_bytes()).last_event_id(), "…");
    }

    #[test]
    fn events_carry_the_last_id() {
        let ids: Vec<String> = items_of(b"data: a\n\nid: 1\ndata: b\n\ndata: c\n\nid\ndata: d\n\n")
            .into_iter()
            .map(|item| if let Item::Event(event) = item { event.last_event_id } else { panic!() })
            .collect();
        assert_eq!(ids, ["", "1", "1", ""]);
    }

    #[test]
    fn a_reconnection_drops_what_was_unfinished_and_keeps_the_id() {
        let mut parser = after(b"retry: 7\nid: 1\ndata: a\n\nid: 2\nevent: x\ndata: b\r");
        parser.reconnect();
        let mut items = Vec::new();
        let no_bom = "\n\u{feff}data: ignored\n: hello\n\n";
        parser.feed(no_bom.as_bytes(), &mut items).unwrap();
        assert_eq!(items, [Item::Comment("hello".into())]);
        assert_eq!(parser.last_event_id(), "1");
        assert_eq!(parser.reconnection_time(), Some(Duration::from_millis(7)));
    }

    #[test]
    fn retry_takes_digits_only_and_at_once() {
        let ms = |bytes: &[u8]| after(bytes).reconnection_time().map(|time| time.as_millis());
        assert_eq!(ms(b"data: a\n\n"), None);
        assert_eq!(ms(b"retry: 1500\n"), Some(1500));
        assert_eq!(ms(b"retry:030\n"), Some(30));
        for bogus in
            ["retry", "retry:", "retry: 5s", "retry: -1", "retry: +1", "retry:  1", "retry: 1.5"]
        {
            assert_eq!(ms(format!("retry: 8\n{bogus}\n").as_bytes()), Some(8), "{bogus}");
        }
        assert_eq!(ms("retry: ٣\n".as_bytes()), None, "digits of another script are not digits");
        assert_eq!(ms(b"retry: 99999999999999999999\n"), Some(u128::from(u64::MAX)));
    }

    #[test]
    fn lines_and_data_may_be_as_long_as_the_limit() {
        let error = Err(TooLarge { limit_bytes: 8 });
        let feed = |bytes: &[u8]| Parser::new().with_limit_bytes(8).feed(bytes, &mut Vec::new());
        assert_eq!(feed(b"data: 12\n\n"), Ok(()));
        assert_eq!(feed(b"data: 123"), error);
        assert_eq!(feed(b"data:123\ndata:456\ndata\n\n"), Ok(()));
        assert_eq!(feed(b"data:123\ndata:456\ndata:1\n\n"), error);
    }

    #[test]
    fn what_came_before_an_error_is_kept() {
        let (mut parser, mut items) = (Parser::new().with_limit_bytes(9), Vec::new());
        assert!(parser.feed(b"id: 1\ndata: a\n\ndata: 12345\n\n", &mut items).is_err());
        assert_eq!((items.len(), parser.last_event_id()), (1, "1"));
    }
}
