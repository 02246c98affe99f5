//! What is refused, and when. Every count is a permit that gives itself back on drop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::config;

mod pending;
mod shares;
#[cfg(test)]
mod tests;

pub use pending::{EvictionHandle, Pending, PendingEnd, PendingSlot};
pub use shares::Share;

use shares::{Count, Shares};

/// Descriptors that are neither clients nor readers: listeners, logs, the runtime.
const OWN_DESCRIPTORS: usize = 64;
/// Fewer clients than this are no gateway.
const MIN_CLIENTS: usize = 16;
/// However many clients there are, one in so many descriptors is left to who is no stream yet.
const PENDING_PART: usize = 16;

/// Where nothing is said there are no more of those than this, for each may cost 20 KB.
const MAX_PENDING: usize = 1 << 14;

/// Counts of what is limited.
pub struct Limits {
    bounds: ArcSwap<Bounds>,
    /// Open files that the process may have.
    descriptors: usize,
    clients: AtomicUsize,
    /// Notified when the last client has left.
    empty: Notify,
    by_address: Shares<IpAddr>,
    by_principal: Shares<Arc<str>>,
    arrivals: Mutex<Arrivals>,
}

/// How much there may be of what is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    max_clients: usize,
    /// Connections of clients and of those that are no streams.
    max_connections: usize,
    config: config::Limits,
}

/// The clients that came in one second.
struct Arrivals {
    since: Instant,
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// ClientIdentity limits count, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The real client's address.
    pub address: Option<IpAddr>,
    /// ClientIdentity its token names.
    pub principal: Option<Arc<str>>,
}

/// One client's place; given back on drop.
pub struct Permit {
    limits: Arc<Limits>,
    /// Boxed, for most gateways do not count by address.
    share: Option<Box<Share>>,
}

/// Which limit was reached; a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitExceeded(pub &'static str);

/// The descriptors leave room for fewer clients than make a gateway.
#[derive(Debug, thiserror::Error)]
#[error(
    "{descriptors} descriptors leave room for {clients} clients; raise the limit (LimitNOFILE=, ulimit -n) or lower limits.readers"
)]
pub struct TooFewDescriptors {
    descriptors: usize,
    clients: usize,
}

/// How open files are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// For what is neither clients nor readers.
    pub own: usize,
    /// For readers and their shards, as long as all connections are there.
    pub readers: usize,
    /// For connections: streams, and those that are none yet.
    pub connections: usize,
}

impl Division {
    /// Of so many.
    pub fn of(config: &config::Limits, descriptors: usize) -> Self {
        // A stream key takes its reader's connection and its shard's epoll.
        let readers = config.readers.saturating_mul(2).min(descriptors / 4);
        let connections = descriptors.saturating_sub(OWN_DESCRIPTORS + readers);
        Self { own: OWN_DESCRIPTORS, readers, connections }
    }
}

impl Bounds {
    /// With `descriptors` open files allowed to the process.
    pub fn new(config: &config::Limits, descriptors: usize) -> Result<Self, TooFewDescriptors> {
        let Division { connections: max_connections, .. } = Division::of(config, descriptors);
        let room = max_connections - max_connections / PENDING_PART;
        if room < MIN_CLIENTS {
            return Err(TooFewDescriptors { descriptors, clients: room });
        }
        let max_clients = if config.clients == 0 { room } else { config.clients.min(room) };
        Ok(Self { max_clients, max_connections, config: config.clone() })
    }

    /// Streams in all.
    pub fn max_clients(&self) -> usize {
        self.max_clients
    }

    /// Connections that may be no streams beside so many streams.
    pub fn max_pending(&self, clients: usize) -> usize {
        let left = self.max_connections.saturating_sub(clients);
        let most = if self.config.pending == 0 { MAX_PENDING } else { self.config.pending };
        most.min(left)
    }

    /// Streams of one stream key; zero: no limit.
    pub fn max_clients_per_key(&self) -> usize {
        self.config.clients_per_key
    }

    /// Stream keys with a reader.
    pub fn max_readers(&self) -> usize {
        self.config.readers
    }
}

impl Limits {
    /// With `descriptors` open files allowed to the process.
    pub fn new(
        config: &config::Limits,
        descriptors: usize,
    ) -> Result<Arc<Self>, TooFewDescriptors> {
        Ok(Arc::new(Self {
            bounds: ArcSwap::from_pointee(Bounds::new(config, descriptors)?),
            descriptors,
            clients: AtomicUsize::new(0),
            empty: Notify::new(),
            by_address: Shares::default(),
            by_principal: Shares::default(),
            arrivals: Mutex::new(Arrivals::now()),
        }))
    }

    /// What these limits come to here.
    pub fn bounds_of(&self, config: &config::Limits) -> Result<Bounds, TooFewDescriptors> {
        Bounds::new(config, self.descriptors)
    }

    /// The bounds that hold now.
    pub fn bounds(&self) -> Arc<Bounds> {
        self.bounds.load_full()
    }

    /// Others hold from now on. Whoever is here stays, also where there may be fewer.
    pub fn set_bounds(&self, bounds: Arc<Bounds>) {
        self.bounds.store(bounds);
    }

    /// Streams open now.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Returns as soon as no stream is open.
    pub async fn all_left(&self) {
        let mut notified = std::pin::pin!(self.empty.notified());
        loop {
            // Registered before the look, so that no permit is given back between the two unnoticed.
            notified.as_mut().enable();
            if self.clients() == 0 {
                return;
            }
            notified.as_mut().await;
            notified.set(self.empty.notified());
        }
    }

    /// Connections that may be no streams now: what streams leave of the descriptors.
    pub fn max_pending(&self) -> usize {
        self.bounds.load().max_pending(self.clients())
    }

    /// A place for one more client within these bounds.
    pub fn admit(
        self: &Arc<Self>,
        bounds: &Bounds,
        identity: &ClientIdentity,
    ) -> Result<Permit, LimitExceeded> {
        self.count_arrival(&bounds.config, identity.address)?;
        let room = |clients| (clients < bounds.max_clients).then_some(clients + 1);
        self.clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map_err(|_| LimitExceeded("clients"))?;
        let mut permit = Permit { limits: self.clone(), share: None };
        permit.share = self.share(bounds, Count::Clients, identity)?.map(Box::new);
        Ok(permit)
    }

    /// A place for one more stream key that somebody asks for; `None`: it is not counted by whom.
    pub fn admit_reader(
        self: &Arc<Self>,
        bounds: &Bounds,
        identity: &ClientIdentity,
    ) -> Result<Option<Share>, LimitExceeded> {
        self.share(bounds, Count::Readers, identity)
    }

    /// What `whom` may hold one more of; `None`: nobody counts it.
    fn share(
        self: &Arc<Self>,
        Bounds { config, .. }: &Bounds,
        count: Count,
        identity: &ClientIdentity,
    ) -> Result<Option<Share>, LimitExceeded> {
        let (per_ip, per_principal) = match count {
            Count::Clients => (config.clients_per_ip, config.clients_per_principal),
            Count::Readers => (config.readers_per_ip, config.readers_per_principal),
        };
        let address = identity.address.map(network).filter(|_| per_ip > 0);
        let principal = identity.principal.clone().filter(|_| per_principal > 0);
        if address.is_none() && principal.is_none() {
            return Ok(None);
        }
        let mut share = Share::of_nobody(self, count);
        if let Some(address) = address {
            self.by_address.take(&address, count, per_ip).ok_or(count.per_ip())?;
            share.address = Some(address);
        }
        if let Some(principal) = principal {
            self.by_principal
                .take(&principal, count, per_principal)
                .ok_or(count.per_principal())?;
            share.principal = Some(principal);
        }
        Ok(Some(share))
    }

    /// Who comes too often takes nothing from what all may have together.
    fn count_arrival(
        &self,
        limits: &config::Limits,
        address: Option<IpAddr>,
    ) -> Result<(), LimitExceeded> {
        let config::Limits { new_clients_per_second, new_clients_per_second_per_ip, .. } = *limits;
        if new_clients_per_second == 0 && new_clients_per_second_per_ip == 0 {
            return Ok(());
        }
        let mut arrivals = self.arrivals.lock().expect("no holder of the lock panics");
        if arrivals.since.elapsed().as_secs() >= 1 {
            *arrivals = Arrivals::now();
        }
        let arrivals = &mut *arrivals;
        let full = |count: usize, limit: usize| limit > 0 && count >= limit;
        let address = address.map(network).filter(|_| new_clients_per_second_per_ip > 0);
        let of_address =
            address.and_then(|address| arrivals.by_address.get(&address)).copied().unwrap_or(0);
        if full(of_address, new_clients_per_second_per_ip) {
            return Err(LimitExceeded("new_clients_per_second_per_ip"));
        }
        if full(arrivals.all, new_clients_per_second) {
            return Err(LimitExceeded("new_clients_per_second"));
        }
        arrivals.all += 1;
        if let Some(address) = address {
            arrivals.by_address.insert(address, of_address + 1);
        }
        Ok(())
    }
}

impl Arrivals {
    fn now() -> Self {
        Self { since: Instant::now(), all: 0, by_address: HashMap::new() }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.limits.clients.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.limits.empty.notify_waiters();
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
