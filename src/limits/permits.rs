//! Admits clients and readers within the bounds, and counts them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::arrivals::Arrivals;
use super::bounds::{Bounds, TooFewDescriptors};
use super::identity::{ClientIdentity, LimitExceeded, network};
use super::rates::Rates;
use super::shares::{Count, Share, Shares};
use crate::config::{self, Config};

/// What all bodies together may take that are being read, or whose entries are on their way.
const BODIES_KIB: usize = 64 << 10;

/// Bodies at a time, and of one principal, or of an address where there is none.
const BODIES: usize = 4096;
const BODIES_PER_HOLDER: usize = 256;

/// Counts of what is limited.
pub struct Limits {
    bounds: ArcSwap<Bounds>,
    /// Open files that the process may have.
    descriptors: usize,
    clients: AtomicUsize,
    /// Notified when the last client has left.
    empty: Notify,
    pub(super) shares: Arc<Shares>,
    pub(super) arrivals: Mutex<Arrivals>,
    /// Entries that are published.
    pub rates: Rates,
    bodies: Arc<Semaphore>,
    /// KiB of bodies that are being read.
    pub bodies_kib: Semaphore,
}

/// One client's permit; given back on drop.
pub struct Permit {
    limits: Arc<Limits>,
    /// Boxed, for most gateways do not count by address.
    share: Option<Box<Share>>,
}

/// A body's permit; given back on drop.
pub struct BodyPermit {
    _one_of_all: OwnedSemaphorePermit,
    _share: Share,
}

impl Limits {
    /// With `descriptors` open files allowed to the process.
    pub fn new(config: &Config, descriptors: usize) -> Result<Arc<Self>, TooFewDescriptors> {
        Ok(Arc::new(Self {
            bounds: ArcSwap::from_pointee(Bounds::new(config, descriptors)?),
            descriptors,
            clients: AtomicUsize::new(0),
            empty: Notify::new(),
            shares: Arc::default(),
            arrivals: Mutex::new(Arrivals::now()),
            rates: Rates::default(),
            bodies: Arc::new(Semaphore::new(BODIES)),
            bodies_kib: Semaphore::new(BODIES_KIB),
        }))
    }

    /// The bounds that this configuration has with our open files.
    pub fn bounds_of(&self, config: &Config) -> Result<Bounds, TooFewDescriptors> {
        Bounds::new(config, self.descriptors)
    }

    /// The present bounds.
    pub fn bounds(&self) -> Arc<Bounds> {
        self.bounds.load_full()
    }

    /// Replaces the bounds. Clients that are here stay, also where fewer are allowed from now on.
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

    /// Pending connections that there may be now: what streams leave of the descriptors.
    pub fn max_pending(&self) -> usize {
        self.bounds.load().max_pending(self.clients())
    }

    /// A permit for one more client within these bounds.
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

    /// A permit to read one more body, and to add what it says.
    pub fn admit_body(&self, identity: &ClientIdentity) -> Result<BodyPermit, LimitExceeded> {
        let mut share = Share::empty(&self.shares, Count::Bodies);
        match (&identity.principal, identity.address) {
            (Some(principal), _) => share.add_principal(principal.clone(), BODIES_PER_HOLDER)?,
            (None, Some(address)) => share.add_address(network(address), BODIES_PER_HOLDER)?,
            (None, None) => {}
        }
        let one_of_all = self.bodies.clone().try_acquire_owned();
        let one_of_all = one_of_all.map_err(|_| LimitExceeded("bodies"))?;
        Ok(BodyPermit { _one_of_all: one_of_all, _share: share })
    }

    /// A permit for one more reader; `None`: this client's readers are not counted.
    pub fn admit_reader(
        &self,
        bounds: &Bounds,
        identity: &ClientIdentity,
    ) -> Result<Option<Share>, LimitExceeded> {
        self.share(bounds, Count::Readers, identity)
    }

    /// One more of what this client may hold; `None`: there is no limit for it.
    fn share(
        &self,
        Bounds { config, .. }: &Bounds,
        count: Count,
        identity: &ClientIdentity,
    ) -> Result<Option<Share>, LimitExceeded> {
        let (per_ip, per_principal) = match count {
            Count::Clients => (config.clients_per_ip, config.clients_per_principal),
            Count::Readers => (config.readers_per_ip, config.readers_per_principal),
            Count::Bodies => (BODIES_PER_HOLDER, BODIES_PER_HOLDER),
        };
        let address = identity.address.map(network).filter(|_| per_ip > 0);
        let principal = identity.principal.clone().filter(|_| per_principal > 0);
        if address.is_none() && principal.is_none() {
            return Ok(None);
        }
        let mut share = Share::empty(&self.shares, count);
        if let Some(address) = address {
            share.add_address(address, per_ip)?;
        }
        if let Some(principal) = principal {
            share.add_principal(principal, per_principal)?;
        }
        Ok(Some(share))
    }

    fn count_arrival(
        &self,
        limits: &config::Limits,
        address: Option<IpAddr>,
    ) -> Result<(), LimitExceeded> {
        if limits.new_clients_per_second == 0 && limits.new_clients_per_second_per_ip == 0 {
            return Ok(());
        }
        let mut arrivals = self.arrivals.lock().expect("no holder of the lock panics");
        arrivals.count(limits, address.map(network))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.limits.clients.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.limits.empty.notify_waiters();
        }
    }
}
