//! A cluster: which node serves a slot, learned from `CLUSTER SLOTS` and from redirections.
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::node::{Node, Purpose, about_no_key, suspicion};
use super::slot::{SLOTS, slot};
use crate::config::Address;
use crate::source::redis::tail::client::replies::{accepted, list, number, protocol_error, text};
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::client::{ANSWER_TIMEOUT, Link, Login, in_time};
use crate::source::{Error, ErrorClass};

/// The nodes are asked for the slots at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);
/// A node has this long to answer `CLUSTER SLOTS`.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A cluster.
pub(crate) struct Cluster {
    seeds: Vec<Address>,
    login: Login,
    reads_replicas: bool,
    /// Which of a primary's replicas is read from; random, so that gateways share them.
    replica_choice: usize,
    state: Mutex<SlotMap>,
    /// Held while the nodes are asked: one request refreshes the slots for all that wait.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct SlotMap {
    ranges: Vec<Range>,
    /// Slots that have moved since, as `MOVED` said.
    moved: HashMap<u16, Address>,
    stale: bool,
    /// When the nodes were last asked, and what came of it.
    last_refresh: Option<(Instant, Result<(), Error>)>,
    /// Nodes that are asked last until then, and not read from if there is another one.
    suspects: HashMap<Address, Instant>,
}

/// Slots that one primary serves.
#[derive(Debug, PartialEq)]
struct Range {
    first: u16,
    last: u16,
    primary: Address,
    /// Ordered by address.
    replicas: Vec<Address>,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Address>, login: Login, reads_replicas: bool) -> Self {
        Self {
            seeds,
            login: Login { readonly: reads_replicas, ..login },
            reads_replicas,
            replica_choice: fastrand::usize(..),
            state: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    pub(super) async fn find(&self, key: &str, purpose: Purpose) -> Result<Node, Error> {
        let slot = slot(key);
        let known = self.state().find(slot).is_some();
        if !known || self.state().stale {
            // The wait for another's refresh counts: a reader that opens has no other time limit.
            let refreshed = in_time(ANSWER_TIMEOUT, "CLUSTER SLOTS", self.refresh()).await;
            // An old answer is better than none.
            refreshed.or_else(|error| if known { Ok(()) } else { Err(error) })?;
        }
        let state = self.state();
        let Some((primary, replicas)) = state.find(slot) else {
            let message = format!("no node of the cluster serves slot {slot}");
            return Err(Error { class: ErrorClass::Away, code: "CLUSTERDOWN", message });
        };
        let wants_replica = self.reads_replicas && purpose == Purpose::Reading;
        let healthy: Vec<_> =
            replicas.iter().filter(|address| wants_replica && !state.is_suspect(address)).collect();
        let replica = healthy.get(self.replica_choice % healthy.len().max(1)).copied();
        Ok(Node::at(replica.unwrap_or(primary).clone()))
    }

    /// The known nodes, those that are suspected last. Fails where no node tells which slots it serves.
    pub(super) async fn nodes(&self) -> Result<Vec<Node>, Error> {
        if self.state().ranges.is_empty() {
            self.refresh().await?;
        }
        Ok(self.state().candidates(&self.seeds).into_iter().map(Node::at).collect())
    }

    /// Learns from a failure at `node`; returns the node to ask instead, if the error is a redirection.
    pub(super) fn report_failure(&self, node: &Node, error: &Error) -> Option<Node> {
        let mut state = self.state();
        if let Some((slot, address)) = redirection(error, node) {
            let asking = error.code == "ASK";
            if !asking {
                state.moved.insert(slot, address.clone());
                state.stale = true;
            }
            return Some(Node { asking, ..Node::at(address) });
        }
        if error.class == ErrorClass::Away {
            state.stale = true;
            state.suspect(&node.address, error);
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, SlotMap> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Asks the nodes for the slots. Whoever waited meanwhile shares what came of it, a failure too.
    async fn refresh(&self) -> Result<(), Error> {
        let _refreshing = self.refreshing.lock().await;
        let recent = self.state().last_refresh.clone();
        if let Some((_, outcome)) = recent.filter(|(when, _)| when.elapsed() < REFRESH_PAUSE) {
            return outcome;
        }
        let outcome = self.ask_all().await;
        self.state().last_refresh = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Asks one node after another, until one answers.
    async fn ask_all(&self) -> Result<(), Error> {
        let candidates = {
            let mut state = self.state();
            state.suspects.retain(|_, until| Instant::now() < *until);
            state.candidates(&self.seeds)
        };
        let mut last = None;
        for address in &candidates {
            match in_time(TIMEOUT, "CLUSTER SLOTS", self.ask(address)).await {
                Ok(ranges) => {
                    tracing::debug!(%address, "the node told which nodes serve the cluster's slots");
                    self.state().take_in(ranges);
                    return Ok(());
                }
                Err(error) => {
                    if error.class == ErrorClass::Away {
                        self.state().suspect(address, &error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.expect("source.url names at least one node"))
    }

    async fn ask(&self, address: &Address) -> Result<Vec<Range>, Error> {
        let mut link = Link::open(address, &self.login).await?;
        let answer = accepted(link.ask(&[b"CLUSTER", b"SLOTS"]).await?);
        let ranges = list(answer.map_err(about_no_key)?)?;
        ranges.into_iter().map(|value| range(value, address)).collect()
    }
}

impl SlotMap {
    fn take_in(&mut self, ranges: Vec<Range>) {
        self.stale = ranges.is_empty();
        self.ranges = ranges;
        self.moved.clear();
    }

    fn find(&self, slot: u16) -> Option<(&Address, &[Address])> {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        match self.moved.get(&slot) {
            Some(moved) => Some((moved, &[])),
            None => range.map(|range| (&range.primary, &*range.replicas)),
        }
    }

    fn suspect(&mut self, address: &Address, error: &Error) {
        self.suspects.insert(address.clone(), Instant::now() + suspicion(error));
    }

    fn is_suspect(&self, address: &Address) -> bool {
        self.suspects.get(address).is_some_and(|until| Instant::now() < *until)
    }

    /// Every known node, in random order but with the suspected ones last.
    fn candidates(&self, seeds: &[Address]) -> Vec<Address> {
        let known = self
            .ranges
            .iter()
            .flat_map(|range| std::iter::once(&range.primary).chain(&range.replicas));
        let mut all: Vec<_> = known.chain(seeds).cloned().collect();
        all.sort_unstable();
        all.dedup();
        fastrand::shuffle(&mut all);
        all.sort_by_key(|address| self.is_suspect(address));
        all
    }
}

/// The slot and the address in `MOVED 3999 127.0.0.1:6381`, or in `ASK` of the same form.
fn redirection(error: &Error, node: &Node) -> Option<(u16, Address)> {
    if !matches!(error.code, "MOVED" | "ASK") {
        return None;
    }
    let mut words = error.message.split_whitespace().skip(1);
    let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    Some((slot, located(host, port.parse().ok()?, &node.address)))
}

/// A node that does not know its own host leaves it empty, or a name that it was not given as "?": it is the host
/// where it was asked.
fn located(host: &str, port: u16, asked: &Address) -> Address {
    match asked {
        Address::Tcp(same, _) if is_unknown(host) => Address::Tcp(same.clone(), port),
        _ => Address::Tcp(host.to_owned(), port),
    }
}

fn is_unknown(host: &str) -> bool {
    host.is_empty() || host == "?"
}

/// One item of `CLUSTER SLOTS`: the first and last slot, then the nodes, the primary first.
fn range(value: Value, asked: &Address) -> Result<Range, Error> {
    let mut parts = list(value)?.into_iter();
    let mut slot = || {
        let slot = number(&parts.next().unwrap_or(Value::Nil))?;
        let slot = u16::try_from(slot).ok().filter(|slot| *slot < SLOTS);
        slot.ok_or_else(|| protocol_error("CLUSTER SLOTS with an invalid slot"))
    };
    let (first, last) = (slot()?, slot()?);
    let mut nodes = parts.map(|node| located_node(node, asked));
    let primary = nodes.next().ok_or_else(|| protocol_error("CLUSTER SLOTS without a node"))??;
    let mut replicas = nodes.collect::<Result<Vec<_>, _>>()?;
    replicas.sort_unstable();
    Ok(Range { first, last, primary, replicas })
}

fn located_node(value: Value, asked: &Address) -> Result<Address, Error> {
    let mut parts = list(value)?.into_iter();
    let (Some(host), Some(port)) = (parts.next(), parts.next()) else {
        return Err(protocol_error("CLUSTER SLOTS with a node without host and port"));
    };
    let mut host = text(host).unwrap_or_default();
    if is_unknown(&host) {
        host = parts.nth(1).and_then(metadata_ip).unwrap_or_default();
    }
    let port = u16::try_from(number(&port)?)
        .map_err(|_| protocol_error("CLUSTER SLOTS with an invalid port"))?;
    Ok(located(&host, port, asked))
}

/// The address among a node's metadata, which are names and values in turn: there where its host is a name.
fn metadata_ip(metadata: Value) -> Option<String> {
    let mut words = list(metadata).ok()?.into_iter();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if text(name).is_ok_and(|name| name == "ip") {
            return text(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::source::redis::refusal::error_reply;

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp(host.into(), port)
    }

    fn list<const N: usize>(values: [Value; N]) -> Value {
        Value::List(values.into())
    }

    fn node(host: &str, port: i64) -> Value {
        list([Value::Bytes(Bytes::copy_from_slice(host.as_bytes())), Value::Integer(port)])
    }

    #[test]
    fn slots_are_read_with_their_nodes() {
        let (first, last) = (Value::Integer(0), Value::Integer(5));
        let nodes = [first, last, node("a", 1), node("c", 3), node("", 2)];
        let read = range(list(nodes), &at("asked", 9)).unwrap();
        let replicas = vec![at("asked", 2), at("c", 3)];
        assert_eq!(read, Range { first: 0, last: 5, primary: at("a", 1), replicas });
    }

    #[test]
    fn a_host_that_is_not_known_is_the_address_among_the_metadata_or_the_one_that_was_asked() {
        let word = |text: &'static str| Value::Bytes(Bytes::from_static(text.as_bytes()));
        for host in [word(""), word("?"), Value::Nil] {
            let node = |metadata| {
                located_node(
                    list([host.clone(), Value::Integer(7), word("id"), metadata]),
                    &at("asked", 9),
                )
            };
            assert_eq!(node(list([word("ip"), word("10.0.0.1")])).unwrap(), at("10.0.0.1", 7));
            assert_eq!(node(list([word("hostname"), word("")])).unwrap(), at("asked", 7));
            assert_eq!(node(Value::Nil).unwrap(), at("asked", 7));
        }
        let known = list([
            word("a.example"),
            Value::Integer(7),
            word("id"),
            list([word("ip"), word("10.0.0.1")]),
        ]);
        assert_eq!(located_node(known, &at("asked", 9)).unwrap(), at("a.example", 7));
    }

    #[test]
    fn slots_of_another_form_are_a_protocol_error() {
        let slot = Value::Integer;
        for wrong in [
            Value::Nil,
            list([]),
            list([slot(0), slot(5)]),
            list([slot(0), slot(16384), node("a", 1)]),
            list([slot(-1), slot(5), node("a", 1)]),
            list([slot(0), slot(5), node("a", 65536)]),
            list([slot(0), slot(5), node("a", 1), Value::Nil]),
        ] {
            let error = range(wrong.clone(), &at("asked", 9)).unwrap_err();
            assert_eq!(error.code, "PROTOCOL", "{wrong:?}");
        }
    }

    #[test]
    fn a_redirection_names_the_node_and_how_to_ask_it() {
        let cluster = Cluster::new(vec![at("seed", 1)], Login::default(), false);
        let asked = Node::at(at("asked", 1));
        let to = |words: &str| cluster.report_failure(&asked, &error_reply(words));
        let moved = Node::at(at("::1", 7));
        assert_eq!(to("MOVED 5 ::1:7"), Some(moved));
        assert_eq!(to("MOVED 6 :7"), Some(Node::at(at("asked", 7))));
        assert_eq!(to("MOVED 6 ?:7"), Some(Node::at(at("asked", 7))));
        assert_eq!(to("ASK 8 h:7"), Some(Node { asking: true, ..Node::at(at("h", 7)) }));
        let state = cluster.state();
        assert_eq!(state.find(5).unwrap().0, &at("::1", 7));
        assert_eq!(state.find(8), None, "ASK is about one command");
        assert!(state.stale);
    }

    #[test]
    fn a_malformed_redirection_is_not_followed() {
        let cluster = Cluster::new(vec![at("seed", 1)], Login::default(), false);
        for words in
            ["MOVED", "MOVED 5", "MOVED x h:7", "MOVED 16384 h:7", "MOVED 5 h", "ASK 5 h:x"]
        {
            assert_eq!(
                cluster.report_failure(&Node::at(at("a", 1)), &error_reply(words)),
                None,
                "{words}"
            );
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_asked_last() {
        // The kernel accepts, and no server answers.
        let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let frozen = at("127.0.0.1", frozen.local_addr().unwrap().port());
        let cluster = Cluster::new(vec![frozen.clone()], Login::default(), false);
        cluster.refresh().await.unwrap_err();
        let seeds = [frozen.clone(), at("other", 1)];
        assert_eq!(cluster.state().candidates(&seeds), [at("other", 1), frozen]);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_refresh_shares_its_failure() {
        let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let frozen = at("127.0.0.1", frozen.local_addr().unwrap().port());
        let cluster = Cluster::new(vec![frozen], Login::default(), false);
        let (begun, find) = (Instant::now(), || cluster.find("a", Purpose::Reading));
        let (one, two, three, four, five) = tokio::join!(find(), find(), find(), find(), find());
        for outcome in [one, two, three, four, five] {
            assert_eq!(outcome.unwrap_err().code, "TIMEOUT");
        }
        assert!(begun.elapsed() < 4 * TIMEOUT, "they asked one after the other");
    }

    #[test]
    fn a_node_that_failed_is_asked_last() {
        let (a, b) = (at("a", 1), at("b", 1));
        let cluster = Cluster::new(vec![a.clone(), b.clone()], Login::default(), false);
        cluster.report_failure(&Node::at(a.clone()), &error_reply("LOADING"));
        assert_eq!(cluster.state().candidates(&cluster.seeds), [b, a]);
    }
}
