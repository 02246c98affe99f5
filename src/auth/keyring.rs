//! All keys, and the verification of a token's signature with them.

use std::sync::{Arc, Mutex};

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use tokio::task::JoinSet;

use super::Denied;
use super::claims::Claims;
use super::key_set::{KeySet, KeysAway};
use crate::config::Keys;
use crate::config::jwk::VerifyingKey;

/// All keys.
pub(super) struct Keyring {
    sets: Vec<Arc<KeySet>>,
    /// Tasks that keep fetched sets fresh; they end with the keyring.
    refreshing: Mutex<JoinSet<()>>,
}

/// Why a key does not verify a token, ordered by how near the token came: of all keys, the nearest miss
/// is the reason that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Miss {
    Algorithm,
    KeyId,
    Signature,
    /// The key has signed the token, but is another issuer's.
    Issuer,
    /// The token cannot be read; other keys would not change that.
    Malformed,
}

impl Keyring {
    pub(super) fn new(keys: &[Keys]) -> Self {
        let sets = keys.iter().map(|keys| Arc::new(KeySet::new(keys))).collect();
        Self { sets, refreshing: Mutex::default() }
    }

    /// Fetches the sets that are at an address, and keeps them fresh for as long as the keyring exists.
    pub(super) fn keep_fresh(&self) {
        let mut refreshing = self.refreshing.lock().expect("no holder of the lock panics");
        for set in self.sets.iter().filter(|set| set.is_remote()) {
            refreshing.spawn(set.clone().keep_fresh());
        }
    }

    /// Fetches the sets that are at an address once; one that cannot be fetched is taken from `before`.
    pub(super) async fn load(&self, before: &Self) -> Result<(), KeysAway> {
        let mut fetches = JoinSet::new();
        for set in self.sets.iter().filter(|set| set.is_remote()) {
            let known = before.sets.iter().find(|known| known.has_same_address(set));
            if let Some(known) = known {
                set.copy_from(known);
            }
            let (set, is_new) = (set.clone(), known.is_none());
            fetches.spawn(async move {
                set.fetch().await.or_else(|away| if is_new { Err(away) } else { Ok(()) })
            });
        }
        fetches.join_all().await.into_iter().collect()
    }

    /// Verifies a token's signature with every key that fits its header, and returns its claims, which are
    /// still to be checked, with the key. That key may sign for the token's issuer.
    ///
    /// The header only selects among our keys. What it brings itself (`jwk`, `jku`, `x5u`, …) is ignored.
    /// A token that was `verified_with` one of these keys before is not verified with it again.
    pub(super) fn verify(
        &self,
        token: &str,
        verified_with: Option<&VerifyingKey>,
    ) -> Result<(Claims, Arc<VerifyingKey>), Denied> {
        let header = decode_header(token).map_err(|_| Denied::Malformed)?;
        if header.crit.is_some() {
            return Err(Denied::Critical);
        }
        let mut nearest = Miss::Algorithm;
        for set in &self.sets {
            for key in &set.known().keys {
                let is_verified = verified_with.is_some_and(|before| before.is_same(key));
                match claims_signed_by(key, &header, token, is_verified) {
                    Ok(claims) if set.may_sign(&claims) => return Ok((claims, key.clone())),
                    // Another set may have the same key for another issuer.
                    Ok(_) => nearest = nearest.max(Miss::Issuer),
                    Err(miss) => nearest = nearest.max(miss),
                }
            }
        }
        if nearest == Miss::Malformed {
            return Err(Denied::Malformed);
        }
        // No short circuit: each set that may have the key has to look for it.
        let (algorithm, kid) = (header.alg, header.kid.as_deref());
        let unfetched = self.sets.iter().filter(|set| set.may_get(algorithm, kid)).count();
        Err(if unfetched > 0 { Denied::Keys } else { nearest.into() })
    }
}

/// The claims of `token`, if `key` fits its header and has signed it.
fn claims_signed_by(
    key: &VerifyingKey,
    header: &Header,
    token: &str,
    is_verified: bool,
) -> Result<Claims, Miss> {
    if !key.is_for(header.alg) {
        return Err(Miss::Algorithm);
    }
    if !key.fits(header.alg, header.kid.as_deref()) {
        return Err(Miss::KeyId);
    }
    let claims = if is_verified {
        insecure_decode_claims(token)
    } else {
        decode(token, key.key(), &signature_only(header.alg)).map(|token| token.claims)
    };
    claims.map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Miss::Signature,
        _ => Miss::Malformed,
    })
}

/// `claims.rs` checks the claims.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

impl From<Miss> for Denied {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Algorithm => Self::Algorithm,
            Miss::KeyId => Self::Key,
            Miss::Signature => Self::Signature,
            Miss::Issuer => Self::Issuer,
            Miss::Malformed => Self::Malformed,
        }
    }
}
