//! The metrics, with the name of each. The rooms count events; the admin listener renders the counts.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::Guard;
use metrics::{Counter, Gauge, Label, counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::config::{CHOICES, Risk, Route};
use crate::sse::{EndReason, Gap, Reason};
use crate::telemetry::histogram::{Histogram, LIFE_SECONDS, WORK_SECONDS};
use crate::telemetry::version;

mod describe;
mod labels;
mod process;
mod routes;
mod totals;

pub use labels::{DisconnectReason, Scope};
pub use routes::{RouteMetrics, TooManyRoutes};
pub use totals::Totals;

use describe::describe;
use labels::REFUSALS;
use routes::Routes;

/// All metrics.
pub struct Metrics {
    recorder: PrometheusRecorder,
    /// Counts that the operator's page reads back.
    pub totals: Totals,
    routes: Routes,
    /// Connections on public listeners that speak HTTP/1, or that send nothing in time.
    pub accepted: Counter,
    /// Those that speak HTTP/2.
    pub accepted_http2: Counter,
    /// Entries that readers took from the source.
    pub reader_entries: Counter,
    /// Bytes of the fields of these entries.
    pub reader_bytes: Counter,
    /// Streams that had ended, and went on.
    pub reopened: Counter,
    /// States that were read for clients.
    pub snapshots: Counter,
    /// Gaps after which a client got the state of then.
    pub gaps_healed: Counter,
    /// Entries that clients were spared.
    pub conflated: Counter,
    /// Entries that clients did not get, for they get others.
    pub withheld: Counter,
    /// Readers that reconnected to Redis.
    pub redis_reconnects: Counter,
    /// Keepalive comments and events.
    pub heartbeats: Counter,
    last_poll: Gauge,
    lag_entries: Gauge,
    buffered_bytes: Gauge,
    buffered_limit_bytes: Gauge,
    clients: Gauge,
    clients_limit: Gauge,
    pending: Gauge,
    readers: Gauge,
    readers_limit: Gauge,
    redis_connected: Gauge,
    reload_successful: Gauge,
    reload_success: Gauge,
    /// From an entry's id to the write to the socket.
    pub latency: Histogram,
    /// From a reply of Redis to the last write of its entries, for each shard.
    pub fanout: Histogram,
    lives: Histogram,
}

/// Values that are read when the metrics are rendered.
pub struct Gauges<'a> {
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
    /// The last answer to the reader that has waited longest; now if there are no readers.
    pub last_poll: SystemTime,
    /// Entries that the reader furthest behind had still to read at its last answer.
    pub lag_entries: u64,
    /// Bytes of all rings.
    pub buffered_bytes: usize,
    /// Bytes that all rings may hold.
    pub buffered_limit_bytes: usize,
    /// Whether the source answered the last probe.
    pub redis_connected: bool,
    /// How long Redis takes to answer; `None` for the embedded source.
    pub redis_commands: Option<&'a Histogram>,
    /// What became of the connections for commands: each event, and how often it happened.
    pub command_connections: [(&'static str, u64); 3],
    /// Connections to Redis, by what they are used for.
    pub redis_connections: [(&'static str, usize); 4],
    /// Reads of several streams that have found entries.
    pub shared_reads: u64,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(routes: &[Route]) -> Self {
        let totals = Totals::default();
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, describe);
        let named = |name: &'static str| metrics::with_local_recorder(&recorder, || counter!(name));
        let gauge = |name: &'static str| metrics::with_local_recorder(&recorder, || gauge!(name));
        let accepted = |proto: &'static str| {
            metrics::with_local_recorder(
                &recorder,
                || counter!("ssegate_connections_accepted_total", "proto" => proto),
            )
        };
        let metrics = Self {
            routes: Routes::default(),
            accepted: totals.http1.beside(accepted("http1")),
            accepted_http2: totals.http2.beside(accepted("http2")),
            reader_entries: totals.entries.beside(named("ssegate_reader_entries_total")),
            reader_bytes: named("ssegate_reader_bytes_total"),
            reopened: named("ssegate_streams_reopened_total"),
            snapshots: named("ssegate_snapshots_read_total"),
            gaps_healed: named("ssegate_gaps_healed_total"),
            conflated: named("ssegate_entries_conflated_total"),
            withheld: named("ssegate_entries_withheld_total"),
            redis_reconnects: named("ssegate_redis_reconnects_total"),
            heartbeats: named("ssegate_heartbeats_total"),
            last_poll: gauge("ssegate_reader_last_poll_timestamp_seconds"),
            lag_entries: gauge("ssegate_reader_lag_entries"),
            buffered_bytes: gauge("ssegate_buffered_bytes"),
            buffered_limit_bytes: gauge("ssegate_buffered_limit_bytes"),
            clients: gauge("ssegate_clients"),
            clients_limit: gauge("ssegate_clients_limit"),
            pending: gauge("ssegate_connections_pending"),
            readers: gauge("ssegate_readers"),
            readers_limit: gauge("ssegate_readers_limit"),
            redis_connected: gauge("ssegate_redis_connected"),
            reload_successful: gauge("ssegate_config_last_reload_successful"),
            reload_success: gauge("ssegate_config_last_reload_success_timestamp_seconds"),
            latency: Histogram::new(WORK_SECONDS),
            fanout: Histogram::new(WORK_SECONDS),
            lives: Histogram::new(LIFE_SECONDS),
            totals,
            recorder,
        };
        metrics.start_at_zero();
        metrics.number_routes(routes).expect("one file has fewer than 65536 routes");
        metrics.reloaded(true);
        metrics
    }

    /// The numbers of these routes among all routes since the start.
    pub fn number_routes(&self, routes: &[Route]) -> Result<Vec<u16>, TooManyRoutes> {
        let count = |path: &str| {
            let label = path.to_owned();
            metrics::with_local_recorder(&self.recorder, || {
                RouteMetrics {
                events: self
                    .totals
                    .deliveries
                    .beside(counter!("ssegate_events_sent_total", "route" => label.clone())),
                bytes: counter!("ssegate_bytes_sent_total", "route" => label.clone()),
                ended: EndReason::ALL.map(|reason| {
                    let reason = reason.as_str();
                    counter!("ssegate_streams_ended_total", "route" => label.clone(), "reason" => reason)
                }),
            }
            })
        };
        self.routes.numbers(routes.iter().map(|route| route.path.as_str()), count)
    }

    /// The counters of each route, by its number.
    pub fn routes(&self) -> Guard<Arc<Vec<RouteMetrics>>> {
        self.routes.all()
    }

    /// A configuration was applied, or rejected.
    pub fn reloaded(&self, applied: bool) {
        self.reload_successful.set(f64::from(u8::from(applied)));
        if applied {
            self.reload_success.set(unix_seconds(SystemTime::now()));
        }
    }

    /// Known label sets exist from the start: otherwise Prometheus would miss their first increase.
    fn start_at_zero(&self) {
        for left in DisconnectReason::ALL {
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
        let build = [("version", env!("CARGO_PKG_VERSION")), ("commit", version::COMMIT)];
        self.gauge_labelled("ssegate_build_info", &build, 1.0);
    }

    /// Adds the reasons for refusing tokens, at zero.
    pub fn token_reasons(&self, reasons: &[&'static str]) {
        for reason in reasons {
            self.labelled("ssegate_auth_failures_total", &[("reason", reason)], 0);
        }
    }

    /// Adds the codes with which readers fail, at zero.
    pub fn reader_codes(&self, codes: impl Iterator<Item = &'static str>) {
        for code in codes {
            self.labelled("ssegate_reader_errors_total", &[("code", code)], 0);
        }
    }

    /// Adds the status codes of responses, at zero.
    pub fn response_codes(&self, codes: &[u16]) {
        for code in codes {
            let labels = [("code", &*code.to_string())];
            self.labelled("ssegate_http_responses_total", &labels, 0);
        }
    }

    /// Adds the ways of publishing, and the reasons for refusing it, at zero.
    pub fn publish_reasons(&self, reasons: &[&'static str]) {
        for through in ["route", "admin"] {
            self.published(through, 0);
        }
        for reason in reasons {
            self.labelled("ssegate_publish_refused_total", &[("reason", reason)], 0);
        }
    }

    /// So many entries were added.
    pub fn published(&self, through: &'static str, entries: u64) {
        self.labelled("ssegate_entries_published_total", &[("through", through)], entries);
    }

    /// A request to add entries was refused.
    pub fn publish_refused(&self, reason: &'static str) {
        self.labelled("ssegate_publish_refused_total", &[("reason", reason)], 1);
    }

    /// A token was refused, or missing.
    pub fn token_refused(&self, reason: &'static str) {
        self.labelled("ssegate_auth_failures_total", &[("reason", reason)], 1);
    }

    /// The unsafe choices that the configuration makes.
    pub fn unsafe_choices(&self, made: &[Risk]) {
        for choice in CHOICES {
            let is_made = made.iter().any(|risk| risk.choice == choice);
            let value = if is_made { 1.0 } else { 0.0 };
            self.gauge_labelled("ssegate_unsafe_config", &[("choice", choice)], value);
        }
    }

    /// A stream that began at `opened` has ended.
    pub fn disconnected(&self, why: DisconnectReason, opened: Instant) {
        self.lives.observe(opened.elapsed(), 1);
        self.labelled("ssegate_client_disconnects_total", &[("reason", why.as_str())], 1);
    }

    /// A stream, a request or a connection was refused; `reason` is one of `REFUSALS`.
    pub fn rejected(&self, reason: &'static str) {
        debug_assert!(
            REFUSALS.contains(&reason),
            "{reason} is missing from REFUSALS: its series would not begin at zero"
        );
        self.labelled("ssegate_rejected_total", &[("reason", reason)], 1);
    }

    /// An ordinary response, or a stream's head, went out.
    pub fn responded(&self, code: u16) {
        let code = code.to_string();
        self.labelled("ssegate_http_responses_total", &[("code", &code)], 1);
    }

    /// A client named a last event id; `result` says where it was served from.
    pub fn resumed(&self, result: &'static str, times: u64) {
        self.labelled("ssegate_resume_total", &[("result", result)], times);
    }

    /// A reader failed with this code.
    pub fn reader_error(&self, code: &'static str) {
        self.labelled("ssegate_reader_errors_total", &[("code", code)], 1);
    }

    /// Entries are missing; clients get a gap event.
    pub fn gap(&self, scope: Scope, gap: Gap) {
        let labels = [("scope", scope.as_str()), ("reason", gap.reason.as_str())];
        self.labelled("ssegate_gaps_total", &labels, 1);
        self.totals.gaps.add(1);
        let lost = gap.lost.unwrap_or(0);
        self.labelled("ssegate_entries_lost_total", &[("scope", scope.as_str())], lost);
    }

    /// Counts gaps of one entry each, which could not be sent.
    pub fn unsent(&self, scope: Scope, by_reason: &[(Reason, u64)]) {
        for (reason, entries) in by_reason.iter().copied().filter(|(_, entries)| *entries > 0) {
            let labels = [("scope", scope.as_str()), ("reason", reason.as_str())];
            self.labelled("ssegate_gaps_total", &labels, entries);
            self.totals.gaps.add(entries);
            self.labelled("ssegate_entries_lost_total", &[("scope", scope.as_str())], entries);
        }
    }

    /// Prometheus' text format.
    pub fn render(&self, now: &Gauges<'_>) -> String {
        self.clients.set(now.clients as f64);
        self.clients_limit.set(now.clients_limit as f64);
        self.pending.set(now.pending as f64);
        self.readers.set(now.readers as f64);
        self.readers_limit.set(now.readers_limit as f64);
        self.last_poll.set(unix_seconds(now.last_poll));
        self.lag_entries.set(now.lag_entries as f64);
        self.buffered_bytes.set(now.buffered_bytes as f64);
        self.buffered_limit_bytes.set(now.buffered_limit_bytes as f64);
        self.redis_connected.set(f64::from(u8::from(now.redis_connected)));
        metrics::with_local_recorder(&self.recorder, || {
            for (used, connections) in now.redis_connections {
                gauge!("ssegate_redis_connections", "use" => used).set(connections as f64);
            }
            counter!("ssegate_shared_reads_total").absolute(now.shared_reads);
        });
        for (event, times) in now.command_connections {
            metrics::with_local_recorder(&self.recorder, || {
                counter!("ssegate_redis_command_connections_total", "event" => event)
                    .absolute(times);
            });
        }
        let mut text = self.recorder.handle().render();
        let none = Histogram::new(WORK_SECONDS);
        let commands = now.redis_commands.unwrap_or(&none);
        for (histogram, name, help) in [
            (&self.latency, "ssegate_delivery_latency_seconds", LATENCY_HELP),
            (&self.fanout, "ssegate_fanout_duration_seconds", FANOUT_HELP),
            (
                &self.lives,
                "ssegate_client_duration_seconds",
                "Duration of the streams that have ended.",
            ),
            (commands, "ssegate_redis_command_duration_seconds", COMMANDS_HELP),
        ] {
            histogram.render(name, help, &mut text);
        }
        process::render(&mut text);
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

const LATENCY_HELP: &str = "Time from an entry's id to the write to the socket, for live deliveries whose ids are within an hour of now.";
const FANOUT_HELP: &str =
    "Time from the reply of a read to its last write to the live subscribers, for each shard.";
const COMMANDS_HELP: &str = "Time from a command to its answer or failure, including the wait for a connection, without blocking reads.";

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
