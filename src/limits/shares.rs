//! What one address, or one principal, holds of clients, readers and bodies.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::identity::LimitExceeded;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Clients,
    Readers,
    /// Bodies of entries that are being read and added.
    Bodies,
}

/// One client, reader or body of an address and of a principal; given back on drop.
pub struct Share {
    shares: Arc<Shares>,
    count: Count,
    address: Option<IpAddr>,
    principal: Option<Arc<str>>,
}

/// What every address and every principal holds.
#[derive(Default)]
pub(super) struct Shares {
    by_address: Holders<IpAddr>,
    by_principal: Holders<Arc<str>>,
}

/// Holders by name. Without any of these a holder is not in it.
struct Holders<K>(Mutex<HashMap<K, Held>>);

#[derive(Default)]
struct Held {
    clients: usize,
    readers: usize,
    bodies: usize,
}

impl Held {
    fn of(&mut self, count: Count) -> &mut usize {
        match count {
            Count::Clients => &mut self.clients,
            Count::Readers => &mut self.readers,
            Count::Bodies => &mut self.bodies,
        }
    }
}

impl<K: Eq + Hash + Clone> Holders<K> {
    /// One more for this holder, if it has fewer than `most`, which is not zero.
    fn take(&self, holder: &K, count: Count, most: usize) -> Option<()> {
        let mut holders = self.lock();
        let held = holders.entry(holder.clone()).or_default().of(count);
        (*held < most).then(|| *held += 1)
    }

    fn give_back(&self, holder: &K, count: Count) {
        let mut holders = self.lock();
        let Some(held) = holders.get_mut(holder) else { return };
        *held.of(count) -= 1;
        if held.clients == 0 && held.readers == 0 && held.bodies == 0 {
            holders.remove(holder);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Held>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl<K> Default for Holders<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Shares {
    #[cfg(test)]
    pub(super) fn has_no_address(&self) -> bool {
        self.by_address.lock().is_empty()
    }
}

impl Share {
    pub(super) fn empty(shares: &Arc<Shares>, count: Count) -> Self {
        Self { shares: shares.clone(), count, address: None, principal: None }
    }

    pub(super) fn add_address(
        &mut self,
        address: IpAddr,
        most: usize,
    ) -> Result<(), LimitExceeded> {
        let taken = self.shares.by_address.take(&address, self.count, most);
        taken.ok_or(LimitExceeded(match self.count {
            Count::Clients => "clients_per_ip",
            Count::Readers => "readers_per_ip",
            Count::Bodies => "bodies_per_ip",
        }))?;
        self.address = Some(address);
        Ok(())
    }

    pub(super) fn add_principal(
        &mut self,
        principal: Arc<str>,
        most: usize,
    ) -> Result<(), LimitExceeded> {
        let taken = self.shares.by_principal.take(&principal, self.count, most);
        taken.ok_or(LimitExceeded(match self.count {
            Count::Clients => "clients_per_principal",
            Count::Readers => "readers_per_principal",
            Count::Bodies => "bodies_per_principal",
        }))?;
        self.principal = Some(principal);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            self.shares.by_address.give_back(address, self.count);
        }
        if let Some(principal) = &self.principal {
            self.shares.by_principal.give_back(principal, self.count);
        }
    }
}
