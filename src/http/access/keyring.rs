//! All keys, those that are fetched included, and the verification of a token's signature.

use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use url::{Position, Url};

use super::Denied;
use super::claims::Claims;
use super::fetch;
use crate::config::{KeyPlace, Keys, Tls};
use crate::jwk::{self, VerifyingKey};

/// Keys are fetched anew after 80-100 % of this.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// For a token with a key that is not known they are fetched sooner, but not sooner than this: a set
/// this young has every key that there is.
const FRESH: Duration = Duration::from_secs(10);
/// After a failure it is tried again after this, and twice as long each time,
const RETRY: Duration = Duration::from_secs(1);
/// up to this.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// All keys.
pub(super) struct Keyring(Vec<Bunch>);

struct Bunch {
    issuer: Option<String>,
    keys: Source,
}

enum Source {
    Here(Arc<[VerifyingKey]>),
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
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<[VerifyingKey]>,
    /// When they were; `None`: never yet.
    fetched: Option<Instant>,
}

impl Keyring {
    pub(super) fn new(keys: &[Keys]) -> Self {
        let bunch = |keys: &Keys| Bunch {
            issuer: keys.issuer.clone(),
            keys: match &keys.place {
                KeyPlace::Here(keys) => Source::Here(keys.clone().into()),
                KeyPlace::Url { url, tls, algorithms } => Source::Elsewhere(Arc::new(Remote {
                    url: url.clone(),
                    tls: tls.clone(),
                    algorithms: algorithms.clone(),
                    known: RwLock::default(),
                    wanted: Notify::new(),
                })),
            },
        };
        Self(keys.iter().map(bunch).collect())
    }

    /// Begins to fetch what is elsewhere, and goes on for as long as the process lives.
    pub(super) fn fetch(&self) {
        for bunch in &self.0 {
            if let Source::Elsewhere(remote) = &bunch.keys {
                tokio::spawn(remote.clone().keep_fresh());
            }
        }
    }

    /// Holds a token against every key that its head fits. The head chooses among our keys and says
    /// nothing else: what it brings itself (`jwk`, `jku`, `x5u`, …) is not looked at. What comes back was
    /// signed by who may sign for its issuer, and is yet to be checked.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, Denied> {
        let head = decode_header(token).map_err(|_| Denied::Malformed)?;
        if head.crit.is_some() {
            return Err(Denied::Critical);
        }
        let (algorithm, kid) = (head.alg, head.kid.as_deref());
        let mut denied = Denied::Algorithm;
        for bunch in &self.0 {
            let keys = bunch.keys.all();
            if denied == Denied::Algorithm && keys.iter().any(|key| key.is_for(algorithm)) {
                denied = Denied::Key;
            }
            for key in keys.iter().filter(|key| key.fits(algorithm, kid)) {
                match decode::<Claims>(token, key.key(), &signature_alone(algorithm)) {
                    Ok(token) if bunch.may_sign(&token.claims) => return Ok(token.claims),
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
        let away = self.0.iter().filter(|bunch| bunch.keys.may_have(algorithm, kid)).count();
        Err(if away > 0 { Denied::Keys } else { denied })
    }
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
    fn all(&self) -> Arc<[VerifyingKey]> {
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

    async fn keep_fresh(self: Arc<Self>) {
        let (mut retry, mut told) = (RETRY, None);
        loop {
            if self.fetch(&mut told).await {
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

    /// Whether the keys could be fetched; `told` is how many there were when last it was logged.
    async fn fetch(&self, told: &mut Option<usize>) -> bool {
        // A query may hold what is not for the log.
        let url = &self.url[..Position::AfterPath];
        let fetched = fetch::get(&self.url, self.tls.as_ref()).await;
        match fetched.and_then(|json| jwk::set(&json, &self.algorithms)) {
            Ok(keys) => {
                if told.replace(keys.len()) != Some(keys.len()) {
                    info!(url, keys = keys.len(), "keys fetched");
                }
                if keys.is_empty() {
                    warn!(url, "no key there can be used; auth.jwt.keys.alg says for what");
                }
                let known = Known { keys: keys.into(), fetched: Some(Instant::now()) };
                *self.known.write().expect("no holder of the lock panics") = known;
                true
            }
            Err(error) => {
                *told = None;
                warn!(url, %error, "keys cannot be fetched; those that are known stay good");
                false
            }
        }
    }
}
