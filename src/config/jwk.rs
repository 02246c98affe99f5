//! Keys that verify tokens: shared secrets, public keys in PEM, sets of keys in JSON (RFC 7517). Each key
//! is bound to the algorithms that the configuration allows for it.

use std::sync::Arc;

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};

/// The algorithms of tokens, by their names in RFC 7518 and RFC 8037.
pub const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// An RSA modulus: at least 2048 bits (RFC 7518, 3.3), and no more than the library verifies.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
const ED25519_BYTES: usize = 32;
/// More keys than any issuer uses; a token may cost a verification for each key.
const MAX_KEYS: usize = 64;

/// One key.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    /// Its name in a set.
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: Arc<DecodingKey>,
}

/// Each configuration reads its own keys: two are equal only if they were read together.
impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }
}

impl VerifyingKey {
    /// A secret that the gateway shares with the issuer.
    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Self {
        let key = Arc::new(DecodingKey::from_secret(secret));
        Self { kid: None, algorithms: algorithms.to_vec(), key }
    }

    /// A public key in PEM (`BEGIN PUBLIC KEY`, or `BEGIN RSA PUBLIC KEY`); the error says what is wrong
    /// with it.
    pub fn public(pem: &str, algorithms: &[Algorithm]) -> Result<Self, String> {
        if pem.contains("PRIVATE KEY-") {
            return Err("holds a private key, which only the issuer may have; name a file with the public key (openssl pkey -pubout)".into());
        }
        if !pem.contains("PUBLIC KEY-") {
            return Err("holds no public key in PEM form; name a file that begins with \"-----BEGIN PUBLIC KEY-----\"".into());
        }
        let family = algorithms.first().map_or(AlgorithmFamily::Rsa, |first| first.family());
        let read = match family {
            AlgorithmFamily::Hmac => return Err("holds a public key, which is not a secret".into()),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        let key = read.map_err(|_| "holds another kind of key than alg says".to_owned())?;
        for &algorithm in algorithms {
            check(&key, algorithm)?;
        }
        Ok(Self { kid: None, algorithms: algorithms.to_vec(), key: Arc::new(key) })
    }

    /// Whether it may be used with this algorithm.
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether it may be used for a token with this head: a key with a name is for tokens that name it.
    pub fn fits(&self, algorithm: Algorithm, kid: Option<&str>) -> bool {
        self.is_for(algorithm) && self.kid.as_deref().is_none_or(|own| kid == Some(own))
    }

    /// Whether both are the same key for the same algorithms, although each was read on its own.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_key = match (self.key.kind(), other.key.kind()) {
            (DecodingKeyKind::SecretOrDer(a), DecodingKeyKind::SecretOrDer(b)) => a == b,
            (
                DecodingKeyKind::RsaModulusExponent { n, e },
                DecodingKeyKind::RsaModulusExponent { n: other_n, e: other_e },
            ) => (n, e) == (other_n, other_e),
            _ => false,
        };
        is_same_key && (&self.kid, &self.algorithms) == (&other.kid, &other.algorithms)
    }

    /// The key itself.
    pub fn key(&self) -> &DecodingKey {
        &self.key
    }
}

/// The keys of a set that may be used with any of `algorithms`; secrets need HS256, HS384 or HS512 among
/// them. Other keys are ignored, as RFC 7517 (5) requires.
pub fn set(json: &[u8], algorithms: &[Algorithm]) -> Result<Vec<VerifyingKey>, String> {
    let document: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| format!("is not JSON: {error}"))?;
    let keys = document.get("keys").and_then(serde_json::Value::as_array);
    let keys = keys.ok_or("is not a set of keys: it has no list \"keys\"")?;
    if keys.len() > MAX_KEYS {
        return Err(format!("holds {} keys, but at most {MAX_KEYS} are accepted", keys.len()));
    }
    Ok(keys.iter().filter_map(|key| member(key, algorithms)).collect())
}

fn member(json: &serde_json::Value, algorithms: &[Algorithm]) -> Option<VerifyingKey> {
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let other_use =
        jwk.common.public_key_use.as_ref().is_some_and(|u| *u != PublicKeyUse::Signature);
    let other_curve = matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(p) if p.curve != EllipticCurve::Ed25519);
    if other_use || other_curve {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let own = match jwk.common.key_algorithm {
        Some(own) => Some(Algorithm::try_from(own).ok()?),
        None => None,
    };
    let usable = |algorithm: &&Algorithm| {
        own.is_none_or(|own| own == **algorithm) && check(&key, **algorithm).is_ok()
    };
    let algorithms: Vec<Algorithm> = algorithms.iter().filter(usable).copied().collect();
    let kid = jwk.common.key_id;
    (!algorithms.is_empty()).then(|| VerifyingKey { kid, algorithms, key: Arc::new(key) })
}

/// The key has to be usable with this algorithm: the library would notice only at the first token, and
/// panic for some keys.
fn check(key: &DecodingKey, algorithm: Algorithm) -> Result<(), String> {
    let wrong = || format!("holds no key for {algorithm:?}");
    if key.family() != algorithm.family() {
        return Err(wrong());
    }
    match algorithm.family() {
        AlgorithmFamily::Hmac => {
            let secret = key.try_get_as_bytes().map_err(|_| wrong())?;
            return if secret.is_empty() { Err(wrong()) } else { Ok(()) };
        }
        AlgorithmFamily::Rsa if !modulus_bytes(key).is_some_and(|n| RSA_BYTES.contains(&n)) => {
            return Err("holds an RSA key outside 2048 to 4096 bits".into());
        }
        AlgorithmFamily::Ed if key.try_get_as_bytes().map_or(0, <[u8]>::len) != ED25519_BYTES => {
            return Err(wrong());
        }
        _ => {}
    }
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key).map(drop).map_err(|_| wrong())
}

fn modulus_bytes(key: &DecodingKey) -> Option<usize> {
    let significant = |n: &[u8]| n.iter().skip_while(|byte| **byte == 0).count();
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => Some(significant(n)),
        DecodingKeyKind::SecretOrDer(der) => {
            let (n, _) =
                (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der).ok()?;
            Some(significant(&n))
        }
    }
}

/// The least length of a secret for this algorithm: that of its hash (RFC 7518, 3.2).
pub fn least_secret_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    }
}
