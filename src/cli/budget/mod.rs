//! The resources that a configuration may need: clients, memory, connections, and what proxies and Redis
//! have to allow. `ssegate check` ends with them.

use serde_json::{Value, json};

use crate::config::{Config, ReadFrom, SourceLocation};
use crate::limits::{Bounds, Division, TooFewDescriptors};
use crate::source::{COMMAND_CONNECTIONS, LARGE_REPLIES, LOOK_BACK_BYTES, SHARED_LINKS};
use crate::stream::reader::MOST_REPLIES_BYTES;
use crate::stream::replay::{PAGES_BYTES, STATES_BYTES};

mod text;

/// What the process holds for a live subscriber (measured: benches/RESULTS.md),
const LIVE_CLIENT_BYTES: u64 = 281;
/// for a catch-up subscriber over plain HTTP/1 (about),
const BEHIND_CLIENT_BYTES: u64 = 8 << 10;
/// and for one over HTTP/2 whose window stays shut: its stream, a piece, and what h2 holds.
const STALLED_CLIENT_BYTES: u64 = 40 << 10;
/// For a reader whose stream key is quiet, besides its clients: tasks, topic, ring (measured: benches/RESULTS.md).
const READER_BYTES: u64 = 6 << 10;
/// And for its connection, where it has one of its own.
const READER_CONNECTION_BYTES: u64 = 11 << 10;
/// For a pending connection: its task,
const PENDING_BYTES: u64 = 4 << 10;
/// and so often what it has sent: it is read ahead, and over HTTP/2 it is counted so.
const HEADS_PER_PENDING: u64 = 2;
/// What Linux holds for an idle TCP connection: socket, inode, file, the entry in epoll (x86-64).
const KERNEL_CONNECTION_BYTES: u64 = 4 << 10;
/// Linux doubles what `SO_SNDBUF` is set to, for its own bookkeeping (socket(7)).
const KERNEL_DOUBLES: u64 = 2;
/// To a cluster, for the map of its slots.
const SLOTS_CONNECTIONS: u64 = 1;
/// Ports that a host has for connections to one address and port: Linux's default range has 28,232.
const EPHEMERAL_PORTS: u64 = 28_000;
/// What a proxy needs besides streams: listeners, other connections, logs.
const PROXY_SPARE: u64 = 512;

/// The resources that a configuration may need.
pub struct Budget {
    open_files: usize,
    division: Division,
    bounds: Bounds,
    config: Config,
}

impl Budget {
    /// Computes them for `open_files`; fails where the gateway itself would.
    pub fn new(config: &Config, open_files: usize) -> Result<Self, TooFewDescriptors> {
        let bounds = Bounds::new(config, open_files)?;
        let division = Division::of(config, open_files);
        Ok(Self { open_files, division, bounds, config: config.clone() })
    }

    fn clients(&self) -> u64 {
        self.bounds.max_clients() as u64
    }

    fn readers(&self) -> u64 {
        self.config.limits.readers as u64
    }

    /// Connections of readers to all servers of Redis.
    fn reader_connections(&self) -> u64 {
        self.division.reader_connections as u64
    }

    /// Stream keys for each of these connections, if all are read.
    fn keys_per_connection(&self) -> u64 {
        let connections = self.reader_connections();
        if connections == 0 { 0 } else { self.readers().div_ceil(connections) }
    }

    /// What limits the number of clients.
    fn clients_bound_by(&self) -> &'static str {
        let wanted = self.config.limits.clients;
        if wanted > 0 && wanted == self.bounds.max_clients() {
            "limits.clients"
        } else {
            "open files"
        }
    }

    fn rings_bytes(&self) -> u64 {
        self.config.ring.total_bytes as u64
    }

    fn readers_bytes(&self) -> u64 {
        let connections = self.reader_connections().saturating_mul(READER_CONNECTION_BYTES);
        self.readers().saturating_mul(READER_BYTES).saturating_add(connections)
    }

    /// Each reader may hold an entry that its ring has no room for.
    fn largest_entries_bytes(&self) -> u64 {
        self.readers().saturating_mul(self.config.source.max_entry_bytes as u64)
    }

    fn replies_bytes(&self) -> u64 {
        let look_backs = (self.config.limits.replays as u64).saturating_mul(LOOK_BACK_BYTES as u64);
        let gives_states = self.config.routes.iter().any(|route| route.rules.snapshot.is_some());
        let states = if gives_states { STATES_BYTES } else { 0 };
        (MOST_REPLIES_BYTES + PAGES_BYTES + states) as u64 + look_backs
    }

    /// The largest reply that a reader aims at.
    pub(super) fn reply_bytes(&self) -> u64 {
        let source = &self.config.source;
        let entries = source.read_count.saturating_mul(source.max_entry_bytes as u64);
        entries.min((MOST_REPLIES_BYTES / LARGE_REPLIES) as u64)
    }

    fn pending_bytes(&self) -> u64 {
        (self.bounds.max_pending(0) as u64).saturating_mul(self.each_pending_bytes())
    }

    /// What one may cost.
    pub(super) fn each_pending_bytes(&self) -> u64 {
        PENDING_BYTES + HEADS_PER_PENDING * self.config.limits.header_bytes as u64
    }

    fn each_client(&self, bytes: u64) -> u64 {
        self.clients().saturating_mul(bytes)
    }

    fn process_bytes(&self) -> u64 {
        let rest = self.rings_bytes() + self.replies_bytes() + self.pending_bytes();
        let clients = self.each_client(STALLED_CLIENT_BYTES);
        let readers = self.readers_bytes().saturating_add(self.largest_entries_bytes());
        rest.saturating_add(readers).saturating_add(clients)
    }

    /// What Linux holds for the sockets of clients that take nothing.
    fn kernel_bytes(&self) -> u64 {
        let send_buffer = kernel_send_buffer(self.config.limits.send_buffer_bytes);
        self.each_client(KERNEL_CONNECTION_BYTES + send_buffer)
    }

    /// Connections to all servers of Redis; cluster nodes that source.url does not name add theirs.
    fn redis_connections(&self) -> u64 {
        let source = &self.config.source;
        let replica = u64::from(source.read_from == ReadFrom::Replica);
        let (servers, others) = match &source.location {
            SourceLocation::Memory => return 0,
            SourceLocation::Server { .. } => (1 + replica, 0),
            SourceLocation::Sentinel { sentinels, .. } => (1 + replica, sentinels.len() as u64),
            SourceLocation::Cluster { nodes, .. } => (nodes.len() as u64, SLOTS_CONNECTIONS),
        };
        let (primaries, publishing) = self.publishing();
        let shared = servers * SHARED_LINKS as u64;
        self.reader_connections() + shared + others + primaries * publishing
    }

    /// Those of them that one server may see.
    pub(super) fn connections_to_each(&self) -> u64 {
        let readers = self.config.source.reader_connections_to_each(self.config.limits.readers);
        let is_cluster = matches!(self.config.source.location, SourceLocation::Cluster { .. });
        let others = if is_cluster { SLOTS_CONNECTIONS } else { 0 };
        (readers + SHARED_LINKS) as u64 + others + self.publishing().1
    }

    /// Primaries that are published to, and connections to each of them.
    fn publishing(&self) -> (u64, u64) {
        match &self.config.source.location {
            _ if !self.config.admin.publish => (0, 0),
            SourceLocation::Cluster { nodes, .. } => (nodes.len() as u64, 1),
            _ => (1, COMMAND_CONNECTIONS as u64),
        }
    }

    /// Connections of a proxy in front, which has two for each client.
    fn proxy_connections(&self) -> u64 {
        self.each_client(2).saturating_add(PROXY_SPARE)
    }

    /// Addresses that a proxy on one host needs, to have enough ports.
    fn upstream_addresses(&self) -> u64 {
        self.clients().div_ceil(EPHEMERAL_PORTS)
    }

    /// The same as JSON: sizes in bytes.
    pub fn json(&self) -> Value {
        json!({
            "open_files": self.open_files,
            "open_files_for": {
                "gateway": self.division.own,
                "readers": self.division.readers,
                "connections": self.division.connections,
            },
            "clients": self.clients(),
            "clients_bound_by": self.clients_bound_by(),
            "pending": self.bounds.max_pending(0),
            "readers": self.readers(),
            "process_bytes": {
                "rings": self.rings_bytes(),
                "readers": self.readers_bytes(),
                "largest_entries": self.largest_entries_bytes(),
                "replies": self.replies_bytes(),
                "pending": self.pending_bytes(),
                "clients_live": self.each_client(LIVE_CLIENT_BYTES),
                "clients_worst": self.each_client(STALLED_CLIENT_BYTES),
                "worst": self.process_bytes(),
            },
            "kernel_bytes": {
                "clients_live": self.each_client(KERNEL_CONNECTION_BYTES),
                "worst": self.kernel_bytes(),
            },
            "redis_connections": self.redis_connections(),
            "reader_connections": self.reader_connections(),
            "keys_per_connection": self.keys_per_connection(),
            "proxy_connections": self.proxy_connections(),
            "upstream_addresses": self.upstream_addresses(),
        })
    }
}

/// What a socket with this `SO_SNDBUF` may hold in Linux.
fn kernel_send_buffer(send_buffer_bytes: usize) -> u64 {
    (send_buffer_bytes as u64).saturating_mul(KERNEL_DOUBLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn budget(toml: &str, open_files: usize) -> Budget {
        let text = format!("{toml}\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\n");
        let loaded = crate::config::parse(&text, "gateway.toml", &[], false).expect("it is good");
        Budget::new(&loaded.config, open_files).expect("there are enough open files")
    }

    #[test]
    fn the_limit_of_clients_is_named() {
        let url = "[source]\nurl = \"memory:\"\n[limits]\n";
        assert_eq!(budget(url, 1000).clients_bound_by(), "open files");
        assert_eq!(
            budget(&format!("{url}clients = 100"), 1000).clients_bound_by(),
            "limits.clients"
        );
        let wanting = budget(&format!("{url}clients = 100000"), 1000);
        assert_eq!(wanting.clients_bound_by(), "open files");
        assert!(wanting.lines().contains("limits.clients asks for 100,000"), "{}", wanting.lines());
        assert!(
            wanting.lines().contains("no more than 250 of them can have several clients"),
            "{}",
            wanting.lines()
        );
    }

    #[test]
    fn a_pending_connection_costs_what_its_head_may() {
        let of = |size: &str| {
            let toml = format!(
                "[source]\nurl = \"memory:\"\n[limits]\npending = 10\nheader_bytes = \"{size}\""
            );
            let budget = budget(&toml, 1000);
            (budget.each_pending_bytes() >> 10, budget.pending_bytes() >> 10, budget.lines())
        };
        let (each, all, lines) = of("8KiB");
        assert_eq!((each, all), (20, 200));
        assert!(lines.contains("20 KiB each, most of it twice limits.header_bytes"), "{lines}");
        assert_eq!(of("32KiB").0, 68);
    }

    #[test]
    fn readers_have_so_many_connections_and_share_them() {
        let of = |source: &str, readers: usize| {
            let toml = format!("[source]\n{source}\n[limits]\nreaders = {readers}");
            let budget = budget(&toml, 100_000);
            let all = (budget.redis_connections(), budget.connections_to_each());
            (all, budget.keys_per_connection(), budget.lines())
        };
        let server = "url = \"redis://a\"";
        let (others, map) = (SHARED_LINKS as u64, SLOTS_CONNECTIONS);
        let (all, keys, lines) = of(server, 10_000);
        assert_eq!((all, keys), ((64 + others, 64 + others), 157));
        assert!(lines.contains("64 for readers (source.connections)"), "{lines}");
        assert!(lines.contains("one XREAD asks for all of them"), "{lines}");
        let (all, keys, lines) = of(server, 50);
        assert_eq!((all, keys), ((50 + others, 50 + others), 1));
        assert!(!lines.contains("keys per connection"), "{lines}");
        let (all, keys, lines) = of(&format!("{server}\nconnections = 0"), 10_000);
        assert_eq!((all, keys), ((10_000 + others, 10_000 + others), 1));
        assert!(lines.contains("one for each reader"), "{lines}");
        let (all, keys, lines) = of("url = \"redis-cluster://a,b,c\"", 10_000);
        assert_eq!((all, keys), ((3 * (64 + others) + map, 64 + others + map), 53));
        assert!(lines.contains("wait for their turn"), "{lines}");
    }

    #[test]
    fn a_proxy_needs_an_address_for_every_28_000_clients() {
        let with = |listen: &str| {
            format!(
                "[source]\nurl = \"memory:\"\n[server]\nlisten = [{listen}]\n[limits]\nclients = 60000"
            )
        };
        let few = budget(&with("\"127.0.0.1:1\", \"127.0.0.1:2\""), 1 << 20);
        assert_eq!(few.upstream_addresses(), 3);
        assert!(few.upstream_note().contains("list more in server.listen"));
        for enough in ["\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"", "\"unix:/tmp/x\""] {
            let note = budget(&with(enough), 1 << 20).upstream_note();
            assert!(!note.contains("list more"), "{note}");
        }
    }

    #[test]
    fn linux_doubles_the_send_buffer() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let bytes = 100 << 10;
        socket.set_send_buffer_size(bytes).expect("it is set");
        let kept = socket.send_buffer_size().expect("it is told");
        assert_eq!(kernel_send_buffer(bytes), kept as u64);
    }
}
