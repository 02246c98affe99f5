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

use super::queue::{LastLines, LogQueue};
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
pub(super) struct Journal(LogQueue<Entry>);

/// A line as journald gets it.
struct Entry {
    fields: Vec<u8>,
    /// The same for standard error.
    text: String,
}

impl Journal {
    /// Connects to the journald that listens at `path`.
    pub(super) fn open(path: &Path, tell_lost: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let write = move |Entry { fields, text }| {
            if socket.send(&fields).is_err() {
                // journald restarts, or the line is too large for it: it reads standard error, too.
                let _ = writeln!(io::stderr(), "{text}");
            }
        };
        Ok(Self(LogQueue::start(write, tell_lost)))
    }

    /// Waits, when it is dropped, for what was logged until then.
    pub(super) fn last_lines(&self) -> LastLines {
        self.0.last_lines()
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
        let entry = Entry { fields: entry, text: format!("<{priority}>{message}") };
        let bytes = entry.fields.len() + entry.text.len();
        self.0.push(entry, bytes);
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

    /// A journald, and a connection to it.
    fn journald(name: &str, tell_lost: impl Fn(u64) + Send + 'static) -> (UnixDatagram, Journal) {
        let name = format!("ssegate-journal-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let journald = UnixDatagram::bind(&path).expect("it listens");
        journald.set_read_timeout(Some(Duration::from_secs(5))).expect("it is set");
        let journal = Journal::open(&path, tell_lost).expect("it is there");
        std::fs::remove_file(&path).expect("it was there");
        (journald, journal)
    }

    /// A journald that reads nothing holds up nobody who logs; what it never gets is counted, and told once it reads.
    #[test]
    fn a_stalled_journald_holds_up_nobody_and_hears_how_much_it_missed() {
        const LINES: u64 = 5_000;
        let (tell, told) = std::sync::mpsc::channel();
        let (journald, journal) = journald("stalled", move |lost| tell.send(lost).unwrap());
        let (done, logged) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let log = tracing_subscriber::registry().with(journal);
            let line = "x".repeat(10_000);
            tracing::subscriber::with_default(log, || {
                (0..LINES).for_each(|_| tracing::info!("{line}"));
                done.send(()).unwrap();
            });
        });
        logged.recv_timeout(Duration::from_secs(60)).expect("nobody waits for journald");
        let mut bytes = vec![0; 64 << 10];
        let mut came = 0;
        let mut next = || {
            journald.recv(&mut bytes).expect("an entry");
            came += 1;
            came
        };
        let lost = loop {
            next();
            if let Ok(lost) = told.try_recv() {
                break lost;
            }
        };
        while next() + lost < LINES {}
        assert!(lost > LINES / 2, "{lost} of {LINES} are lost");
    }

    #[test]
    fn a_line_is_an_entry_with_its_fields() {
        let (journald, journal) = journald("lines", |_| ());
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
        assert_eq!(entry()["PRIORITY"], "7");
        assert!(Journal::open(Path::new("/nowhere/at/all"), |_| ()).is_err());
    }
}
