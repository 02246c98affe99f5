//! What is refused, and when. Every count is a permit that gives itself back on drop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::config;

/// Descriptors that are neither clients nor readers: listeners, logs, the runtime.
const OWN_DESCRIPTORS: usize = 64;
/// Fewer clients than this are no gateway.
const MIN_CLIENTS: usize = 16;

/// Counts of what is limited.
pub struct Limits {
    max_clients: usize,
    config: config::Limits,
    clients: AtomicUsize,
    /// Clients and stream keys by address; held for one lookup at a time.
    by_address: Mutex<HashMap<IpAddr, Held>>,
    /// The second that is counted, and the clients that came in it.
    arrivals: Mutex<(Instant, usize)>,
}

#[derive(Default)]
struct Held {
    clients: usize,
    readers: usize,
}

/// One client's place; given back on drop.
pub struct Permit {
    limits: Arc<Limits>,
    /// Boxed, for most gateways do not count by address.
    address: Option<Box<IpAddr>>,
}

/// One address's share of the readers; given back on drop.
pub struct ReaderPermit {
    limits: Arc<Limits>,
    address: Option<IpAddr>,
}

/// Which limit was reached; a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached(pub &'static str);

/// The descriptors leave room for fewer clients than make a gateway.
#[derive(Debug, thiserror::Error)]
#[error(
    "{descriptors} descriptors leave room for {clients} clients; raise the limit (LimitNOFILE=, ulimit -n) or lower limits.readers"
)]
pub struct TooFewDescriptors {
    descriptors: usize,
    clients: usize,
}

impl Limits {
    /// With `descriptors` open files allowed to the process.
    pub fn new(
        config: &config::Limits,
        descriptors: usize,
    ) -> Result<Arc<Self>, TooFewDescriptors> {
        // A stream key takes its reader's connection and its pack's epoll.
        let readers_share = config.readers.saturating_mul(2).min(descriptors / 4);
        let room = descriptors.saturating_sub(OWN_DESCRIPTORS + readers_share);
        let max_clients = if config.clients == 0 { room } else { config.clients.min(room) };
        if room < MIN_CLIENTS {
            return Err(TooFewDescriptors { descriptors, clients: room });
        }
        Ok(Arc::new(Self {
            max_clients,
            config: config.clone(),
            clients: AtomicUsize::new(0),
            by_address: Mutex::default(),
            arrivals: Mutex::new((Instant::now(), 0)),
        }))
    }

    /// Streams in all.
    pub fn max_clients(&self) -> usize {
        self.max_clients
    }

    /// Streams open now.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// A place for one more client, from `address` where it has one.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Permit, Reached> {
        self.count_arrival()?;
        let room = |clients| (clients < self.max_clients).then_some(clients + 1);
        self.clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map_err(|_| Reached("clients"))?;
        let mut permit = Permit { limits: self.clone(), address: None };
        if let Some(address) = address.map(network).filter(|_| self.config.clients_per_ip > 0) {
            let mut held = self.by_address();
            let held = held.entry(address).or_default();
            if held.clients >= self.config.clients_per_ip {
                return Err(Reached("clients_per_ip"));
            }
            held.clients += 1;
            permit.address = Some(Box::new(address));
        }
        Ok(permit)
    }

    /// A place for one more stream key that `address` asks for.
    pub fn admit_reader(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<ReaderPermit, Reached> {
        let address = address.map(network).filter(|_| self.config.readers_per_ip > 0);
        if let Some(address) = address {
            let mut held = self.by_address();
            let held = held.entry(address).or_default();
            if held.readers >= self.config.readers_per_ip {
                return Err(Reached("readers_per_ip"));
            }
            held.readers += 1;
        }
        Ok(ReaderPermit { limits: self.clone(), address })
    }

    fn count_arrival(&self) -> Result<(), Reached> {
        if self.config.new_clients_per_second == 0 {
            return Ok(());
        }
        let mut arrivals = self.arrivals.lock().expect("no holder of the lock panics");
        if arrivals.0.elapsed().as_secs() >= 1 {
            *arrivals = (Instant::now(), 0);
        }
        if arrivals.1 >= self.config.new_clients_per_second {
            return Err(Reached("new_clients_per_second"));
        }
        arrivals.1 += 1;
        Ok(())
    }

    fn by_address(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Held>> {
        self.by_address.lock().expect("no holder of the lock panics")
    }

    fn give_back(&self, address: IpAddr, what: impl FnOnce(&mut Held)) {
        let mut all = self.by_address();
        let Some(held) = all.get_mut(&address) else { return };
        what(held);
        if held.clients == 0 && held.readers == 0 {
            all.remove(&address);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            self.limits.give_back(**address, |held| held.clients -= 1);
        }
        self.limits.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ReaderPermit {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.limits.give_back(address, |held| held.readers -= 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut config::Limits)) -> Arc<Limits> {
        let text = "[source]\nurl = \"memory:\"\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"";
        let mut config = config::parse(text, "test", &[], false).unwrap().config.limits;
        change(&mut config);
        Limits::new(&config, 1000).unwrap()
    }

    #[test]
    fn descriptors_bound_the_clients() {
        assert_eq!(limits(|_| {}).max_clients(), 1000 - 64 - 250);
        assert_eq!(limits(|config| config.readers = 10).max_clients(), 1000 - 64 - 20);
        assert_eq!(limits(|config| config.clients = 5).max_clients(), 5);
    }

    #[test]
    fn an_ipv6_customer_is_one_address_and_a_mapped_ipv4_one_its_own() {
        let limits = limits(|config| config.clients_per_ip = 1);
        let admit = |address: &str| limits.admit(Some(address.parse().unwrap()));
        let held = admit("2001:db8::1").unwrap();
        assert_eq!(admit("2001:db8::2").err(), Some(Reached("clients_per_ip")));
        assert!(admit("2001:db8:0:1::1").is_ok());
        let _v4 = admit("192.0.2.1").unwrap();
        assert!(admit("::ffff:192.0.2.1").is_err());
        drop(held);
        assert!(admit("2001:db8::2").is_ok());
        assert_eq!(limits.clients(), 1);
    }

    #[test]
    fn too_few_descriptors_are_told() {
        let config = limits(|_| {}).config.clone();
        assert!(Limits::new(&config, 80).is_err());
    }
}
