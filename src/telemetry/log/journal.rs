//! The native protocol of journald: each field of a line becomes a field of the entry, so that
//! `journalctl SSEGATE_CONNECTION=17` finds every line about one connection.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>
//!
//! The message repeats the fields, because `journalctl` shows nothing else; `tracing-journald` does not do
//! that.

use std::fmt::{Debug, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The prefix of our own fields.
const PREFIX: &str = "SSEGATE_";

/// Whether standard error goes to journald: it has to be the file that the variable names, because
/// processes that write to other files inherit the variable (systemd.exec(5)).
pub(super) fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let Some((device, inode)) = named.as_deref().and_then(|named| named.split_once(':')) else {
        return false;
    };
    let is = |number: u64, text: &str| text.parse() == Ok(number);
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stderr| is(stderr.st_dev, device) && is(stderr.st_ino, inode))
}

/// A connection to journald.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// Connects to the journald that listens at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self(socket))
    }
}

/// The priority of syslog(3).
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (metadata, mut line) = (event.metadata(), Line::default());
        event.record(&mut line);
        let priority = priority(*metadata.level());
        let Line { message, words, mut entry } = line;
        let message = message + &words;
        append(&mut entry, "MESSAGE", &message);
        append(&mut entry, "PRIORITY", &priority.to_string());
        append(&mut entry, "SYSLOG_IDENTIFIER", "ssegate");
        append(&mut entry, "TARGET", metadata.target());
        if self.0.send(&entry).is_err() {
            // journald restarts, or the line is too large for it: it reads standard error, too.
            let _ = writeln!(io::stderr(), "<{priority}>{message}");
        }
    }
}

/// One line on its way to journald.
#[derive(Default)]
struct Line {
    message: String,
    /// The other fields, as text after the message.
    words: String,
    /// The other fields, as fields of the entry.
    entry: Vec<u8>,
}

impl Line {
    fn field(&mut self, field: &Field, shown: &str, value: &str) {
        write!(self.words, " {}={shown}", field.name()).expect("writing to a String succeeds");
        let name = field.name().to_ascii_uppercase();
        append(&mut self.entry, &format!("{PREFIX}{name}"), value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.field(field, &value, &value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, &format!("{value:?}"), value);
    }
}

/// Appends a field in the form that allows line breaks.
fn append(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    /// The fields of an entry, as journald reads it.
    fn read(mut entry: &[u8]) -> HashMap<String, String> {
        let mut fields = HashMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').expect("a name ends");
            let (name, rest) = (&entry[..end], &entry[end + 1..]);
            let (length, rest) = rest.split_first_chunk().expect("a length");
            let length = usize::try_from(u64::from_le_bytes(*length)).expect("it is small");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            assert_eq!(rest[length], b'\n');
            assert_eq!(fields.insert(text(name), text(&rest[..length])), None, "each once");
            entry = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn a_line_is_an_entry_with_its_fields() {
        let name = format!("ssegate-journal-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let journald = UnixDatagram::bind(&path).expect("it listens");
        journald.set_read_timeout(Some(Duration::from_secs(5))).expect("it is set");
        let journal = Journal::open(&path).expect("it is there");
        std::fs::remove_file(&path).expect("it was there");
        let log = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(log, || {
            tracing::warn!(
                connection = 17,
                key = "a\nPRIORITY=0",
                stream = None::<u32>,
                "it fails"
            );
            tracing::debug!("and more");
        });
        let entry = || {
            let mut bytes = vec![0; 4096];
            let length = journald.recv(&mut bytes).expect("an entry");
            read(&bytes[..length])
        };
        let first = entry();
        for (name, value) in [
            ("MESSAGE", r#"it fails connection=17 key="a\nPRIORITY=0""#),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "ssegate"),
            ("SSEGATE_CONNECTION", "17"),
            ("SSEGATE_KEY", "a\nPRIORITY=0"),
        ] {
            assert_eq!(first.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!first.contains_key("SSEGATE_STREAM"), "{first:?}");
        assert_eq!((&*entry()["PRIORITY"], Journal::open(&path).is_err()), ("7", true));
    }
}
