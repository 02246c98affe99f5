//! Where the log goes, and in which form: fields for journald, text for a terminal, JSON otherwise.

use std::io::{IsTerminal, Write};
use std::path::Path;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{Log, LogFormat};

mod journal;
mod queue;

use journal::Journal;
use queue::{LastLines, LogQueue};

/// The target of the access log, which `log.access` switches on.
pub const ACCESS: &str = "ssegate::access";

/// The level of the running log.
pub struct Levels(Handle<EnvFilter, Registry>);

impl Levels {
    /// Takes the level of `config` from now on.
    pub fn set(&self, config: &Log) {
        // It fails only without a log, which lives as long as the process.
        let _ = self.0.reload(filter(config));
    }
}

/// Starts the log of the process, once. Its last lines are written when the second part is dropped.
pub fn start(config: &Log) -> (Levels, LastLines) {
    let terminal = std::io::stderr().is_terminal();
    let is_journal = journal::is_journal();
    let text = config.format == LogFormat::Text || terminal || is_journal;
    let (filter, levels) = reload::Layer::new(filter(config));
    let (registry, levels) = (tracing_subscriber::registry().with(filter), Levels(levels));
    let journal = (config.format == LogFormat::Auto && is_journal)
        .then(|| Journal::open(Path::new(journal::SOCKET), tell_lost).ok());
    if let Some(Some(journal)) = journal {
        let last_lines = journal.last_lines();
        registry.with(journal).init();
        return (levels, last_lines);
    }
    // A standard error that is closed takes nothing, and there is nowhere to say so.
    let write = |line: Vec<u8>| drop(std::io::stderr().write_all(&line));
    let lines = LogQueue::start(write, tell_lost);
    let last_lines = lines.last_lines();
    let layer = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(terminal);
    if config.format == LogFormat::Json || !text {
        registry.with(layer.json().flatten_event(true).with_target(false)).init();
    } else if journal.is_some() {
        registry.with(layer.event_format(PriorityFormat)).init();
    } else {
        registry.with(layer.with_target(false)).init();
    }
    (levels, last_lines)
}

fn tell_lost(lost: u64) {
    tracing::warn!(
        lost,
        "lines of the log were dropped: whoever reads it took nothing for a while; see why journald, or what reads standard error, stalls"
    );
}

/// The level applies to everything but the access log, which is on or off, and fred, whose events are told in our
/// own words.
fn filter(config: &Log) -> EnvFilter {
    let access = if config.access { "info" } else { "off" };
    let access = format!("{ACCESS}={access}").parse().expect("a target and a level");
    EnvFilter::new(format!("fred=off,{}", config.level)).add_directive(access)
}

/// A line with the priority prefix of sd-daemon(3) and without a time, for a journald that only reads
/// standard error.
struct PriorityFormat;

impl<S, N> tracing_subscriber::fmt::FormatEvent<S, N> for PriorityFormat
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &tracing_subscriber::fmt::FmtContext<'_, S, N>,
        mut writer: tracing_subscriber::fmt::format::Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "<{}>", journal::priority(*event.metadata().level()))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
