//! The text of `ssegate check`: what the configuration does, then a table of the resources it may need.

use std::fmt::Write as _;

use super::{
    BEHIND_CLIENT_BYTES, Budget, EPHEMERAL_PORTS, KERNEL_CONNECTION_BYTES, LIVE_CLIENT_BYTES,
    PROXY_SPARE, READER_BYTES, READER_CONNECTION_BYTES, STALLED_CLIENT_BYTES, kernel_send_buffer,
};
use crate::config::{Access, Config, ConfigFile, Listen, SourceLocation};
use crate::limits::Division;
use crate::source::SHARED_LINKS;

/// A line: the resource, its amount, and what it follows from.
type Row = (&'static str, String, String);

impl Budget {
    /// What the configuration of `file` does, and the resources it may need.
    pub fn explain(&self, file: &ConfigFile) -> String {
        let Config { server, admin, source, routes, .. } = &self.config;
        let count = if routes.len() == 1 { "route" } else { "routes" };
        let guarded = routes.iter().filter(|route| route.access != Access::Public).count();
        let listen: Vec<_> = server.listen.iter().map(ToString::to_string).collect();
        let operator = admin.listen.as_ref().map_or("nowhere".to_owned(), ToString::to_string);
        format!(
            "{file}: no faults\n\nServes {} {count} of {} ({guarded} with a token) to clients at {}, and to the operator at {operator}.\n\n{}",
            routes.len(),
            source.location,
            listen.join(", "),
            self.lines()
        )
    }

    pub(super) fn lines(&self) -> String {
        let title = format!(
            "Resources with {} open files (ulimit -n, or a unit's LimitNOFILE=):\n",
            grouped(self.open_files as u64)
        );
        let parts =
            [self.client_rows(), self.process_rows(), self.kernel_rows(), self.neighbour_rows()];
        let width =
            |column: fn(&Row) -> usize| parts.iter().flatten().map(column).max().unwrap_or(0);
        let (names, amounts) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let mut text = title;
        for part in &parts {
            text.push('\n');
            for (name, amount, note) in part {
                writeln!(text, "  {name:names$}  {amount:>amounts$}  {note}")
                    .expect("writing to a String succeeds");
            }
        }
        text
    }

    fn client_rows(&self) -> Vec<Row> {
        let bound = match self.clients_bound_by() {
            "limits.clients" => "limited by limits.clients".to_owned(),
            _ if self.config.limits.clients == 0 => "limited by the open files".to_owned(),
            _ => format!(
                "limited by the open files; limits.clients asks for {}",
                grouped(self.config.limits.clients as u64)
            ),
        };
        let few = self.division.too_few_connections();
        // A key may want two epolls, one of them for clients that get only some entries.
        let shared =
            self.division.too_few_epolls().filter(|epolls| *epolls < self.config.limits.readers);
        let keys = match (few, shared) {
            (Some(few), _) => format!(
                "limits.readers; with all clients connected, no more than {} connections to Redis fit",
                grouped(few as u64)
            ),
            (None, Some(shared)) => format!(
                "limits.readers; with all clients connected, no more than {} of them can have several clients each",
                grouped(shared as u64)
            ),
            (None, None) => "limits.readers".to_owned(),
        };
        let Division { own, readers, connections, .. } = self.division;
        let epolls = self.division.epolls();
        let [own, of_readers, epolls, connections] =
            [own, readers - epolls, epolls, connections].map(|n| grouped(n as u64));
        vec![
            ("clients", grouped(self.clients()), bound),
            ("stream keys", grouped(self.readers()), keys),
            (
                "other connections",
                grouped(self.bounds.max_pending(0) as u64),
                "not yet streams; with all clients connected, what these leave".into(),
            ),
            (
                "open files",
                grouped(self.open_files as u64),
                format!(
                    "{own} for the gateway, {of_readers} for readers' connections to Redis, {epolls} for stream keys with several clients (one each), {connections} for connections of clients"
                ),
            ),
        ]
    }

    fn process_rows(&self) -> Vec<Row> {
        let clients = grouped(self.clients());
        let max_entry = size(self.config.source.max_entry_bytes as u64);
        let live = self.each_client(LIVE_CLIENT_BYTES);
        let behind = self.each_client(BEHIND_CLIENT_BYTES);
        vec![
            ("rings", size(self.rings_bytes()), "ring.total_bytes".into()),
            (
                "readers",
                size(self.readers_bytes()),
                format!(
                    "{} each, while its stream key is quiet, and {} for each connection to Redis",
                    size(READER_BYTES),
                    size(READER_CONNECTION_BYTES)
                ),
            ),
            (
                "largest entries",
                size(self.largest_entries_bytes()),
                format!("one of {max_entry} (source.max_entry) for each stream key"),
            ),
            (
                "replies",
                size(self.replies_bytes()),
                "answers of Redis in flight, and pages for replay".into(),
            ),
            (
                "other connections",
                size(self.pending_bytes()),
                format!(
                    "{} each, most of it twice limits.header_bytes",
                    size(self.each_pending_bytes())
                ),
            ),
            (
                "clients",
                size(self.each_client(STALLED_CLIENT_BYTES)),
                format!(
                    "if all {clients} stall over HTTP/2; {} if all are behind over HTTP/1, {} if all are live",
                    size(behind),
                    size(live)
                ),
            ),
            (
                "process at most",
                size(self.process_bytes()),
                "all of the above; a unit's MemoryMax= also counts the kernel's share".into(),
            ),
        ]
    }

    fn kernel_rows(&self) -> Vec<Row> {
        let each = size(kernel_send_buffer(self.config.limits.send_buffer_bytes));
        let live = size(self.each_client(KERNEL_CONNECTION_BYTES));
        vec![(
            "kernel at most",
            size(self.kernel_bytes()),
            format!(
                "if all clients stall, {each} each (limits.send_buffer, doubled by Linux); {live} if all are live"
            ),
        )]
    }

    fn neighbour_rows(&self) -> Vec<Row> {
        let mut rows = vec![(
            "Redis connections",
            grouped(self.redis_connections()),
            self.redis_connections_note(),
        )];
        rows.extend(self.shared_reads_row());
        rows.extend(self.proxy_rows());
        rows
    }

    fn redis_connections_note(&self) -> String {
        let to_each = self.config.source.reader_connections_to_each(self.config.limits.readers);
        let readers = if self.keys_per_connection() > 1 {
            format!("{} for readers (source.connections)", grouped(to_each as u64))
        } else {
            "one for each reader".to_owned()
        };
        match self.config.source.location {
            SourceLocation::Memory => "the source is in this process".to_owned(),
            SourceLocation::Cluster { .. } => format!(
                "{readers} and {SHARED_LINKS} others to each node; nodes that source.url does not name add theirs"
            ),
            SourceLocation::Server { .. } | SourceLocation::Sentinel { .. } => {
                format!("{readers}, and others; maxclients of Redis has to be higher")
            }
        }
    }

    /// What sharing a connection comes to, where readers do.
    fn shared_reads_row(&self) -> Option<Row> {
        let keys = self.keys_per_connection();
        let note = match self.config.source.location {
            _ if keys <= 1 => return None,
            SourceLocation::Cluster { .. } => {
                "if all are read: those of one slot are read together, and the others wait for their turn, so their entries come later"
            }
            _ => "if all are read: one XREAD asks for all of them; busy ones keep their own",
        };
        Some(("keys per connection", grouped(keys), note.to_owned()))
    }

    fn proxy_rows(&self) -> Vec<Row> {
        let proxy = self.proxy_connections();
        vec![
            (
                "nginx connections",
                grouped(proxy),
                format!(
                    "two for each client: worker_connections of all worker_processes, which share unevenly; worker_rlimit_nofile {}",
                    grouped(proxy.saturating_add(PROXY_SPARE))
                ),
            ),
            ("upstream addresses", grouped(self.upstream_addresses()), self.upstream_note()),
        ]
    }

    pub(super) fn upstream_note(&self) -> String {
        let listen = &self.config.server.listen;
        let is_tcp = |listen: &&Listen| matches!(listen, Listen::Tcp(_));
        let ports = grouped(EPHEMERAL_PORTS);
        let tcp = listen.iter().filter(is_tcp).count() as u64;
        let has_enough = tcp >= self.upstream_addresses() || tcp < listen.len() as u64;
        let advice = if has_enough {
            ""
        } else {
            ": list more in server.listen, or \"unix:/path\", which needs no ports"
        };
        format!(
            "over TCP, a proxy has {ports} ports for each address; server.listen has {tcp}{advice}"
        )
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for (index, digit) in digits[first..].chars().enumerate() {
        if index % 3 == 0 && !text.is_empty() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest unit that fits.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().expect("there are some");
    for larger in units {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    let digits = usize::from(amount < 10.0 && amount.fract() > 0.05);
    format!("{amount:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::budget;
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            [0, 999, 1000, 28_232, 1_048_576].map(grouped),
            ["0", "999", "1,000", "28,232", "1,048,576"]
        );
        assert_eq!(
            [512, 1 << 20, 64 << 20, 3 << 29, 40 << 40].map(size),
            ["0.5 KiB", "1 MiB", "64 MiB", "1.5 GiB", "40 TiB"]
        );
        // Nothing overflows without limits.
        assert!(budget("[source]\nurl = \"memory:\"", usize::MAX).lines().contains("clients"));
    }
}
