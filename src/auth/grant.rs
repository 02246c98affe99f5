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
pub struct Basis {
    /// The path, as it was sent.
    pub path: Box<str>,
    /// The stream key that it named then.
    pub key: Box<str>,
    /// Whom it was for.
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
pub struct Standing {
    basis: Arc<Basis>,
    revoked: AtomicBool,
    /// Changed while all of them are locked.
    streams: AtomicUsize,
    among: Arc<Standings>,
}

/// One stream's share in its standing; given back on drop.
pub struct Held(Arc<Standing>);

/// Every standing that some stream has.
#[derive(Default)]
pub struct Standings(Mutex<All>);

type All = HashMap<Arc<Basis>, Arc<Standing>>;

/// What became of the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// So many go on.
    pub kept: usize,
    /// So many end.
    pub ended: usize,
}

impl Standings {
    /// A stream with this basis begins.
    pub fn enter(self: &Arc<Self>, basis: &Basis) -> Held {
        let mut all = self.all();
        if let Some(known) = all.get(basis) {
            known.streams.fetch_add(1, Ordering::Relaxed);
            return Held(known.clone());
        }
        let (revoked, streams) = (AtomicBool::new(false), AtomicUsize::new(1));
        let (basis, among) = (Arc::new(basis.clone()), self.clone());
        let standing = Arc::new(Standing { basis: basis.clone(), revoked, streams, among });
        all.insert(basis, standing.clone());
        Held(standing)
    }

    /// Revokes each whose basis is not good any more. One that is entered meanwhile may not be among
    /// those that are judged.
    pub fn judge(&self, is_good: impl Fn(&Basis) -> bool) -> Judged {
        let all: Vec<_> = self.all().values().cloned().collect();
        let mut judged = Judged::default();
        for standing in all {
            if is_good(&standing.basis) {
                judged.kept += standing.streams.load(Ordering::Relaxed);
            } else {
                judged.ended += self.revoke(&standing);
            }
        }
        judged
    }

    /// How many streams end with it.
    fn revoke(&self, standing: &Arc<Standing>) -> usize {
        let mut all = self.all();
        standing.leave(&mut all);
        // Whoever enters with the same basis from now on was let in by what holds then.
        standing.revoked.store(true, Ordering::Relaxed);
        standing.streams.load(Ordering::Relaxed)
    }

    /// Held for one look or change.
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Standing {
    /// Takes it from among all, unless another with its basis is there by now.
    fn leave(self: &Arc<Self>, all: &mut All) {
        if all.get(&self.basis).is_some_and(|known| Arc::ptr_eq(known, self)) {
            all.remove(&self.basis);
        }
    }
}

impl Held {
    /// What it was let in by.
    pub fn basis(&self) -> &Basis {
        &self.0.basis
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

impl Drop for Held {
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

    fn basis(path: &str) -> Basis {
        Basis {
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
        let all = Arc::new(Standings::default());
        let held = ["/a", "/a", "/b"].map(|path| all.enter(&basis(path)));
        assert!(Arc::ptr_eq(&held[0].0, &held[1].0) && !Arc::ptr_eq(&held[0].0, &held[2].0));
        let judged = all.judge(|basis| &*basis.path == "/b");
        assert_eq!(judged, Judged { kept: 1, ended: 2 });
        assert_eq!([true, true, false], held.each_ref().map(Held::is_revoked));
    }

    #[test]
    fn what_was_revoked_is_not_what_comes_after_it() {
        let all = Arc::new(Standings::default());
        let before = all.enter(&basis("/a"));
        assert_eq!(all.judge(|_| false).ended, 1);
        let after = all.enter(&basis("/a"));
        assert!(before.is_revoked() && !after.is_revoked());
        drop(before);
        assert_eq!(all.judge(|_| true), Judged { kept: 1, ended: 0 });
        drop(after);
        assert!(all.all().is_empty(), "who left is forgotten");
    }
}
