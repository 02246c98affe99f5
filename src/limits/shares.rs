//! What one address, or one principal, holds of clients and readers.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{LimitExceeded, Limits};

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Clients,
    Readers,
}

/// One of what an address and a principal may hold; given back on drop.
pub struct Share {
    limits: Arc<Limits>,
    count: Count,
    pub(super) address: Option<IpAddr>,
    pub(super) principal: Option<Arc<str>>,
}

/// What each of them holds; whoever holds nothing is not in it.
pub(super) struct Shares<K>(Mutex<HashMap<K, Held>>);

#[derive(Default)]
struct Held {
    clients: usize,
    readers: usize,
}

impl Count {
    pub(super) fn per_ip(self) -> LimitExceeded {
        match self {
            Self::Clients => LimitExceeded("clients_per_ip"),
            Self::Readers => LimitExceeded("readers_per_ip"),
        }
    }

    pub(super) fn per_principal(self) -> LimitExceeded {
        match self {
            Self::Clients => LimitExceeded("clients_per_principal"),
            Self::Readers => LimitExceeded("readers_per_principal"),
        }
    }
}

impl Held {
    fn of(&mut self, count: Count) -> &mut usize {
        match count {
            Count::Clients => &mut self.clients,
            Count::Readers => &mut self.readers,
        }
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// One more for `whom`, who may hold no more than `most`, which is not zero.
    pub(super) fn take(&self, identity: &K, count: Count, most: usize) -> Option<()> {
        let mut all = self.all();
        let held = all.entry(identity.clone()).or_default().of(count);
        (*held < most).then(|| *held += 1)
    }

    fn give_back(&self, identity: &K, count: Count) {
        let mut all = self.all();
        let Some(held) = all.get_mut(identity) else { return };
        *held.of(count) -= 1;
        if held.clients == 0 && held.readers == 0 {
            all.remove(identity);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Held for one look at a time.
    fn all(&self) -> MutexGuard<'_, HashMap<K, Held>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Share {
    pub(super) fn of_nobody(limits: &Arc<Limits>, count: Count) -> Self {
        Self { limits: limits.clone(), count, address: None, principal: None }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            self.limits.by_address.give_back(address, self.count);
        }
        if let Some(principal) = &self.principal {
            self.limits.by_principal.give_back(principal, self.count);
        }
    }
}
