//! Tokens: good ones, and those that an attacker may make. Signed by another implementation than the
//! gateway verifies with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use ring::{hmac, rsa};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Folder;

/// A secret of the length that RFC 7518 asks for.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A key pair, made by openssl.
pub struct Pair {
    folder: Folder,
    pair: Kind,
}

enum Kind {
    Rsa(Box<rsa::KeyPair>),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Pair {
    pub fn rsa() -> Self {
        let made = made(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        let pair = Kind::Rsa(Box::new(RsaKeyPair::from_pkcs8(&made.1).unwrap()));
        Self { folder: made.0, pair }
    }

    /// `P-256` or `P-384`.
    pub fn ec(curve: &'static str) -> Self {
        let made = made(&["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")]);
        let algorithm = match curve {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
        };
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &made.1, &SystemRandom::new()).unwrap();
        Self { folder: made.0, pair: Kind::Ec(pair, curve) }
    }

    pub fn ed() -> Self {
        let made = made(&["-algorithm", "ED25519"]);
        let pair = Kind::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.1).unwrap());
        Self { folder: made.0, pair }
    }

    /// The file of its public key, in PEM.
    pub fn file(&self) -> String {
        self.folder.0.join("public.pem").to_str().unwrap().to_owned()
    }

    /// The public key as a member of a set.
    pub fn jwk(&self, kid: &str) -> Value {
        match &self.pair {
            Kind::Rsa(pair) => {
                let parts: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(pair.public());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": encoded(&parts.n), "e": encoded(&parts.e)})
            }
            Kind::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": kid, "crv": curve, "x": encoded(x), "y": encoded(y)})
            }
            Kind::Ed(pair) => {
                json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encoded(pair.public_key().as_ref())})
            }
        }
    }

    /// A token signed with it.
    pub fn sign(&self, head: Value, claims: Value) -> String {
        let alg = head["alg"].as_str().unwrap().to_owned();
        signed(&head, &claims, |message| match &self.pair {
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding = rsa_padding(&alg);
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Kind::Ec(pair, _) => {
                pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
            }
            Kind::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

fn rsa_padding(alg: &str) -> &'static dyn RsaEncoding {
    match alg {
        "RS256" => &RSA_PKCS1_SHA256,
        "RS384" => &RSA_PKCS1_SHA384,
        "RS512" => &RSA_PKCS1_SHA512,
        "PS256" => &RSA_PSS_SHA256,
        "PS384" => &RSA_PSS_SHA384,
        _ => &RSA_PSS_SHA512,
    }
}

/// A folder with `public.pem`, and the private key.
fn made(arguments: &[&str]) -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let file = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let (private, public, der) = (file("private.pem"), file("public.pem"), file("private.der"));
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[&["genpkey", "-out", &private], arguments].concat());
    run(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    run(&["pkcs8", "-topk8", "-nocrypt", "-in", &private, "-outform", "DER", "-out", &der]);
    let bytes = std::fs::read(&der).unwrap();
    (folder, bytes)
}

/// A token with the HMAC of `alg`.
pub fn hmac(secret: &[u8], head: &Value, claims: &Value) -> String {
    let algorithm = match head["alg"].as_str().unwrap() {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let key = hmac::Key::new(algorithm, secret);
    signed(head, claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

/// A good HS256 token with [`SECRET`] and these claims.
pub fn hs256(claims: &Value) -> String {
    hmac(SECRET.as_bytes(), &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// A token with the signature that `sign` makes.
pub fn signed(head: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(head.to_string()), encoded(claims.to_string()));
    let signature = encoded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970, so many from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}
