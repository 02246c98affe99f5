//! Keys from one place: a file, or an address (`jwks_url`) that they are fetched from again and again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use url::{Position, Url};

use super::claims::Claims;
use super::fetch;
use crate::config::jwk::{self, VerifyingKey};
use crate::config::{KeyPlace, Keys, Tls};

/// Keys are fetched again after 80-100 % of this.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// A token with an unknown key id makes us fetch sooner, but not sooner than this: a set this young is
/// taken to be complete.
const FRESH: Duration = Duration::from_secs(10);
/// After a failure we try again after this, and after twice as long each time,
const RETRY: Duration = Duration::from_secs(1);
/// up to this.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Keys that may be used alike.
pub(super) struct KeySet {
    /// They verify tokens of this issuer only; `None`: of any.
    issuer: Option<String>,
    known: ArcSwap<KnownKeys>,
    /// `None`: the keys were in a file.
    remote: Option<Remote>,
}

#[derive(Clone, Default)]
pub(super) struct KnownKeys {
    pub(super) keys: Vec<Arc<VerifyingKey>>,
    /// `None`: they were never fetched.
    fetched: Option<Instant>,
}

/// Where keys are fetched from.
struct Remote {
    url: Url,
    tls: Option<Tls>,
    algorithms: Vec<Algorithm>,
    /// A token came with a key that is not known.
    wanted: Notify,
    /// How many keys there were when it was last logged.
    logged: Mutex<Option<usize>>,
}

/// A set of keys could not be fetched, and no older one is known.
#[derive(Debug, thiserror::Error)]
#[error("the keys at {url} cannot be fetched: {why}")]
pub struct KeysAway {
    url: String,
    why: String,
}

impl KeySet {
    pub(super) fn new(keys: &Keys) -> Self {
        let issuer = keys.issuer.clone();
        match &keys.place {
            KeyPlace::Here(keys) => {
                let known = ArcSwap::from_pointee(KnownKeys::new(keys.clone(), None));
                Self { issuer, known, remote: None }
            }
            KeyPlace::Url { url, tls, algorithms } => {
                let (url, tls, algorithms) = (url.clone(), tls.clone(), algorithms.clone());
                let (wanted, logged) = (Notify::new(), Mutex::default());
                let remote = Some(Remote { url, tls, algorithms, wanted, logged });
                Self { issuer, known: ArcSwap::default(), remote }
            }
        }
    }

    pub(super) fn known(&self) -> Arc<KnownKeys> {
        self.known.load_full()
    }

    pub(super) fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// A key of one issuer is for that issuer's tokens, whatever other issuers are allowed.
    pub(super) fn may_sign(&self, claims: &Claims) -> bool {
        self.issuer.as_deref().is_none_or(|own| claims.get("iss").is_some_and(|said| said == own))
    }

    /// Whether both fetch the same keys.
    pub(super) fn has_same_address(&self, other: &Self) -> bool {
        let (Some(own), Some(other)) = (&self.remote, &other.remote) else { return false };
        (&own.url, &own.algorithms) == (&other.url, &other.algorithms)
    }

    /// Takes over the keys of another set with the same address.
    pub(super) fn copy_from(&self, other: &Self) {
        self.known.store(other.known());
    }

    /// Whether a fetch may bring a key for such a token; if so, it is asked for.
    pub(super) fn may_get(&self, algorithm: Algorithm, kid: Option<&str>) -> bool {
        let Some(remote) = &self.remote else { return false };
        if !remote.algorithms.contains(&algorithm) {
            return false;
        }
        let known = self.known();
        let Some(fetched) = known.fetched else { return true };
        let is_known = known.keys.iter().any(|key| key.fits(algorithm, kid));
        let is_stale = kid.is_some() && !is_known && fetched.elapsed() > FRESH;
        if is_stale {
            remote.wanted.notify_one();
        }
        is_stale
    }

    /// Fetches the keys whenever they are old or asked for.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        let Some(remote) = &self.remote else { return };
        let mut retry = RETRY;
        loop {
            // A reload fetches them before it takes effect: they may be here already.
            let age = self.known().fetched.map(|at| at.elapsed());
            let is_fresh = age.is_some_and(|age| age < FRESH);
            if is_fresh || self.fetch().await.is_ok() {
                retry = RETRY;
                sleep(FRESH).await;
                let rest = REFRESH.mul_f64(0.8 + 0.2 * fastrand::f64()).saturating_sub(FRESH);
                // Asked for, or old: either way it is time.
                let _ = timeout(rest, remote.wanted.notified()).await;
            } else {
                sleep(retry.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
                retry = (retry * 2).min(MAX_RETRY);
            }
        }
    }

    /// Fetches the keys. A failure is logged, and leaves the known keys as they are.
    pub(super) async fn fetch(&self) -> Result<(), KeysAway> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let fetched = fetch::get(&remote.url, remote.tls.as_ref()).await;
        match fetched.and_then(|json| jwk::set(&json, &remote.algorithms)) {
            Ok(keys) => {
                let count = keys.len();
                self.known.store(Arc::new(KnownKeys::new(keys, Some(Instant::now()))));
                remote.log_fetched(count);
                Ok(())
            }
            Err(why) => {
                remote.log_failure(&why);
                Err(KeysAway { url: remote.url_to_log().to_owned(), why })
            }
        }
    }
}

impl KnownKeys {
    fn new(keys: Vec<VerifyingKey>, fetched: Option<Instant>) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect(), fetched }
    }
}

impl Remote {
    /// Without the query, which may hold secrets.
    fn url_to_log(&self) -> &str {
        &self.url[..Position::AfterPath]
    }

    fn log_fetched(&self, keys: usize) {
        let url = self.url_to_log();
        let before = self.logged.lock().expect("no holder of the lock panics").replace(keys);
        if before != Some(keys) {
            info!(url, keys, "keys fetched");
        }
        if keys == 0 {
            warn!(
                url,
                "keys fetched, but none of them can be used: no token of theirs is accepted; compare their kty, crv, alg and use with auth.jwt.keys.alg"
            );
        }
    }

    fn log_failure(&self, error: &str) {
        *self.logged.lock().expect("no holder of the lock panics") = None;
        let url = self.url_to_log();
        warn!(
            url,
            %error,
            "keys cannot be fetched; the keys that are known stay good; trying again"
        );
    }
}
