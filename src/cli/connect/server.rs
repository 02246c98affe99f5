//! The questions to one server that holds streams.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::finding::{Judgement, Level};
use super::shared_reads::shared_reads;
use super::{access, judge};
use crate::config::{Config, ReadFrom, SourceLocation};
use crate::source::{Answer, Error, Inspector};

/// Round trips whose median is told.
const ROUND_TRIPS: usize = 5;

/// What the gateway will ask of a server.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    /// Connections to it at most.
    pub(super) connections: u64,
    /// Bytes of the largest reply that a reader aims at.
    pub(super) reply_bytes: u64,
}

/// Everything about one server.
pub(super) async fn server(server: &Inspector, config: &Config, needs: Needs) -> Vec<Judgement> {
    let mut judged = Vec::new();
    judged.push(match server.ask(&["INFO", "server"]).await {
        Ok(info) => judge::version(&info),
        Err(error) => judge::not_known("version", &error, "+info"),
    });
    judged.extend(role(server, config).await);
    judged.extend(access::access(server, config).await);
    judged.extend(shared_reads(server, config).await);
    judged.extend(settings(server, needs).await);
    judged.extend(keys(server, config).await);
    judged.extend(time(server).await);
    judged
}

/// What `CONFIG` and `INFO replication` say; one note where they are denied.
async fn settings(server: &Inspector, needs: Needs) -> Vec<Judgement> {
    let mut asked = Vec::new();
    for name in [
        "maxmemory",
        "maxmemory-policy",
        "maxclients",
        "client-output-buffer-limit",
        "appendonly",
        "appendfsync",
        "save",
        "min-replicas-to-write",
    ] {
        match setting(server, name).await {
            Ok(value) => asked.push(value),
            Err(error) => return vec![judge::not_known("settings", &error, "+config|get")],
        }
    }
    let [maxmemory, policy, maxclients, buffers, appendonly, fsync, save, min_replicas] =
        &asked[..]
    else {
        unreachable!("as many answers as names")
    };
    let mut judged = vec![
        judge::eviction(maxmemory, policy),
        judge::max_clients(maxclients, needs.connections),
        judge::output_buffer(buffers, needs.reply_bytes),
        judge::persistence(appendonly, fsync, save),
    ];
    judged.push(match server.ask(&["INFO", "replication"]).await {
        Ok(info) => judge::replication(&info, min_replicas),
        Err(error) => judge::not_known("replication", &error, "+info"),
    });
    judged
}

/// A setting; nil where the server has none of this name.
async fn setting(server: &Inspector, name: &str) -> Result<Answer, Error> {
    let answer = server.ask(&["CONFIG", "GET", name]).await?;
    Ok(answer.value_of(name).cloned().unwrap_or(Answer::Nil))
}

/// The keys that routes name in full. A cluster's node answers for its own.
async fn keys(server: &Inspector, config: &Config) -> Vec<Judgement> {
    let mut judged = Vec::new();
    let templates = config.routes.iter().flat_map(|route| route.streams.templates());
    for template in templates.filter(|template| template.variables().next().is_none()) {
        let key = template.key(&[]);
        match server.ask(&["TYPE", &key]).await {
            Ok(kind) => judged.push(judge::key_type(&key, kind.text())),
            Err(error) if error.code == "MOVED" => {}
            Err(error) => judged.push(judge::not_known("key", &error, "+type")),
        }
    }
    judged
}

/// The clock, and how far the server is away.
async fn time(server: &Inspector) -> Vec<Judgement> {
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    let mut clock = None;
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        let answer = match server.ask(&["TIME"]).await {
            Ok(answer) => answer,
            Err(error) => return vec![judge::not_known("clock", &error, "+time")],
        };
        let trip = began.elapsed();
        clock = Some((server_time(&answer), SystemTime::now(), trip));
        trips.push(trip);
    }
    trips.sort();
    let mut judged = vec![judge::round_trip(trips[ROUND_TRIPS / 2])];
    if let Some((Some(theirs), now, trip)) = clock {
        let ours = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(trip / 2);
        judged.push(judge::clock(theirs, ours));
    }
    judged
}

/// Since 1970.
fn server_time(answer: &Answer) -> Option<Duration> {
    let [seconds, microseconds] = answer.parts() else { return None };
    let seconds = Duration::from_secs(seconds.text().parse().ok()?);
    Some(seconds + Duration::from_micros(microseconds.text().parse().ok()?))
}

/// `ROLE` tells lag from loss: whether it may be asked, and a replica that `redis://` names.
async fn role(server: &Inspector, config: &Config) -> Option<Judgement> {
    let location = &config.source.location;
    let role = match server.ask(&["ROLE"]).await {
        Ok(role) => role,
        Err(error) if error.code == "NOPERM" => {
            let is_needed = config.source.read_from == ReadFrom::Replica
                || matches!(location, SourceLocation::Sentinel { .. });
            let level = if is_needed { Level::Wrong } else { Level::Note };
            let text = "the user may not run ROLE, which tells lag from loss and finds the primary; allow +role";
            return Some((level, "role", text.into()));
        }
        Err(_) => return None,
    };
    let is_replica = role.parts().first()?.text() == "slave";
    if !is_replica || !matches!(location, SourceLocation::Server { .. }) {
        return None;
    }
    let primary: Vec<_> = role.parts().iter().skip(1).take(2).map(Answer::text).collect();
    let text = format!(
        "a replica of {}: streams lag as it does, and while its primary is away clients wait; name the primary, or sentinels, in source.url",
        primary.join(":")
    );
    Some((Level::Note, "role", text))
}
