//! How many clients come in a second, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::identity::LimitExceeded;
use crate::config;

/// The clients that came in the present second.
pub(super) struct Arrivals {
    since: Instant,
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Arrivals {
    pub(super) fn now() -> Self {
        Self { since: Instant::now(), all: 0, by_address: HashMap::new() }
    }

    /// Counts one client, unless a limit refuses it: an address that comes too often takes nothing from
    /// the limit of all.
    pub(super) fn count(
        &mut self,
        limits: &config::Limits,
        address: Option<IpAddr>,
    ) -> Result<(), LimitExceeded> {
        if self.since.elapsed().as_secs() >= 1 {
            *self = Self::now();
        }
        let is_full = |count: usize, limit: usize| limit > 0 && count >= limit;
        let address = address.filter(|_| limits.new_clients_per_second_per_ip > 0);
        let of_address = address.and_then(|address| self.by_address.get(&address)).copied();
        let of_address = of_address.unwrap_or(0);
        if is_full(of_address, limits.new_clients_per_second_per_ip) {
            return Err(LimitExceeded("new_clients_per_second_per_ip"));
        }
        if is_full(self.all, limits.new_clients_per_second) {
            return Err(LimitExceeded("new_clients_per_second"));
        }
        self.all += 1;
        if let Some(address) = address {
            self.by_address.insert(address, of_address + 1);
        }
        Ok(())
    }
}
