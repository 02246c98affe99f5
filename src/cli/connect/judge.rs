//! What the answers of a server mean for the gateway. Nothing here asks.

use std::time::Duration;

use super::finding::{Judgement, Level};
use crate::source::{Answer, Error, ErrorClass};

/// Clocks that differ by more than this make lag and age wrong,
const CLOCK_NOTE: Duration = Duration::from_secs(1);
/// and by more than this `?since=` as well.
const CLOCK_WRONG: Duration = Duration::from_secs(5);
/// A longer way to Redis shows in every delivery.
const ROUND_TRIP_NOTE: Duration = Duration::from_millis(50);

/// No connection, or no login.
pub(super) fn unreachable(error: &Error) -> Judgement {
    match (error.class, error.code) {
        (ErrorClass::Login, "TLS") => (Level::Wrong, "tls", error.message.clone()),
        (ErrorClass::Login | ErrorClass::Key, _) => {
            let text = format!(
                "the login is refused: {}; set source.username and source.password_file",
                error.message
            );
            (Level::Wrong, "login", text)
        }
        _ => {
            let text =
                format!("cannot be asked: {error}; start it, or correct source.url or the network");
            (Level::Unreachable, "unreachable", text)
        }
    }
}

/// A question that the server refuses.
pub(super) fn not_known(code: &'static str, error: &Error, allow: &str) -> Judgement {
    let text = format!("not known: {}; allow {allow} to have this checked", error.message);
    (Level::Note, code, text)
}

pub(super) fn version(info: &Answer) -> Judgement {
    let (name, version) = match (info.line("valkey_version"), info.line("redis_version")) {
        (Some(valkey), _) => ("Valkey", valkey),
        (None, Some(redis)) => ("Redis", redis),
        (None, None) => {
            return (Level::Note, "version", "the server does not tell its version".into());
        }
    };
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let (level, what) = match major {
        Some(..5) => (Level::Wrong, "; streams need Redis 5, take a newer one"),
        Some(5..7) => (Level::Note, "; before 7 a gap is told without a number"),
        _ => (Level::Fine, ""),
    };
    (level, "version", format!("{name} {version}{what}"))
}

pub(super) fn eviction(maxmemory: &Answer, policy: &Answer) -> Judgement {
    let is_bounded = !matches!(maxmemory.text(), "" | "0");
    let level = match policy.text() {
        policy if is_bounded && policy.starts_with("allkeys") => Level::Wrong,
        policy if is_bounded && policy.starts_with("volatile") => Level::Note,
        _ => Level::Fine,
    };
    let follows = match level {
        Level::Wrong => {
            "; a full Redis evicts stream keys, and clients get a reset: set noeviction"
        }
        Level::Note => "; a full Redis evicts keys with a TTL: give stream keys none",
        _ => "",
    };
    let text = format!("maxmemory-policy {}{follows}", policy.text());
    (level, "eviction", text)
}

/// `needed`: the connections that the gateway may open to it.
pub(super) fn max_clients(maxclients: &Answer, needed: u64) -> Judgement {
    let allowed = maxclients.text();
    if allowed.parse::<u64>().is_ok_and(|allowed| allowed < needed) {
        let text = format!(
            "maxclients {allowed}, and the gateway may need {needed} connections: raise it, or let readers share fewer (source.connections)"
        );
        return (Level::Wrong, "maxclients", text);
    }
    (Level::Fine, "maxclients", format!("maxclients {allowed}, of which {needed} may be needed"))
}

/// `reply_bytes`: the largest reply that a reader aims at.
pub(super) fn output_buffer(limits: &Answer, reply_bytes: u64) -> Judgement {
    let words: Vec<_> = limits.text().split_whitespace().collect();
    let normal = words.iter().position(|word| *word == "normal");
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let bounds = normal.map(|at| [number(at + 1), number(at + 2)]).unwrap_or_default();
    let least = bounds.into_iter().filter(|bytes| *bytes > 0).min();
    match least {
        Some(least) if least < reply_bytes => {
            let text = format!(
                "client-output-buffer-limit normal allows {least} bytes, and a reply may take {reply_bytes}: Redis cuts the reader; raise it, or lower source.read_count and source.max_entry"
            );
            (Level::Wrong, "output-buffer", text)
        }
        _ => (Level::Fine, "output-buffer", "replies fit client-output-buffer-limit".into()),
    }
}

pub(super) fn persistence(appendonly: &Answer, fsync: &Answer, save: &Answer) -> Judgement {
    if appendonly.text() == "yes" {
        let text = format!("appendonly yes, appendfsync {}", fsync.text());
        return (Level::Fine, "persistence", text);
    }
    let follows = if save.text().is_empty() {
        "no AOF and no snapshots: a restart loses every stream, and clients get a reset; set appendonly yes"
    } else {
        "no AOF: a crash loses what was added since the last snapshot, and clients get a reset; set appendonly yes"
    };
    (Level::Note, "persistence", follows.into())
}

pub(super) fn replication(info: &Answer, min_replicas: &Answer) -> Judgement {
    let replicas = info.line("connected_slaves").unwrap_or("0");
    if replicas != "0" && matches!(min_replicas.text(), "" | "0") {
        let text = format!(
            "{replicas} replicas and min-replicas-to-write 0: a failover may lose entries that clients have seen; set it to 1"
        );
        return (Level::Note, "replication", text);
    }
    (Level::Fine, "replication", format!("{replicas} replicas"))
}

/// What `TYPE` says of a key that a route names.
pub(super) fn key_type(key: &str, kind: &str) -> Judgement {
    match kind {
        "stream" => (Level::Fine, "key", format!("\"{key}\" is a stream")),
        "none" => {
            (Level::Note, "key", format!("\"{key}\" does not exist yet; its clients wait for it"))
        }
        other => {
            let text = format!(
                "\"{key}\" is a {other}, no stream: its clients are refused; correct the route's key"
            );
            (Level::Wrong, "key", text)
        }
    }
}

/// Both since 1970, at the same moment.
pub(super) fn clock(server: Duration, ours: Duration) -> Judgement {
    let apart = server.abs_diff(ours);
    let level = match apart {
        apart if apart > CLOCK_WRONG => Level::Wrong,
        apart if apart > CLOCK_NOTE => Level::Note,
        _ => Level::Fine,
    };
    let follows = if level == Level::Fine {
        ""
    } else {
        "; lag, age and ?since= read the server's clock: synchronize both"
    };
    (level, "clock", format!("clocks are {:.1} s apart{follows}", apart.as_secs_f64()))
}

pub(super) fn round_trip(median: Duration) -> Judgement {
    let far = median > ROUND_TRIP_NOTE;
    let follows = if far { "; every delivery waits for it: move the gateway nearer" } else { "" };
    let level = if far { Level::Note } else { Level::Fine };
    (level, "round-trip", format!("{:.1} ms{follows}", median.as_secs_f64() * 1e3))
}

/// What `CLUSTER INFO` says.
pub(super) fn coverage(info: &Answer) -> Judgement {
    let assigned = info.line("cluster_slots_assigned").unwrap_or("0");
    let is_ok = info.line("cluster_state") == Some("ok");
    if is_ok && assigned == "16384" {
        return (Level::Fine, "coverage", "all 16,384 slots have a node".into());
    }
    let text = format!(
        "cluster_state {}, {assigned} of 16,384 slots have a node: streams of the others cannot be read; repair the cluster (redis-cli --cluster check)",
        info.line("cluster_state").unwrap_or("unknown")
    );
    (Level::Wrong, "coverage", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Answer {
        Answer::Text(text.to_owned())
    }

    #[test]
    fn an_error_is_for_the_operator_of_the_server_or_of_the_network() {
        let level = |class, code| {
            let error = Error { class, code, message: String::new() };
            let (level, code, _) = unreachable(&error);
            (level, code)
        };
        assert_eq!(level(ErrorClass::Login, "WRONGPASS"), (Level::Wrong, "login"));
        assert_eq!(level(ErrorClass::Login, "TLS"), (Level::Wrong, "tls"));
        assert_eq!(level(ErrorClass::Away, "IO"), (Level::Unreachable, "unreachable"));
        assert_eq!(level(ErrorClass::Away, "LOADING"), (Level::Unreachable, "unreachable"));
    }

    #[test]
    fn versions_are_judged_by_what_streams_need() {
        let level = |lines: &str| version(&text(lines)).0;
        assert_eq!(level("redis_version:4.0.14"), Level::Wrong);
        assert_eq!(level("redis_version:6.2.7\r\n"), Level::Note);
        assert_eq!(level("x:1\r\nredis_version:8.2.0\r\n"), Level::Fine);
        assert_eq!(level("redis_version:7.2.4\r\nvalkey_version:9.1.2"), Level::Fine);
        assert_eq!(level(""), Level::Note);
    }

    #[test]
    fn only_a_bounded_memory_evicts() {
        let level = |maxmemory, policy| eviction(&text(maxmemory), &text(policy)).0;
        assert_eq!(level("0", "allkeys-lru"), Level::Fine);
        assert_eq!(level("100", "allkeys-lru"), Level::Wrong);
        assert_eq!(level("100", "volatile-ttl"), Level::Note);
        assert_eq!(level("100", "noeviction"), Level::Fine);
    }

    #[test]
    fn the_least_bound_of_normal_clients_counts_and_zero_is_none() {
        let level = |limits: &str, reply| output_buffer(&text(limits), reply).0;
        let others = "slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(level(&format!("normal 0 0 0 {others}"), 1 << 24), Level::Fine);
        assert_eq!(level(&format!("normal 1048576 0 0 {others}"), 1 << 24), Level::Wrong);
        assert_eq!(level("normal 67108864 1000 10", 1 << 24), Level::Wrong);
        assert_eq!(level("normal 67108864 0 0", 1 << 24), Level::Fine);
        assert_eq!(level("", 1 << 24), Level::Fine);
    }

    #[test]
    fn clocks_and_ways_have_two_bounds_and_one() {
        let level = |seconds| clock(Duration::from_secs(100), Duration::from_secs(seconds)).0;
        assert_eq!([level(100), level(101), level(98), level(200)].map(|l| l as u8), [0, 0, 1, 3]);
        assert_eq!(round_trip(Duration::from_millis(3)).0, Level::Fine);
        assert_eq!(round_trip(Duration::from_millis(90)).0, Level::Note);
    }

    #[test]
    fn a_cluster_has_all_its_slots_or_is_wrong() {
        let level = |lines: &str| coverage(&text(lines)).0;
        assert_eq!(level("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"), Level::Fine);
        assert_eq!(level("cluster_state:fail\r\ncluster_slots_assigned:16383\r\n"), Level::Wrong);
        assert_eq!(level("cluster_state:ok\r\ncluster_slots_assigned:16383\r\n"), Level::Wrong);
        assert_eq!(level(""), Level::Wrong);
    }
}
