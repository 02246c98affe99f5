//! Tokens and sets of keys from an attacker.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderValue};
use jsonwebtoken::crypto::{sign, verify};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;

use super::CONFIG;
use crate::auth::Gate;
use crate::config::jwk::{self, VerifyingKey};
use crate::config::{Access, Jwt, KeyPlace, Keys, Route};
use crate::telemetry::metrics::Metrics;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// It knows one secret, for HS256 only.
static GATE: LazyLock<Gate> = LazyLock::new(|| {
    let keys = vec![VerifyingKey::secret(SECRET, &[Algorithm::HS256])];
    let keys = vec![Keys { issuer: None, place: KeyPlace::Here(keys) }];
    let (issuers, leeway) = (vec!["me".into()], Duration::ZERO);
    let rules = CONFIG.jwt.clone();
    let rules = Jwt { keys, issuers, leeway, ..rules };
    Gate::new(&rules, &CONFIG.cors, Arc::new(Metrics::new(&CONFIG.routes)))
});

/// Head and claims of a token, a line each. With the secret's signature, the rules decide; with any other
/// signature (the third line), the token is refused.
pub fn token(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (head, claims) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    assert!(!is_admitted(data), "no signed token");
    let (message, signature) = signed(head, claims);
    if let Some(other) = lines.next().map(|other| URL_SAFE_NO_PAD.encode(other)) {
        assert!(other == signature || !is_admitted(format!("{message}.{other}").as_bytes()));
    }
    if is_admitted(format!("{message}.{signature}").as_bytes()) {
        assert!(is_head(head) && may_read(claims), "{}", String::from_utf8_lossy(data));
    }
}

/// The message, and its signature by the secret.
fn signed(head: &[u8], claims: &[u8]) -> (String, String) {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(SECRET);
    let signature = sign(message.as_bytes(), &key, Algorithm::HS256).expect("a secret signs");
    (message, signature)
}

fn is_admitted(token: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", token].concat()) else { return false };
    let request = Request::get("/").header(AUTHORIZATION, value).body(()).expect("it is whole");
    let variables = [("name".to_owned(), "a".to_owned())];
    GATE.admit(guarded(), &variables, &request).is_ok()
}

fn guarded() -> &'static Route {
    let is_guarded = |route: &&Route| route.access != Access::Public;
    CONFIG.routes.iter().find(is_guarded).expect("one of them is guarded")
}

fn is_head(head: &[u8]) -> bool {
    let head: Option<Value> = serde_json::from_slice(head).ok();
    head.is_some_and(|head| head["alg"] == "HS256" && head.get("crit").is_none_or(Value::is_null))
}

/// The rules, written independently of the gate.
fn may_read(claims: &[u8]) -> bool {
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else { return false };
    let says = |claim: &str, value: &str| match &claims[claim] {
        Value::String(text) => text == value,
        Value::Array(all) => all.iter().all(Value::is_string) && all.iter().any(|one| one == value),
        _ => false,
    };
    let named = claims.get("org.id").unwrap_or(&claims["org"]["id"]);
    let opens_rows = match named {
        Value::String(_) => true,
        Value::Array(all) => !all.is_empty() && all.iter().all(Value::is_string),
        _ => false,
    };
    let expires = claims["exp"].as_f64().unwrap_or(0.0);
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are few enough")]
    let now = jsonwebtoken::get_current_timestamp() as f64;
    opens_rows
        && expires >= now
        && claims["iss"] == "me"
        && says("aud", "x")
        && says("streams", "a")
}

/// A set of keys: each can be used, and none accepts a signature that it has not made.
pub fn jwks(data: &[u8]) {
    let algorithms = jwk::ALGORITHMS.map(|(_, algorithm)| algorithm);
    for key in jwk::set(data, &algorithms).unwrap_or_default() {
        for algorithm in algorithms.into_iter().filter(|algorithm| key.is_for(*algorithm)) {
            for signature in ["", "AA", &"A".repeat(86), &"A".repeat(342)] {
                let verified = verify(signature, b"message", key.key(), algorithm);
                assert!(!verified.unwrap_or(false), "{key:?} takes {signature:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the target would never test the rules.
    #[test]
    fn a_token_signed_with_the_secret_is_admitted() {
        let good = include_str!("../../fuzz/corpus/token/good");
        let (head, claims) = good.split_once('\n').unwrap();
        let (message, signature) = signed(head.as_bytes(), claims.as_bytes());
        assert!(is_admitted(format!("{message}.{signature}").as_bytes()));
    }
}
