//! Where the log goes, and in which form: fields for journald, text for a terminal, JSON otherwise.

use std::io::IsTerminal;
use std::path::Path;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{Log, LogFormat};

mod journal;

use journal::Journal;

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

/// Starts the log of the process, once.
pub fn start(config: &Log) -> Levels {
    let terminal = std::io::stderr().is_terminal();
    let journal = journal::is_journal();
    let text = config.format == LogFormat::Text || terminal || journal;
    let (filter, levels) = reload::Layer::new(filter(config));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    if config.format == LogFormat::Json || !text {
        registry.with(layer.json().flatten_event(true).with_target(false)).init();
    } else if config.format == LogFormat::Auto && journal {
        match Journal::open(Path::new(journal::SOCKET)) {
            Ok(journal) => registry.with(journal).init(),
            Err(_) => registry.with(layer.event_format(PriorityFormat)).init(),
        }
    } else {
        registry.with(layer.with_target(false)).init();
    }
    Levels(levels)
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
