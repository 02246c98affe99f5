//! What each stream was let in by, for as long as it runs: another configuration is asked whether it
//! would let it in as well.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::config::jwk::VerifyingKey;
use crate::config::{Secret, TokenPlace};

/// What a stream was asked for with, as far as it decides who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthContext {
    /// The path, as it was sent.
    pub path: Box<str>,
    /// The stream key that it named then.
    pub key: Box<str>,
    /// ClientIdentity it was for.
    pub host: Option<Box<[u8]>>,
    /// Whose page asked.
    pub origin: Option<Box<[u8]>>,
    /// What the browser said of that page (`Sec-Fetch-Site`).
    pub site: Option<Box<[u8]>>,
    /// Whether cookies came with it.
    pub cookies: bool,
    /// The token, where one was needed.
    pub credential: Option<Credential>,
}

/// A token, where it was, and what it was verified with.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Where it was in the request.
    pub place: TokenPlace,
    /// The token itself.
    pub token: Secret,
    /// Where this is still a key of its issuer nobody has to verify it once more, which takes half a
    /// millisecond.
    pub signed_by: Arc<VerifyingKey>,
}

/// Who signed a token is said by the token.
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

/// One basis, shared by all streams that have it.
pub struct Grant {
    context: Arc<AuthContext>,
    revoked: AtomicBool,
    /// Changed while all of them are locked.
    streams: AtomicUsize,
    among: Arc<Grants>,
}

/// One stream's share in its standing; given back on drop.
pub struct GrantHandle(Arc<Grant>);

/// Every standing that some stream has.
#[derive(Default)]
pub struct Grants(Mutex<All>);

type All = HashMap<Arc<AuthContext>, Arc<Grant>>;

/// What became of the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reauthorized {
    /// So many go on.
    pub kept: usize,
    /// So many end.
    pub ended: usize,
}

impl Grants {
    /// A stream with this basis begins.
    pub fn enter(self: &Arc<Self>, context: &AuthContext) -> GrantHandle {
        let mut all = self.all();
        if let Some(known) = all.get(context) {
            known.streams.fetch_add(1, Ordering::Relaxed);
            return GrantHandle(known.clone());
        }
        let (revoked, streams) = (AtomicBool::new(false), AtomicUsize::new(1));
        let (context, among) = (Arc::new(context.clone()), self.clone());
        let grant = Arc::new(Grant { context: context.clone(), revoked, streams, among });
        all.insert(context, grant.clone());
        GrantHandle(grant)
    }

    /// Revokes each whose basis is not good any more. One that is entered meanwhile may not be among
    /// those that are judged.
    pub fn reauthorize(&self, is_good: impl Fn(&AuthContext) -> bool) -> Reauthorized {
        let all: Vec<_> = self.all().values().cloned().collect();
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

    /// How many streams end with it.
    fn revoke(&self, grant: &Arc<Grant>) -> usize {
        let mut all = self.all();
        grant.leave(&mut all);
        // Whoever enters with the same basis from now on was let in by what holds then.
        grant.revoked.store(true, Ordering::Relaxed);
        grant.streams.load(Ordering::Relaxed)
    }

    /// GrantHandle for one look or change.
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Grant {
    /// Takes it from among all, unless another with its basis is there by now.
    fn leave(self: &Arc<Self>, all: &mut All) {
        if all.get(&self.context).is_some_and(|known| Arc::ptr_eq(known, self)) {
            all.remove(&self.context);
        }
    }
}

impl GrantHandle {
    /// What it was let in by.
    pub fn context(&self) -> &AuthContext {
        &self.0.context
    }

    /// Whether it has to end.
    pub fn is_revoked(&self) -> bool {
        self.0.revoked.load(Ordering::Relaxed)
    }

    /// It has to end, and so have all that were let in by the same.
    pub fn revoke(&self) {
        self.0.among.revoke(&self.0);
    }
}

impl Drop for GrantHandle {
    fn drop(&mut self) {
        let mut all = self.0.among.all();
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
        }
    }

    #[test]
    fn those_that_were_let_in_by_the_same_share_it_and_are_judged_together() {
        let all = Arc::new(Grants::default());
        let held = ["/a", "/a", "/b"].map(|path| all.enter(&context(path)));
        assert!(Arc::ptr_eq(&held[0].0, &held[1].0) && !Arc::ptr_eq(&held[0].0, &held[2].0));
        let outcome = all.reauthorize(|context| &*context.path == "/b");
        assert_eq!(outcome, Reauthorized { kept: 1, ended: 2 });
        assert_eq!([true, true, false], held.each_ref().map(GrantHandle::is_revoked));
    }

    #[test]
    fn what_was_revoked_is_not_what_comes_after_it() {
        let all = Arc::new(Grants::default());
        let before = all.enter(&context("/a"));
        assert_eq!(all.reauthorize(|_| false).ended, 1);
        let after = all.enter(&context("/a"));
        assert!(before.is_revoked() && !after.is_revoked());
        drop(before);
        assert_eq!(all.reauthorize(|_| true), Reauthorized { kept: 1, ended: 0 });
        drop(after);
        assert!(all.all().is_empty(), "who left is forgotten");
    }
}
