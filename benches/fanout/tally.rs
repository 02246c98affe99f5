//! What clients have received: each stream is cut into lines and its entries are counted. It has
//! to be cheap: under overload the clients share the cores with the server that is measured.

use serde_json::json;

use crate::entry;
use crate::latency::Histogram;

/// An entry that takes longer is late.
const LATE_NS: u64 = 1_000_000_000;

/// One client's position in its stream.
#[derive(Default)]
pub(crate) struct Progress {
    /// Number of its stream key.
    pub(crate) key: usize,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    has_head: bool,
    /// The number that the next entry must have.
    pub(crate) next: u64,
    /// Where several streams are on its connection: each with the same, and which one the event is of.
    several: Vec<(u64, u64)>,
    current: usize,
}

impl Progress {
    /// One that is to get entry `next` first.
    pub(crate) fn new(key: usize, next: u64) -> Self {
        Self { key, next, ..Self::default() }
    }

    /// One that is to get entry `next` of each of these streams first.
    pub(crate) fn of_several(streams: &[u64], next: u64) -> Self {
        let several = streams.iter().map(|stream| (*stream, next)).collect();
        Self { next, several, ..Self::default() }
    }

    /// How many entries before `end` it has not got.
    pub(crate) fn never_came(&self, end: u64) -> u64 {
        if self.several.is_empty() {
            return end.saturating_sub(self.next);
        }
        self.several.iter().map(|(_, next)| end.saturating_sub(*next)).sum()
    }

    /// The event is of this stream.
    fn turn_to(&mut self, event: &[u8]) {
        let stream = entry::leading_number(event).map(|(stream, _)| stream);
        let known = self.several.iter().position(|(known, _)| Some(*known) == stream);
        let Some(known) = known else { return };
        self.several[self.current].1 = self.next;
        (self.current, self.next) = (known, self.several[known].1);
    }
}

/// What many clients together have seen.
pub(crate) struct Tally {
    pub(crate) heads: u64,
    pub(crate) delivered: u64,
    missing: u64,
    doubled: u64,
    gaps: u64,
    closed: u64,
    pub(crate) first_fault: Option<String>,
    /// Clients that are behind may be spared entries.
    pub(crate) may_be_spared: bool,
    first_sent_ns: u64,
    last_received_ns: u64,
    /// By stream key, so that one that starves shows.
    latency: Vec<Histogram>,
}

impl Tally {
    pub(crate) fn new(keys: usize) -> Self {
        let latency = std::iter::repeat_with(Histogram::default).take(keys).collect();
        Self {
            heads: 0,
            delivered: 0,
            missing: 0,
            doubled: 0,
            gaps: 0,
            closed: 0,
            first_fault: None,
            may_be_spared: false,
            first_sent_ns: u64::MAX,
            last_received_ns: 0,
            latency,
        }
    }

    /// Cuts what one client received into lines. Chunk frames are lines too, which mean nothing:
    /// that no chunk ends within a line is assumed, and an entry that is cut counts as missing.
    pub(crate) fn take(&mut self, client: &mut Progress, mut bytes: &[u8]) {
        let now_ns = entry::now_ns();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if client.partial.is_empty() {
                self.line(client, &bytes[..end], now_ns);
            } else {
                let mut line = std::mem::take(&mut client.partial);
                line.extend_from_slice(&bytes[..end]);
                self.line(client, &line, now_ns);
            }
            bytes = &bytes[end + 1..];
        }
        client.partial.extend_from_slice(bytes);
    }

    fn line(&mut self, client: &mut Progress, line: &[u8], now_ns: u64) {
        if client.has_head {
            if let Some(event) = line.strip_prefix(b"event: ")
                && !client.several.is_empty()
            {
                client.turn_to(event);
            }
            let Some(data) = line.strip_prefix(b"data: ") else { return };
            match entry::decode(data) {
                Some((number, sent_ns)) => self.entry(client, number, sent_ns, now_ns),
                None => self.control(&String::from_utf8_lossy(data)),
            }
        } else if line == b"\r" {
            self.head(client);
        } else if line.starts_with(b"HTTP/") && !line.starts_with(b"HTTP/1.1 200 ") {
            self.fault(|| String::from_utf8_lossy(line).trim().to_owned());
        }
    }

    /// A client has its response head.
    pub(crate) fn head(&mut self, client: &mut Progress) {
        client.has_head = true;
        self.heads += 1;
    }

    fn entry(&mut self, client: &mut Progress, number: u64, sent_ns: u64, now_ns: u64) {
        let due = client.next;
        if number < due {
            self.doubled += 1;
            return self.fault(|| format!("entry {number} again, or late: {due} is due"));
        }
        if number > due && !self.may_be_spared {
            self.missing += number - due;
            self.fault(|| format!("entry {number} came where {due} is due"));
        }
        client.next = number + 1;
        if let Some((_, next)) = client.several.get_mut(client.current) {
            *next = number + 1;
        }
        self.delivered += 1;
        self.first_sent_ns = self.first_sent_ns.min(sent_ns);
        self.last_received_ns = now_ns;
        self.latency[client.key].record(now_ns.saturating_sub(sent_ns));
    }

    fn control(&mut self, data: &str) {
        let is_spared = self.may_be_spared && data.contains(r#""type":"conflated""#);
        if !is_spared && !data.contains(r#""type":"live""#) {
            self.gaps += 1;
            self.fault(|| format!("a stream said {data}"));
        }
    }

    /// A stream that ended, which none may.
    pub(crate) fn ended(&mut self, how: impl FnOnce() -> String) {
        self.closed += 1;
        self.fault(how);
    }

    /// Entries that a client has not received at all.
    pub(crate) fn never_came(&mut self, entries: u64) {
        self.missing += entries;
    }

    fn fault(&mut self, describe: impl FnOnce() -> String) {
        self.first_fault.get_or_insert_with(describe);
    }

    /// Adds what other clients have seen.
    pub(crate) fn add(&mut self, other: Self) {
        self.heads += other.heads;
        self.delivered += other.delivered;
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.gaps += other.gaps;
        self.closed += other.closed;
        self.first_fault = self.first_fault.take().or(other.first_fault);
        self.first_sent_ns = self.first_sent_ns.min(other.first_sent_ns);
        self.last_received_ns = self.last_received_ns.max(other.last_received_ns);
        for (ours, theirs) in self.latency.iter_mut().zip(&other.latency) {
            ours.add(theirs);
        }
    }

    pub(crate) fn report(&self) -> serde_json::Value {
        let mut latency = Histogram::default();
        self.latency.iter().for_each(|of_key| latency.add(of_key));
        let worst = self.latency.iter().map(|of_key| of_key.quantile_ms(0.99));
        json!({
            "delivered": self.delivered,
            "missing": self.missing,
            "doubled": self.doubled,
            "gaps": self.gaps,
            "closed": self.closed,
            "first_fault": self.first_fault,
            "seconds": self.last_received_ns.saturating_sub(self.first_sent_ns) as f64 / 1e9,
            "late": latency.longer_than(LATE_NS),
            "p50_ms": latency.quantile_ms(0.5),
            "p99_ms": latency.quantile_ms(0.99),
            "p999_ms": latency.quantile_ms(0.999),
            "worst_key_p99_ms": worst.fold(0.0, f64::max),
        })
    }
}
