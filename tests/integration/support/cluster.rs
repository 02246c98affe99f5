//! A cluster of three primaries, perhaps with a replica each.

use super::eventually;
use super::redis::{Answer, PORT, Redis};

/// Slots of a cluster.
pub const SLOTS: u16 = 1 << 14;

/// Nodes: the three primaries, then their replicas in the same order.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// With so many replicas for each of the three primaries.
    pub fn start(replicas: usize) -> Self {
        Self::with(replicas, &|_| Vec::new())
    }

    /// The same, with further arguments for the node of an address.
    pub fn with(replicas: usize, arguments: &dyn Fn(&str) -> Vec<String>) -> Self {
        let all = |ip: &str| {
            let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            own.into_iter().map(str::to_owned).chain(arguments(ip)).collect()
        };
        let nodes: Vec<_> = (0..3 + 3 * replicas).map(|_| Redis::on_tcp_with(&all)).collect();
        let cluster = Self { nodes };
        cluster.join();
        cluster
    }

    fn join(&self) {
        let ok = || Answer::Text("OK".into());
        for (index, node) in self.nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            assert_eq!(node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), ok());
            let port = PORT.to_string();
            assert_eq!(self.nodes[0].run(&["CLUSTER", "MEET", &node.ip, &port]), ok());
        }
        for index in 0..3_u16 {
            let (first, last) = (SLOTS / 3 * index, SLOTS / 3 * (index + 1) - 1);
            let last = if index == 2 { SLOTS - 1 } else { last };
            let (first, last) = (first.to_string(), last.to_string());
            let node = &self.nodes[usize::from(index)];
            assert_eq!(node.run(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), ok());
        }
        let all = self.nodes.len();
        self.wait_for("every node knows every other", move |info| {
            info.contains(&format!("cluster_known_nodes:{all}"))
        });
        for (index, replica) in self.nodes.iter().enumerate().skip(3) {
            let id = Self::id(&self.nodes[index % 3]);
            eventually("the replica follows", || {
                replica.run(&["CLUSTER", "REPLICATE", &id]) == ok()
            });
        }
        self.wait_for("the cluster is whole", |info| info.contains("cluster_state:ok"));
        for node in &self.nodes[3..] {
            eventually(
                "the replica is in step",
                || matches!(node.run(&["ROLE"]), Answer::List(role) if role[3] == Answer::Text("connected".into())),
            );
        }
        eventually("every node knows the replicas", || {
            self.nodes.iter().all(|node| {
                let Answer::List(ranges) = node.run(&["CLUSTER", "SLOTS"]) else { return false };
                ranges
                    .iter()
                    .all(|range| matches!(range, Answer::List(range) if range.len() == 2 + all / 3))
            })
        });
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&str) -> bool) {
        eventually(what, || {
            self.nodes.iter().all(
                |node| matches!(node.run(&["CLUSTER", "INFO"]), Answer::Text(info) if holds(&info)),
            )
        });
    }

    /// What the cluster calls the node.
    pub fn id(node: &Redis) -> String {
        match node.run(&["CLUSTER", "MYID"]) {
            Answer::Text(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// The `[source] url` of it.
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes[..3].iter().map(Redis::address).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        match self.nodes[0].run(&["CLUSTER", "KEYSLOT", key]) {
            Answer::Number(slot) => slot.try_into().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Which of the three primaries serves a key at first.
    pub fn owner(&self, key: &str) -> usize {
        usize::from(self.slot(key) / (SLOTS / 3)).min(2)
    }

    /// A route's `{name}` whose key `events:{name}` the primary of this index serves.
    pub fn name_at(&self, primary: usize) -> String {
        let mut names = (0..).map(|number| format!("n{number}"));
        names.find(|name| self.owner(&format!("events:{name}")) == primary).unwrap()
    }
}
