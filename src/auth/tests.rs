//! The gate without a network: times to the second, and any bytes in place of a token.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::claims::{Claims, check, check_path, principal, rows};
use super::gate::Terms;
use super::*;
use crate::config::jwk::{self, VerifyingKey};
use crate::config::{ClaimedColumn, Cors, Jwt, KeyPlace, Keys, Match, Origins, Rows, TokenPlace};
use crate::sse::{Column, RowValue};
use crate::telemetry::metrics::Metrics;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

const NO_CORS: Cors = Cors { origins: Origins::None, credentials: false, headers: Vec::new() };

fn rules() -> Jwt {
    let keys = vec![VerifyingKey::secret(SECRET, &[Algorithm::HS256])];
    Jwt {
        keys: vec![Keys { issuer: None, place: KeyPlace::Here(keys) }],
        issuers: Vec::new(),
        audiences: Vec::new(),
        require: vec!["exp".into()],
        leeway: Duration::from_secs(10),
        from: vec![TokenPlace::Header],
        warn: Duration::ZERO,
    }
}

fn object(claims: &Value) -> &Claims {
    claims.as_object().expect("an object")
}

/// How long a token with these claims is good at second 1000.
fn lasts(claims: &Value) -> Result<f64, Denied> {
    let lasts = check(&rules(), object(claims), Duration::from_secs(1000));
    lasts.map(|lasts| lasts.as_secs_f64())
}

#[test]
fn a_token_lasts_until_it_expires_or_until_the_leeway_after_it_is_over() {
    assert_eq!(lasts(&json!({"exp": 1060})), Ok(60.0));
    assert_eq!(lasts(&json!({"exp": 1000.5})), Ok(0.5));
    assert_eq!(lasts(&json!({"exp": 1000})), Ok(10.0));
    assert_eq!(lasts(&json!({"exp": 991})), Ok(1.0));
    assert_eq!(lasts(&json!({"exp": 990})), Err(Denied::Expired));
    assert_eq!(lasts(&json!({"exp": 0})), Err(Denied::Expired));
    assert_eq!(lasts(&json!({"exp": 1060, "nbf": 1010})), Ok(60.0));
    assert_eq!(lasts(&json!({"exp": 1060, "nbf": 1010.5})), Err(Denied::NotYet));
    let for_ever = lasts(&json!({"exp": 1e308}));
    assert!(for_ever.is_ok_and(|seconds| seconds > 1e8), "{for_ever:?}");
}

#[test]
fn required_claims_have_to_be_present() {
    let rules = Jwt { require: vec!["exp".into(), "tenant".into()], ..rules() };
    let check = |claims: Value| check(&rules, object(&claims), Duration::ZERO);
    assert!(check(json!({"exp": 1, "tenant": 0})).is_ok());
    assert_eq!(check(json!({"exp": 1, "tenant": null})), Err(Denied::Claim));
    assert_eq!(check(json!({"exp": 1})), Err(Denied::Claim));
}

#[test]
fn a_claim_has_to_allow_every_variable() {
    let rules = [("a", "x"), ("b", "y")]
        .map(|(variable, claim)| Match { variable: variable.into(), claim: claim.into() });
    let variables = [("a", "1_2"), ("b", "3")].map(|(name, value)| (name.into(), value.into()));
    let says = |claims: Value| check_path(object(&claims), &rules, &variables).is_ok();
    assert!(says(json!({"x": "1_2", "y": ["3"]})));
    assert!(!says(json!({"x": "1_2"})));
    assert!(!says(json!({"x": "3", "y": "1_2"})));
    // Joined with "_" these would be the same.
    assert!(!says(json!({"x": "1", "y": "2_3"})));
}

/// What these claims open where each of these fields has to have a value of its claim.
fn opened(claims: &Value, fields: &[(&str, &str)]) -> Result<Option<Vec<Vec<RowValue>>>, Denied> {
    let mut wanted = Rows::default();
    for (column, (field, claim)) in fields.iter().enumerate() {
        wanted.columns.push(Column { field: (*field).into(), payload: None });
        wanted.claims.push(ClaimedColumn { column, claim: (*claim).into() });
    }
    let named = rows(object(claims), &wanted)?;
    let of = |named: &grant::ClaimedRows, field| named.of(field).expect("it is asked for").to_vec();
    Ok(named.map(|named| fields.iter().map(|(field, _)| of(&named, field)).collect()))
}

fn values(of: &[&str]) -> Vec<RowValue> {
    let mut values: Vec<_> = of.iter().map(|value| RowValue::of(value.as_bytes())).collect();
    values.sort_unstable();
    values
}

#[test]
fn a_claim_opens_the_entries_that_have_its_value_or_one_of_its_values() {
    let claims = json!({
        "sub": "ünï\u{0}", "tenants": ["b", "a", "b", ""], "org": {"id": "7", "deep": {"er": ["x"]}},
        "a.b": "whole", "a": {"b": "led to"}, "empty": "",
    });
    for (claim, opens) in [
        ("sub", &["ünï\u{0}"][..]),
        ("tenants", &["a", "b", ""]),
        ("org.id", &["7"]),
        ("org.deep.er", &["x"]),
        ("a.b", &["whole"]),
        ("empty", &[""]),
    ] {
        assert_eq!(opened(&claims, &[("f", claim)]), Ok(Some(vec![values(opens)])), "{claim}");
    }
    let both = opened(&claims, &[("x", "org.id"), ("b", "sub")]);
    assert_eq!(both, Ok(Some(vec![values(&["7"]), values(&["ünï\u{0}"])])));
    assert_eq!(opened(&claims, &[]), Ok(None), "the route asks for nothing");
}

#[test]
fn a_claim_that_names_no_value_opens_nothing() {
    let claims = json!({
        "n": 7, "yes": true, "null": null, "none": [], "mixed": ["a", 1], "nested": [["a"]], "o": {"p": 1},
        "a.b": 1, "a": {"b": "led to"}, "good": "x", "list": [{"id": "x"}],
    });
    for claim in [
        "absent", "n", "yes", "null", "none", "mixed", "nested", "o", "o.p", "o.q", "o.p.q", "a.b",
        "good.x", "o.", ".o", "list.id", "list.0",
    ] {
        let all = [("f", "good"), ("g", claim)];
        assert_eq!(opened(&claims, &all), Err(Denied::Match), "{claim}");
    }
}

#[test]
fn what_a_token_opens_is_compared_by_fields_and_values() {
    let all = |fields: &[(&str, &[&str])]| {
        let named = fields.iter().map(|(field, of)| ((*field).into(), values(of)));
        grant::ClaimedRows::new(named.collect())
    };
    let one = all(&[("a", &["1", "2"]), ("b", &["3"])]);
    assert_eq!(one, all(&[("b", &["3"]), ("a", &["2", "1", "2"])]));
    for other in [
        all(&[("a", &["1", "2"])]),
        all(&[("a", &["1"]), ("b", &["3"])]),
        all(&[("b", &["1", "2"]), ("a", &["3"])]),
        all(&[("a", &["1", "2"]), ("c", &["3"])]),
    ] {
        assert_ne!(one, other);
    }
}

#[test]
fn subjects_of_two_issuers_are_two_principals() {
    let of = |claims: Value| principal(object(&claims));
    let all = [
        of(json!({"iss": "a", "sub": "x"})),
        of(json!({"iss": "b", "sub": "x"})),
        of(json!({"sub": "x"})),
        of(json!({"sub": "[\"a\",\"x\"]"})),
        of(json!({"iss": "a\",\"x", "sub": ""})),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(one.is_some() && !all[..index].contains(one), "{all:?}");
    }
    assert_eq!(of(json!({"iss": "a"})), None);
}

#[test]
fn keys_of_a_set_that_would_break_the_library_are_ignored() {
    let short = json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"});
    let other = json!({"kty": "OKP", "crv": "P-256", "x": "A".repeat(43)});
    let off_curve = json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"});
    let small = json!({"kty": "RSA", "n": "A".repeat(86), "e": "AQAB"});
    let wrong = json!({"kty": "RSA", "n": "B".repeat(344), "e": "AQAB", "alg": "RSA-OAEP"});
    let set = json!({"keys": [short, other, off_curve, small, wrong, 1, null, {}]}).to_string();
    let algorithms = jwk::ALGORITHMS.map(|(_, algorithm)| algorithm);
    let keys = jwk::set(set.as_bytes(), &algorithms).expect("a set");
    assert!(keys.is_empty(), "{keys:?}");
    let many = json!({"keys": vec![json!({}); 65]}).to_string();
    assert!(jwk::set(many.as_bytes(), &algorithms).is_err());
}

/// What a request with these bytes as its token gets.
fn admitted(gate: &Gate, token: &[u8]) -> Result<Admission, Denied> {
    let value = [b"Bearer ", token].concat();
    let Ok(value) = hyper::header::HeaderValue::from_bytes(&value) else {
        return Err(Denied::Malformed);
    };
    let request = Request::get("/").header(AUTHORIZATION, value).body(()).expect("a request");
    gate.check(Terms::default(), &request, None)
}

fn good() -> String {
    let claims = json!({"exp": jsonwebtoken::get_current_timestamp() + 600, "sub": "alice"});
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET))
        .expect("a token")
}

fn with_secret(secret: &[u8]) -> Gate {
    let keys = vec![VerifyingKey::secret(secret, &[Algorithm::HS256])];
    let keys = vec![Keys { issuer: None, place: KeyPlace::Here(keys) }];
    Gate::new(&Jwt { keys, ..rules() }, &NO_CORS, Arc::new(Metrics::new(&[])))
}

#[test]
fn a_signature_is_verified_again_unless_its_key_is_still_here_and_the_token_is_the_same() {
    let good = good();
    let grant = admitted(&with_secret(SECRET), good.as_bytes()).expect("it is good");
    let credential = grant.credential.expect("there is a token");
    let (same, other) = (with_secret(SECRET), with_secret(&[7; 32]));
    let verified = |gate: &Gate, token: &str, before: bool| {
        let before = before.then_some(&*credential.signed_by);
        gate.keyring.verify(token, before).map(drop)
    };
    let spoilt = format!("{}AAAA", &good[..good.len() - 4]);
    assert_eq!(verified(&same, &spoilt, false), Err(Denied::Signature));
    assert_eq!(verified(&same, &spoilt, true), Ok(()), "the signature was verified again");
    assert_eq!(verified(&other, &good, true), Err(Denied::Signature));
    let readmits = |token: &str| {
        let bearer = format!("Bearer {token}");
        let request = Request::get("/").header(AUTHORIZATION, bearer).body(()).expect("a request");
        same.check(Terms::default(), &request, Some(&credential)).is_ok()
    };
    assert!(readmits(&good) && !readmits(&spoilt));
}

proptest! {
    #![proptest_config(crate::seed::cases())]

    #[test]
    fn no_bytes_pass_for_a_token(token in prop::collection::vec(any::<u8>(), 0..200)) {
        let gate = Gate::new(&rules(), &NO_CORS, Arc::new(Metrics::new(&[])));
        prop_assert!(admitted(&gate, &token).is_err());
    }

    #[test]
    fn no_text_passes_for_a_token(
        head in r#"\{("(alg|kid|crit|jwk|typ)":("HS256"|"none"|1|null|\[\]|\{\}),?){0,3}\}?"#,
        claims in r#"\{"exp":[0-9]{1,12}\}|\PC{0,20}"#,
        signature in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let gate = Gate::new(&rules(), &NO_CORS, Arc::new(Metrics::new(&[])));
        let part = |bytes: &[u8]| {
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes)
        };
        let parts = [part(head.as_bytes()), part(claims.as_bytes()), part(&signature)];
        prop_assert!(admitted(&gate, parts.join(".").as_bytes()).is_err());
    }

    #[test]
    fn no_byte_of_a_good_token_can_be_another(at in any::<prop::sample::Index>(), byte in 0x21..0x7f_u8) {
        let gate = Gate::new(&rules(), &NO_CORS, Arc::new(Metrics::new(&[])));
        let mut token = good().into_bytes();
        prop_assert!(admitted(&gate, &token).is_ok());
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        prop_assert!(admitted(&gate, &token).is_err());
    }
}
