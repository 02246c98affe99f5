//! Every metric's name, once. Counts are kept where they happen and rendered for the admin listener.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Label, counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::config::{CHOICES, Risk, Route};
use crate::event::{Gap, Reason};

/// Everything that is counted.
pub struct Metrics {
    recorder: PrometheusRecorder,
    /// Per route of the configuration, in its order.
    pub routes: Vec<RouteMetrics>,
    /// Connections on public listeners that speak HTTP/1, or do not say in time what they speak.
    pub accepted: Counter,
    /// Those that speak HTTP/2.
    pub accepted_http2: Counter,
    /// Entries that readers took from the source.
    pub reader_entries: Counter,
    /// Readers that found Redis again.
    pub redis_reconnects: Counter,
    /// Comments and events sent only to keep a stream alive.
    pub heartbeats: Counter,
    last_poll: Gauge,
    clients: Gauge,
    clients_limit: Gauge,
    pending: Gauge,
    readers: Gauge,
    readers_limit: Gauge,
    redis_connected: Gauge,
    /// From an entry's id to the write to the socket.
    pub latency: Histogram,
}

/// What is counted per route.
pub struct RouteMetrics {
    /// Events written, control events not counted.
    pub events: Counter,
    /// Bytes written, frames and control events counted.
    pub bytes: Counter,
}

/// Who noticed a gap.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// The reader: every client of the stream key misses it.
    Reader,
    /// A client's resume: it alone was away for too long.
    Resume,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Resume => "resume",
        }
    }
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The client closed it.
    Client,
    /// The client took nothing for too long, or lagged too far behind.
    Slow,
    /// Its maximum age was reached.
    Rotated,
    /// Its token expired.
    Expired,
    /// The server stops.
    Drain,
    /// The connection or the stream key failed.
    Error,
}

impl Left {
    const ALL: [Self; 6] =
        [Self::Client, Self::Slow, Self::Rotated, Self::Expired, Self::Drain, Self::Error];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Slow => "slow",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
            Self::Drain => "drain",
            Self::Error => "error",
        }
    }
}

/// Why somebody is refused: a limit's name, or what was wrong.
const REFUSALS: [&str; 20] = [
    "clients",
    "clients_per_ip",
    "clients_per_principal",
    "clients_per_key",
    "new_clients_per_second",
    "new_clients_per_second_per_ip",
    "readers",
    "readers_per_ip",
    "readers_per_principal",
    "pending",
    "pending_timeout",
    "header_timeout",
    "proxy_header",
    "tls",
    "head",
    "malformed",
    "request_line",
    "query",
    "drain",
    "source",
];

/// Gauges that are read off when somebody looks.
pub struct Now {
    /// Streams open.
    pub clients: usize,
    /// Streams that may be open.
    pub clients_limit: usize,
    /// Public connections that are no streams.
    pub pending: usize,
    /// Stream keys with a reader.
    pub readers: usize,
    /// Stream keys that may have one.
    pub readers_limit: usize,
    /// When the reader that has waited longest had its last answer; now where there is none.
    pub last_poll: SystemTime,
    /// Whether Redis answers.
    pub redis_connected: bool,
}

impl Metrics {
    /// All at zero.
    pub fn new(routes: &[Route]) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, describe);
        let named = |name: &'static str| metrics::with_local_recorder(&recorder, || counter!(name));
        let gauge = |name: &'static str| metrics::with_local_recorder(&recorder, || gauge!(name));
        let route = |route: &Route| {
            let label = route.path.as_str().to_owned();
            metrics::with_local_recorder(&recorder, || RouteMetrics {
                events: counter!("ssegate_events_sent_total", "route" => label.clone()),
                bytes: counter!("ssegate_bytes_sent_total", "route" => label.clone()),
            })
        };
        let accepted = |proto: &'static str| {
            metrics::with_local_recorder(
                &recorder,
                || counter!("ssegate_connections_accepted_total", "proto" => proto),
            )
        };
        let metrics = Self {
            routes: routes.iter().map(route).collect(),
            accepted: accepted("http1"),
            accepted_http2: accepted("http2"),
            reader_entries: named("ssegate_reader_entries_total"),
            redis_reconnects: named("ssegate_redis_reconnects_total"),
            heartbeats: named("ssegate_heartbeats_total"),
            last_poll: gauge("ssegate_reader_last_poll_timestamp_seconds"),
            clients: gauge("ssegate_clients"),
            clients_limit: gauge("ssegate_clients_limit"),
            pending: gauge("ssegate_connections_pending"),
            readers: gauge("ssegate_readers"),
            readers_limit: gauge("ssegate_readers_limit"),
            redis_connected: gauge("ssegate_redis_connected"),
            latency: Histogram::default(),
            recorder,
        };
        metrics.start_at_zero();
        metrics
    }

    /// Label sets that are known beforehand exist from the start, so that the first increase shows.
    fn start_at_zero(&self) {
        for left in Left::ALL {
            self.labelled("ssegate_client_disconnects_total", &[("reason", left.as_str())], 0);
        }
        for result in ["ring", "redis", "gap", "invalid"] {
            self.resumed(result, 0);
        }
        for reason in REFUSALS {
            self.labelled("ssegate_rejected_total", &[("reason", reason)], 0);
        }
        for scope in [Scope::Reader, Scope::Resume] {
            self.labelled("ssegate_entries_lost_total", &[("scope", scope.as_str())], 0);
            for reason in Reason::ALL {
                let labels = [("scope", scope.as_str()), ("reason", reason.as_str())];
                self.labelled("ssegate_gaps_total", &labels, 0);
            }
        }
        for code in
            ["WRONGTYPE", "NOPERM", "NOAUTH", "WRONGPASS", "LOADING", "IO", "TIMEOUT", "ERR"]
        {
            self.labelled("ssegate_reader_errors_total", &[("code", code)], 0);
        }
        self.gauge_labelled("ssegate_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }

    /// Reasons for which tokens may be refused exist from the start.
    pub fn token_reasons(&self, reasons: &[&'static str]) {
        for reason in reasons {
            self.labelled("ssegate_auth_refusals_total", &[("reason", reason)], 0);
        }
    }

    /// A token was refused, or was missing.
    pub fn token_refused(&self, reason: &'static str) {
        self.labelled("ssegate_auth_refusals_total", &[("reason", reason)], 1);
    }

    /// Which unsafe choices the configuration makes, each by its name.
    pub fn unsafe_choices(&self, made: &[Risk]) {
        for choice in CHOICES {
            let is_made = made.iter().any(|risk| risk.choice == choice);
            let value = if is_made { 1.0 } else { 0.0 };
            self.gauge_labelled("ssegate_unsafe_config", &[("choice", choice)], value);
        }
    }

    /// A stream ended.
    pub fn left(&self, why: Left) {
        self.labelled("ssegate_client_disconnects_total", &[("reason", why.as_str())], 1);
    }

    /// A stream, a request or a connection was refused; `reason` is one of `REFUSALS`, or Redis' error
    /// code.
    pub fn rejected(&self, reason: &'static str) {
        self.labelled("ssegate_rejected_total", &[("reason", reason)], 1);
    }

    /// An ordinary response, or a stream's head, went out.
    pub fn responded(&self, code: u16) {
        let code = code.to_string();
        self.labelled("ssegate_http_responses_total", &[("code", &code)], 1);
    }

    /// A client named a last event id, and this is where it was served from.
    pub fn resumed(&self, result: &'static str, times: u64) {
        self.labelled("ssegate_resume_total", &[("result", result)], times);
    }

    /// A reader failed with this code.
    pub fn reader_error(&self, code: &'static str) {
        self.labelled("ssegate_reader_errors_total", &[("code", code)], 1);
    }

    /// Clients are told that entries are missing.
    pub fn gap(&self, scope: Scope, gap: Gap) {
        let labels = [("scope", scope.as_str()), ("reason", gap.reason.as_str())];
        self.labelled("ssegate_gaps_total", &labels, 1);
        let lost = gap.lost.unwrap_or(0);
        self.labelled("ssegate_entries_lost_total", &[("scope", scope.as_str())], lost);
    }

    /// Entries are too large to be sent, and clients are told instead.
    pub fn oversize(&self, scope: Scope, entries: u64) {
        if entries > 0 {
            let labels = [("scope", scope.as_str()), ("reason", Reason::Oversize.as_str())];
            self.labelled("ssegate_gaps_total", &labels, entries);
            self.labelled("ssegate_entries_lost_total", &[("scope", scope.as_str())], entries);
        }
    }

    /// Prometheus' text format.
    pub fn render(&self, now: &Now) -> String {
        self.clients.set(now.clients as f64);
        self.clients_limit.set(now.clients_limit as f64);
        self.pending.set(now.pending as f64);
        self.readers.set(now.readers as f64);
        self.readers_limit.set(now.readers_limit as f64);
        self.last_poll.set(unix_seconds(now.last_poll));
        self.redis_connected.set(f64::from(u8::from(now.redis_connected)));
        let mut text = self.recorder.handle().render();
        self.latency.render("ssegate_delivery_latency_seconds", LATENCY_HELP, &mut text);
        text
    }

    fn labelled(&self, name: &'static str, labels: &[(&'static str, &str)], by: u64) {
        let labels: Vec<Label> =
            labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect();
        metrics::with_local_recorder(&self.recorder, || counter!(name, labels).increment(by));
    }

    fn gauge_labelled(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels: Vec<Label> =
            labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect();
        metrics::with_local_recorder(&self.recorder, || gauge!(name, labels).set(value));
    }
}

const LATENCY_HELP: &str =
    "From an entry's id to the write to the socket; live deliveries, ids within an hour of now.";

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_gauge!("ssegate_build_info", "The version that runs.");
    describe_gauge!("ssegate_unsafe_config", "Unsafe choices of the configuration, by name.");
    describe_gauge!("ssegate_clients", "Streams open.");
    describe_gauge!("ssegate_clients_limit", "Streams that may be open.");
    describe_gauge!("ssegate_connections_pending", "Public connections that are no streams.");
    describe_gauge!("ssegate_readers", "Stream keys with a reader.");
    describe_gauge!("ssegate_readers_limit", "Stream keys that may have a reader.");
    describe_gauge!("ssegate_redis_connected", "Whether the source answers.");
    describe_gauge!(
        "ssegate_reader_last_poll_timestamp_seconds",
        "When the reader that has waited longest last had an answer."
    );
    describe_counter!("ssegate_connections_accepted_total", "Connections on public listeners.");
    describe_counter!("ssegate_http_responses_total", "Responses by status code.");
    describe_counter!("ssegate_client_disconnects_total", "Streams that ended, by reason.");
    describe_counter!(
        "ssegate_rejected_total",
        "Streams, requests and connections that were refused, by reason."
    );
    describe_counter!("ssegate_auth_refusals_total", "Tokens that were refused, by reason.");
    describe_counter!("ssegate_events_sent_total", "Events written, by route.");
    describe_counter!("ssegate_bytes_sent_total", "Bytes written, by route.");
    describe_counter!("ssegate_heartbeats_total", "Signs of life sent to silent streams.");
    describe_counter!("ssegate_reader_entries_total", "Entries read from the source.");
    describe_counter!("ssegate_reader_errors_total", "Failures of readers, by code.");
    describe_counter!("ssegate_redis_reconnects_total", "Readers that found Redis again.");
    describe_counter!("ssegate_resume_total", "Resumes, by where they were served from.");
    describe_counter!("ssegate_gaps_total", "Gaps told to clients, by scope and reason.");
    describe_counter!("ssegate_entries_lost_total", "Entries told as missing, where counted.");
}

/// A histogram with fixed buckets: one addition per bucket and batch, no memory per sample.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_micros: AtomicU64,
}

const BOUNDS_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Histogram {
    /// Counts `times` observations of the same value.
    pub fn observe(&self, seconds: f64, times: u64) {
        let bucket = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within an hour, never negative"
        )]
        let micros = (seconds * 1e6) as u64;
        self.sum_micros.fetch_add(micros * times, Ordering::Relaxed);
    }

    fn render(&self, name: &str, help: &str, out: &mut String) {
        let mut count = 0;
        let mut lines = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS_SECONDS.get(index).map_or("+Inf".into(), f64::to_string);
            writeln!(lines, "{name}_bucket{{le=\"{bound}\"}} {count}")
                .expect("writing to a String succeeds");
        }
        let sum = self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(lines, "{name}_sum {sum}\n{name}_count {count}\n")
            .expect("writing to a String succeeds");
        out.push_str(&lines);
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
