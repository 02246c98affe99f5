//! Sentinels and clusters: which servers there are, and whether the whole works.

use super::finding::{Finding, Level, about};
use super::{judge, open};
use crate::config::{Address, Config, ReadFrom, SourceLocation};
use crate::source::{Answer, ServerKind};

/// The servers that hold streams, and what was found on the way to them.
pub(super) async fn servers(config: &Config) -> (Vec<Address>, Vec<Finding>) {
    match &config.source.location {
        SourceLocation::Memory => (Vec::new(), Vec::new()),
        SourceLocation::Server { address, .. } => (vec![address.clone()], Vec::new()),
        SourceLocation::Sentinel { sentinels, name, .. } => {
            of_sentinels(config, sentinels, name).await
        }
        SourceLocation::Cluster { nodes, .. } => of_cluster(config, nodes).await,
    }
}

async fn of_sentinels(
    config: &Config,
    sentinels: &[Address],
    name: &str,
) -> (Vec<Address>, Vec<Finding>) {
    let (mut servers, mut findings, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for address in sentinels {
        let label = address.to_string();
        let sentinel = match open(config, address, ServerKind::Sentinel).await {
            Ok(sentinel) => sentinel,
            Err(found) => {
                findings.extend(found);
                continue;
            }
        };
        let primary = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).await;
        let Some(primary) = primary.ok().as_ref().and_then(pair) else {
            let text =
                format!("knows no primary called \"{name}\"; correct the path of source.url");
            findings.extend(about(&label, [(Level::Wrong, "sentinel", text)]));
            continue;
        };
        let quorum = match sentinel.ask(&["SENTINEL", "CKQUORUM", name]).await {
            Ok(answer) => (Level::Fine, "quorum", answer.text().to_owned()),
            Err(error) => {
                let text = format!(
                    "{}: no failover would happen; start more sentinels, or lower the quorum",
                    error.message
                );
                (Level::Wrong, "quorum", text)
            }
        };
        findings.extend(about(&label, [quorum]));
        servers.push(primary.clone());
        named.push(primary);
        if let Ok(replicas) = sentinel.ask(&["SENTINEL", "REPLICAS", name]).await {
            servers.extend(replicas.parts().iter().filter_map(replica));
        }
    }
    named.sort_by_key(ToString::to_string);
    named.dedup();
    if named.len() > 1 {
        let primaries: Vec<_> = named.iter().map(ToString::to_string).collect();
        let text = format!(
            "the sentinels name different primaries: {}; wait for the failover to end, or repair the sentinels",
            primaries.join(", ")
        );
        let source = config.source.location.to_string();
        findings.extend(about(&source, [(Level::Wrong, "sentinel", text)]));
    }
    (distinct(servers), findings)
}

async fn of_cluster(config: &Config, nodes: &[Address]) -> (Vec<Address>, Vec<Finding>) {
    let (mut servers, mut findings) = (Vec::new(), Vec::new());
    for address in nodes {
        let label = address.to_string();
        let node = match open(config, address, ServerKind::Data).await {
            Ok(node) => node,
            Err(found) => {
                findings.extend(found);
                continue;
            }
        };
        findings.extend(about(
            &label,
            [match node.ask(&["CLUSTER", "INFO"]).await {
                Ok(info) => judge::coverage(&info),
                Err(error) => judge::not_known("coverage", &error, "+cluster|info"),
            }],
        ));
        match node.ask(&["CLUSTER", "SLOTS"]).await {
            Ok(slots) => servers.extend(owners(&slots, address, config.source.read_from)),
            Err(error) => {
                let text = format!("{}: no stream is found; allow +cluster|slots", error.message);
                findings.extend(about(&label, [(Level::Wrong, "cluster", text)]));
            }
        }
    }
    (distinct(servers), findings)
}

/// The nodes in the reply of `asked` to `CLUSTER SLOTS`: primaries, and replicas if those are read.
fn owners(slots: &Answer, asked: &Address, read_from: ReadFrom) -> Vec<Address> {
    let count = if read_from == ReadFrom::Replica { usize::MAX } else { 1 };
    let nodes = slots.parts().iter().flat_map(|range| range.parts().iter().skip(2).take(count));
    let at = |node: &Answer| match (pair(node)?, asked) {
        (Address::Tcp(host, port), Address::Tcp(own, _)) if host.is_empty() || host == "?" => {
            Some(Address::Tcp(own.clone(), port))
        }
        (address, _) => Some(address),
    };
    nodes.filter_map(at).collect()
}

/// The host and port that an answer begins with.
fn pair(answer: &Answer) -> Option<Address> {
    let [host, port, ..] = answer.parts() else { return None };
    Some(Address::Tcp(host.text().to_owned(), port.text().parse().ok()?))
}

/// The address in a row of `SENTINEL REPLICAS`.
fn replica(row: &Answer) -> Option<Address> {
    let host = row.value_of("ip")?.text().to_owned();
    Some(Address::Tcp(host, row.value_of("port")?.text().parse().ok()?))
}

fn distinct(servers: Vec<Address>) -> Vec<Address> {
    let mut seen = Vec::with_capacity(servers.len());
    for server in servers {
        if !seen.contains(&server) {
            seen.push(server);
        }
    }
    seen
}
