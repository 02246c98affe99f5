//! What each stream was admitted by, kept for as long as it runs, so that a reload can check whether the new
//! configuration would admit it, too.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::config::jwk::VerifyingKey;
use crate::config::{Secret, TokenPlace};
use crate::sse::RowValue;

/// The facts of a request that decided on its admission.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthContext {
    /// The path, as it was sent, and with it the query that chose streams.
    pub path: Box<str>,
    /// The stream key that it named, or all of them.
    pub key: Box<str>,
    /// The host that it was sent to.
    pub host: Option<Box<[u8]>>,
    /// The origin of the page that asked.
    pub origin: Option<Box<[u8]>>,
    /// Where the browser says that page is from (`Sec-Fetch-Site`).
    pub site: Option<Box<[u8]>>,
    /// Whether it had cookies.
    pub cookies: bool,
    /// The token, where the route needs one.
    pub credential: Option<Credential>,
    /// Which entries it opens, where the route asks.
    pub rows: Option<Arc<ClaimedRows>>,
}

/// The values that a token names for fields of the entries that it opens. Two are equal if they open the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimedRows(Vec<(Box<str>, Vec<RowValue>)>);

impl ClaimedRows {
    /// Of these fields, each of which has to have one of its values.
    pub fn new(mut fields: Vec<(Box<str>, Vec<RowValue>)>) -> Self {
        for (_, values) in &mut fields {
            values.sort_unstable();
            values.dedup();
        }
        fields.sort();
        Self(fields)
    }

    /// The values for this field.
    pub fn of(&self, field: &str) -> Option<&[RowValue]> {
        self.0.iter().find(|(name, _)| **name == *field).map(|(_, values)| &values[..])
    }
}

/// A token, its place, and the key that verified it.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its place in the request.
    pub place: TokenPlace,
    /// The token itself.
    pub token: Secret,
    /// As long as this key is still one of its issuer's, a reload need not verify the token again, which
    /// takes half a millisecond.
    pub signed_by: Arc<VerifyingKey>,
}

/// Without the key: the token itself tells who signed it.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        (&self.place, &self.token) == (&other.place, &other.token)
    }
}

impl Eq for Credential {}

impl Hash for Credential {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.place, &self.token).hash(state);
    }
}

/// One context, shared by all streams that were admitted by it.
pub struct Grant {
    context: Arc<AuthContext>,
    revoked: AtomicBool,
    /// How many streams; changed under the lock of all grants.
    streams: AtomicUsize,
    grants: Arc<Grants>,
}

/// One stream's share of a grant; given back on drop.
pub struct GrantHandle(Arc<Grant>);

/// The grants of all streams.
#[derive(Default)]
pub struct Grants(Mutex<ByContext>);

type ByContext = HashMap<Arc<AuthContext>, Arc<Grant>>;

/// How many streams a reauthorization kept and ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reauthorized {
    /// They go on.
    pub kept: usize,
    /// They end.
    pub ended: usize,
}

impl Grants {
    /// Registers a stream that was admitted by this context.
    pub fn enter(self: &Arc<Self>, context: &AuthContext) -> GrantHandle {
        let mut all = self.lock();
        if let Some(known) = all.get(context) {
            known.streams.fetch_add(1, Ordering::Relaxed);
            return GrantHandle(known.clone());
        }
        let (revoked, streams) = (AtomicBool::new(false), AtomicUsize::new(1));
        let (context, grants) = (Arc::new(context.clone()), self.clone());
        let grant = Arc::new(Grant { context: context.clone(), revoked, streams, grants });
        all.insert(context, grant.clone());
        GrantHandle(grant)
    }

    /// Revokes each grant whose context is not good any more. A grant that is entered meanwhile may be
    /// missed.
    pub fn reauthorize(&self, is_good: impl Fn(&AuthContext) -> bool) -> Reauthorized {
        let all: Vec<_> = self.lock().values().cloned().collect();
        let mut outcome = Reauthorized::default();
        for grant in all {
            if is_good(&grant.context) {
                outcome.kept += grant.streams.load(Ordering::Relaxed);
            } else {
                outcome.ended += self.revoke(&grant);
            }
        }
        outcome
    }

    /// Revokes one grant; returns how many streams end with it.
    fn revoke(&self, grant: &Arc<Grant>) -> usize {
        let mut all = self.lock();
        grant.leave(&mut all);
        // A stream that enters with the same context from now on gets a grant of its own.
        grant.revoked.store(true, Ordering::Relaxed);
        grant.streams.load(Ordering::Relaxed)
    }

    /// Locked for one look or change at a time.
    fn lock(&self) -> MutexGuard<'_, ByContext> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Grant {
    /// Removes it, unless another grant has taken its place.
    fn leave(self: &Arc<Self>, all: &mut ByContext) {
        if all.get(&self.context).is_some_and(|known| Arc::ptr_eq(known, self)) {
            all.remove(&self.context);
        }
    }
}

impl GrantHandle {
    /// What the stream was admitted by.
    pub fn context(&self) -> &AuthContext {
        &self.0.context
    }

    /// Whether the stream has to end.
    pub fn is_revoked(&self) -> bool {
        self.0.revoked.load(Ordering::Relaxed)
    }

    /// Ends this stream, and all that share its grant.
    pub fn revoke(&self) {
        self.0.grants.revoke(&self.0);
    }
}

impl Drop for GrantHandle {
    fn drop(&mut self) {
        let mut all = self.0.grants.lock();
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.leave(&mut all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(path: &str) -> AuthContext {
        AuthContext {
            path: path.into(),
            key: path.into(),
            host: None,
            origin: None,
            site: None,
            cookies: false,
            credential: None,
            rows: None,
        }
    }

    #[test]
    fn streams_with_the_same_context_share_a_grant_and_are_reauthorized_together() {
        let all = Arc::new(Grants::default());
        let held = ["/a", "/a", "/b"].map(|path| all.enter(&context(path)));
        assert!(Arc::ptr_eq(&held[0].0, &held[1].0) && !Arc::ptr_eq(&held[0].0, &held[2].0));
        let outcome = all.reauthorize(|context| &*context.path == "/b");
        assert_eq!(outcome, Reauthorized { kept: 1, ended: 2 });
        assert_eq!([true, true, false], held.each_ref().map(GrantHandle::is_revoked));
    }

    #[test]
    fn a_revoked_grant_does_not_revoke_the_next_one_with_its_context() {
        let all = Arc::new(Grants::default());
        let before = all.enter(&context("/a"));
        assert_eq!(all.reauthorize(|_| false).ended, 1);
        let after = all.enter(&context("/a"));
        assert!(before.is_revoked() && !after.is_revoked());
        drop(before);
        assert_eq!(all.reauthorize(|_| true), Reauthorized { kept: 1, ended: 0 });
        drop(after);
        assert!(all.lock().is_empty(), "a grant without streams is forgotten");
    }
}
