//! What each metric is, for Prometheus.

use metrics::{describe_counter, describe_gauge};

/// Describes the metrics to the recorder at hand.
pub(super) fn describe() {
    describe_gauge!(
        "ssegate_build_info",
        "Version of the gateway, and the commit that it was built from."
    );
    describe_gauge!("ssegate_unsafe_config", "Unsafe choices of the configuration, by name.");
    describe_gauge!(
        "ssegate_config_last_reload_successful",
        "Whether the last reload was applied."
    );
    describe_gauge!(
        "ssegate_config_last_reload_success_timestamp_seconds",
        "When a configuration was last applied, at the start or by a reload."
    );
    describe_gauge!("ssegate_clients", "Streams open.");
    describe_gauge!("ssegate_clients_limit", "Streams that may be open.");
    describe_gauge!("ssegate_connections_pending", "Public connections that are not streams yet.");
    describe_gauge!("ssegate_readers", "Stream keys with a reader.");
    describe_gauge!("ssegate_readers_limit", "Stream keys that may have a reader.");
    describe_gauge!("ssegate_redis_connected", "Whether the source answered the last probe.");
    describe_gauge!(
        "ssegate_reader_last_poll_timestamp_seconds",
        "Last answer to the reader that has waited longest."
    );
    describe_gauge!(
        "ssegate_reader_lag_entries",
        "Entries that the reader furthest behind had still to read at its last answer (Redis 7)."
    );
    describe_gauge!(
        "ssegate_buffered_bytes",
        "Bytes of events in memory, which all clients share."
    );
    describe_gauge!("ssegate_buffered_limit_bytes", "Bytes of events that may be in memory.");
    describe_counter!("ssegate_connections_accepted_total", "Connections on public listeners.");
    describe_counter!("ssegate_http_responses_total", "Responses by status code.");
    describe_counter!("ssegate_client_disconnects_total", "Ended streams, by reason.");
    describe_counter!(
        "ssegate_rejected_total",
        "Refused streams, requests and connections, by reason."
    );
    describe_counter!("ssegate_auth_failures_total", "Refused tokens, by reason.");
    describe_counter!(
        "ssegate_entries_published_total",
        "Entries that POST has added, through routes or the admin listener."
    );
    describe_counter!(
        "ssegate_publish_refused_total",
        "Requests to add entries that were refused, or whose outcome is not known, by reason."
    );
    describe_counter!("ssegate_events_sent_total", "Events written, by route.");
    describe_counter!("ssegate_bytes_sent_total", "Bytes written, by route.");
    describe_counter!(
        "ssegate_streams_ended_total",
        "Streams of clients that ended because they are over, by route and reason."
    );
    describe_counter!(
        "ssegate_streams_reopened_total",
        "Streams to which an entry was added after the one that ends them."
    );
    describe_counter!("ssegate_heartbeats_total", "Keepalives sent to silent streams.");
    describe_counter!("ssegate_reader_entries_total", "Entries read from the source.");
    describe_counter!(
        "ssegate_reader_bytes_total",
        "Bytes read from the source: names and values of fields."
    );
    describe_counter!("ssegate_reader_errors_total", "Failures of readers, by code.");
    describe_counter!("ssegate_redis_reconnects_total", "Readers that reconnected to Redis.");
    describe_counter!(
        "ssegate_redis_command_connections_total",
        "Connections for publishing to Redis that failed, were opened again, or were closed as unresponsive."
    );
    describe_gauge!(
        "ssegate_redis_connections",
        "Open connections to Redis: readers' own (reader), those that readers share (shared), those over which the latter read (reading), and those for all else but publishing (link)."
    );
    describe_counter!(
        "ssegate_shared_reads_total",
        "Times that a connection which stream keys share had news of some."
    );
    describe_counter!("ssegate_resume_total", "Resumes, by where they were served from.");
    describe_counter!("ssegate_gaps_total", "Gap events, by scope and reason.");
    describe_counter!("ssegate_gaps_healed_total", "Gaps after which a client got a snapshot.");
    describe_counter!(
        "ssegate_entries_conflated_total",
        "Entries that clients which were behind were spared."
    );
    describe_counter!(
        "ssegate_entries_withheld_total",
        "Entries that clients did not get, for their token or their request selects others."
    );
    describe_counter!("ssegate_snapshots_read_total", "Snapshots read from Redis for clients.");
    describe_counter!(
        "ssegate_entries_lost_total",
        "Entries that gap events reported as missing, where their number is known."
    );
}
