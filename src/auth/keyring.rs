//! All keys, those that are fetched included, and the verification of a token's signature.

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use url::{Position, Url};

use super::Denied;
use super::claims::Claims;
use super::fetch;
use crate::config::jwk::{self, VerifyingKey};
use crate::config::{KeyPlace, Keys, Tls};

/// Keys are fetched anew after 80-100 % of this.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// For a token with a key that is not known they are fetched sooner, but not sooner than this: a set
/// this young has every key that there is.
const FRESH: Duration = Duration::from_secs(10);
/// After a failure it is tried again after this, and twice as long each time,
const RETRY: Duration = Duration::from_secs(1);
/// up to this.
const MAX_RETRY: Duration = Duration::from_secs(60);

type SharedKeys = Arc<[Arc<VerifyingKey>]>;

/// All keys.
pub(super) struct Keyring {
    bunches: Vec<Bunch>,
    /// Keep those fresh that are elsewhere.
    fetching: Mutex<JoinSet<()>>,
}

/// Keys are nowhere to be had.
#[derive(Debug, thiserror::Error)]
#[error("the keys at {url} cannot be fetched: {why}")]
pub struct KeysAway {
    url: String,
    why: String,
}

struct Bunch {
    issuer: Option<String>,
    keys: Source,
}

enum Source {
    Here(SharedKeys),
    Elsewhere(Arc<Remote>),
}

/// A set of keys at a fixed address.
struct Remote {
    url: Url,
    tls: Option<Tls>,
    algorithms: Vec<Algorithm>,
    /// Held for a look or an exchange; the keys are shared, so no signature is verified under it.
    known: RwLock<Known>,
    wanted: Notify,
    /// How many there were when last it was logged.
    told: Mutex<Option<usize>>,
}

#[derive(Clone, Default)]
struct Known {
    keys: SharedKeys,
    /// When they were; `None`: never yet.
    fetched: Option<Instant>,
}

impl Keyring {
    pub(super) fn new(keys: &[Keys]) -> Self {
        let bunch = |keys: &Keys| Bunch {
            issuer: keys.issuer.clone(),
            keys: match &keys.place {
                KeyPlace::Here(keys) => Source::Here(shared(keys.clone())),
                KeyPlace::Url { url, tls, algorithms } => Source::Elsewhere(Arc::new(Remote {
                    url: url.clone(),
                    tls: tls.clone(),
                    algorithms: algorithms.clone(),
                    known: RwLock::default(),
                    wanted: Notify::new(),
                    told: Mutex::default(),
                })),
            },
        };
        Self { bunches: keys.iter().map(bunch).collect(), fetching: Mutex::default() }
    }

    /// Begins to fetch what is elsewhere, and goes on for as long as there is the ring.
    pub(super) fn fetch(&self) {
        let mut fetching = self.fetching.lock().expect("no holder of the lock panics");
        for remote in self.elsewhere() {
            fetching.spawn(remote.clone().keep_fresh());
        }
    }

    /// Fetches what is elsewhere, once; what cannot be had is as in the ring `before`.
    pub(super) async fn load(&self, before: &Self) -> Result<(), KeysAway> {
        let mut fetches = JoinSet::new();
        for remote in self.elsewhere() {
            let known = before.elsewhere().find(|known| known.is_same(remote));
            if let Some(known) = known {
                remote.know(known.known().clone());
            }
            let (remote, is_new) = (remote.clone(), known.is_none());
            fetches.spawn(async move {
                let outcome = remote.fetch().await;
                outcome.or_else(|why| if is_new { Err(remote.away(why)) } else { Ok(()) })
            });
        }
        fetches.join_all().await.into_iter().collect()
    }

    fn elsewhere(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.bunches.iter().filter_map(|bunch| match &bunch.keys {
            Source::Elsewhere(remote) => Some(remote),
            Source::Here(_) => None,
        })
    }

    /// Holds a token against every key that its head fits. The head chooses among our keys and says
    /// nothing else: what it brings itself (`jwk`, `jku`, `x5u`, …) is not looked at. What comes back was
    /// signed by who may sign for its issuer, with this key, and is yet to be checked. What it was
    /// `verified_with` before it need not be verified with again.
    pub(super) fn verify(
        &self,
        token: &str,
        verified_with: Option<&VerifyingKey>,
    ) -> Result<(Claims, Arc<VerifyingKey>), Denied> {
        let head = decode_header(token).map_err(|_| Denied::Malformed)?;
        if head.crit.is_some() {
            return Err(Denied::Critical);
        }
        let (algorithm, kid) = (head.alg, head.kid.as_deref());
        let mut denied = Denied::Algorithm;
        for bunch in &self.bunches {
            let keys = bunch.keys.all();
            if denied == Denied::Algorithm && keys.iter().any(|key| key.is_for(algorithm)) {
                denied = Denied::Key;
            }
            for key in keys.iter().filter(|key| key.fits(algorithm, kid)) {
                let is_verified = verified_with.is_some_and(|before| before.is_same(key));
                let claims = if is_verified {
                    insecure_decode_claims(token)
                } else {
                    let verified = decode(token, key.key(), &signature_alone(algorithm));
                    verified.map(|token| token.claims)
                };
                match claims {
                    Ok(claims) if bunch.may_sign(&claims) => return Ok((claims, key.clone())),
                    // Another bunch may have the same key for another issuer.
                    Ok(_) => denied = Denied::Issuer,
                    Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                        if denied != Denied::Issuer {
                            denied = Denied::Signature;
                        }
                    }
                    Err(_) => return Err(Denied::Malformed),
                }
            }
        }
        // Every one of them is asked: each that may have the key is to look for it.
        let away = self.bunches.iter().filter(|bunch| bunch.keys.may_have(algorithm, kid)).count();
        Err(if away > 0 { Denied::Keys } else { denied })
    }
}

fn shared(keys: Vec<VerifyingKey>) -> SharedKeys {
    keys.into_iter().map(Arc::new).collect()
}

/// Claims are checked by `claims.rs`.
fn signature_alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

impl Bunch {
    /// A key of one issuer is for that issuer's tokens, whatever else is listed.
    fn may_sign(&self, claims: &Claims) -> bool {
        self.issuer.as_deref().is_none_or(|own| claims.get("iss").is_some_and(|said| said == own))
    }
}

impl Source {
    fn all(&self) -> SharedKeys {
        match self {
            Self::Here(keys) => keys.clone(),
            Self::Elsewhere(remote) => remote.known().keys.clone(),
        }
    }

    /// Whether a key with this name may be there and not be known yet; it is looked for then.
    fn may_have(&self, algorithm: Algorithm, kid: Option<&str>) -> bool {
        let Self::Elsewhere(remote) = self else { return false };
        if !remote.algorithms.contains(&algorithm) {
            return false;
        }
        let known = remote.known().clone();
        let Some(fetched) = known.fetched else { return true };
        let is_known = known.keys.iter().any(|key| key.fits(algorithm, kid));
        let stale = kid.is_some() && !is_known && fetched.elapsed() > FRESH;
        if stale {
            remote.wanted.notify_one();
        }
        stale
    }
}

impl Remote {
    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no holder of the lock panics")
    }

    fn know(&self, known: Known) {
        *self.known.write().expect("no holder of the lock panics") = known;
    }

    /// Whether the keys of both are one set.
    fn is_same(&self, other: &Self) -> bool {
        (&self.url, &self.algorithms) == (&other.url, &other.algorithms)
    }

    /// Without its query, which may hold what is not for the log.
    fn url(&self) -> &str {
        &self.url[..Position::AfterPath]
    }

    fn away(&self, why: String) -> KeysAway {
        KeysAway { url: self.url().to_owned(), why }
    }

    async fn keep_fresh(self: Arc<Self>) {
        let mut retry = RETRY;
        loop {
            // They may be here already: a reload fetches them before it takes them.
            let age = self.known().fetched.map(|at| at.elapsed());
            let is_fresh = age.is_some_and(|age| age < FRESH);
            if is_fresh || self.fetch().await.is_ok() {
                retry = RETRY;
                sleep(FRESH).await;
                let rest = REFRESH.mul_f64(0.8 + 0.2 * fastrand::f64()).saturating_sub(FRESH);
                // Asked for, or over: it is time either way.
                let _ = timeout(rest, self.wanted.notified()).await;
            } else {
                sleep(retry.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
                retry = (retry * 2).min(MAX_RETRY);
            }
        }
    }

    /// Fetches the keys; where that fails it is logged, and those that are known stay.
    async fn fetch(&self) -> Result<(), String> {
        let url = self.url();
        let fetched = fetch::get(&self.url, self.tls.as_ref()).await;
        let outcome = fetched.and_then(|json| jwk::set(&json, &self.algorithms));
        let mut told = self.told.lock().expect("no holder of the lock panics");
        match outcome {
            Ok(keys) => {
                if told.replace(keys.len()) != Some(keys.len()) {
                    info!(url, keys = keys.len(), "keys fetched");
                }
                if keys.is_empty() {
                    warn!(url, "no key there can be used; auth.jwt.keys.alg says for what");
                }
                self.know(Known { keys: shared(keys), fetched: Some(Instant::now()) });
                Ok(())
            }
            Err(error) => {
                *told = None;
                warn!(url, %error, "keys cannot be fetched; those that are known stay good");
                Err(error)
            }
        }
    }
}
