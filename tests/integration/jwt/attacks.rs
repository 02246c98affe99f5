//! Tokens of an attacker (RFC 8725, and what was found in others): each is refused, each for its reason.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::*;
use crate::support::token::{Pair, encoded, hmac, signed};

const A: &str = "https://a.example";
const B: &str = "https://b.example";

/// Two issuers: A signs with a secret or RS256, B with EdDSA, by a set of keys.
struct Scene {
    gateway: Gateway,
    rsa: Pair,
    ed: Pair,
}

impl Scene {
    fn new() -> Self {
        let (rsa, ed) = (Pair::rsa(), Pair::ed());
        let files = Folder::new();
        let set = files.0.join("set.json");
        std::fs::write(&set, json!({"keys": [ed.jwk("b-1")]}).to_string()).unwrap();
        let keys = format!(
            "keys = [{{ alg = \"HS256\", secret_file = \"jwt\", issuer = {A:?} }}, \
             {{ alg = \"RS256\", public_key_file = {:?}, issuer = {A:?} }}, \
             {{ alg = \"EdDSA\", jwks_file = {set:?}, issuer = {B:?} }}]",
            rsa.file()
        );
        let issuers = format!("issuer = [{A:?}, {B:?}]");
        let setup = setup(&[&keys, &issuers, "audience = [\"ssegate\"]"]);
        let gateway = setup.set("log", "level = \"trace\"").start_ready();
        Self { gateway, rsa, ed }
    }

    /// Refused, with the same few words for every reason; the metric has the reason.
    #[track_caller]
    fn refuses(&self, token: &str, reason: &str) {
        let before = refused(&self.gateway, reason);
        let head =
            format!("GET /any/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", bearer(token));
        let response = exchange(&self.gateway.address, &head);
        assert_eq!(response.status, 401, "{token}\n{response:?}");
        assert_eq!(header(&response, "www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert_eq!(response.body, "the token is not accepted\n");
        let after = refused(&self.gateway, reason);
        assert_eq!(after, before + 1.0, "{token}\n{}", self.gateway.admin_get("/metrics").body);
        // With trace logging, even.
        assert!(token.len() < 8 || !self.gateway.log().contains(token), "{}", self.gateway.log());
    }

    #[track_caller]
    fn accepts(&self, token: &str) {
        let response = super::head(&self.gateway, "/any/a", &bearer(token));
        assert_eq!(response.status, 200, "{token}\n{response:?}");
    }
}

/// Claims of A's that are good, with these instead.
fn claims(other: Value) -> Value {
    let mut all = json!({"iss": A, "aud": "ssegate", "sub": "alice", "exp": seconds_from_now(600)});
    for (name, value) in other.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

fn without(name: &str) -> Value {
    let mut all = claims(json!({}));
    all.as_object_mut().unwrap().remove(name);
    all
}

fn of_b() -> Value {
    claims(json!({"iss": B}))
}

#[test]
fn good_tokens_of_each_issuer_are_accepted_whatever_else_their_heads_say() {
    let scene = Scene::new();
    scene.accepts(&hs256(&claims(json!({}))));
    scene.accepts(&hs256(&claims(json!({"aud": ["x", "ssegate"], "nbf": seconds_from_now(5)}))));
    scene.accepts(&hs256(&claims(json!({"exp": seconds_from_now(60) as f64 + 0.5}))));
    scene.accepts(&scene.rsa.sign(json!({"alg": "RS256", "kid": "anything"}), claims(json!({}))));
    scene.accepts(&scene.ed.sign(json!({"alg": "EdDSA", "kid": "b-1"}), of_b()));
    let foreign = Pair::ed();
    let head =
        json!({"alg": "EdDSA", "kid": "b-1", "jwk": foreign.jwk("b-1"), "jku": "https://x/"});
    scene.accepts(&scene.ed.sign(head, of_b()));
}

#[test]
fn signatures_that_are_none_are_refused() {
    let scene = Scene::new();
    let good = hs256(&claims(json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    for none in ["none", "None", "nOnE", "NONE", "", "HS257"] {
        let unsigned = signed(&json!({"alg": none}), &claims(json!({})), |_| Vec::new());
        scene.refuses(&unsigned, "malformed");
        scene.refuses(&format!("{unsigned}{signature}"), "malformed");
    }
    scene.refuses(&signed(&json!({"typ": "JWT"}), &claims(json!({})), |_| Vec::new()), "malformed");
    scene.refuses(&format!("{message}."), "signature");
    scene.refuses(&format!("{message}.{}", &signature[..40]), "signature");
    scene.refuses(&format!("{message}.{}", encoded([0; 32])), "signature");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    scene.refuses(&format!("{message}.{flipped}{}", &signature[1..]), "signature");
    let (head, _) = message.split_once('.').unwrap();
    let forged = encoded(claims(json!({"sub": "root"})).to_string());
    scene.refuses(&format!("{head}.{forged}.{signature}"), "signature");
    scene.refuses(&hmac(b"", &json!({"alg": "HS256"}), &claims(json!({}))), "signature");
    scene.refuses(&hmac(b"another", &json!({"alg": "HS256"}), &claims(json!({}))), "signature");
    // A zero signature once was good to every ECDSA key of Java.
    let zero = signed(&json!({"alg": "EdDSA", "kid": "b-1"}), &of_b(), |_| vec![0; 64]);
    scene.refuses(&zero, "signature");
    scene.accepts(&good);
}

#[test]
fn a_key_verifies_what_it_is_listed_for_and_nothing_else() {
    let scene = Scene::new();
    // The public key taken for a secret, in each form that an attacker may guess.
    let pem = std::fs::read_to_string(scene.rsa.file()).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for secret in [pem.as_str(), pem.trim_end(), &pem.replace('\n', "\r\n"), &body] {
        scene.refuses(
            &hmac(secret.as_bytes(), &json!({"alg": "HS256"}), &claims(json!({}))),
            "signature",
        );
    }
    for alg in ["HS384", "HS512"] {
        let token = hmac(SECRET.as_bytes(), &json!({"alg": alg}), &claims(json!({})));
        scene.refuses(&token, "algorithm");
    }
    for alg in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        scene.refuses(&scene.rsa.sign(json!({"alg": alg}), claims(json!({}))), "algorithm");
    }
    // The head says one thing and the signature is another.
    let pss = scene.rsa.sign(json!({"alg": "PS256"}), claims(json!({})));
    let (_, rest) = pss.split_once('.').unwrap();
    let head = encoded(json!({"alg": "RS256"}).to_string());
    scene.refuses(&format!("{head}.{rest}"), "signature");
    scene.refuses(&Pair::rsa().sign(json!({"alg": "RS256"}), claims(json!({}))), "signature");
    scene.refuses(&Pair::ec("P-256").sign(json!({"alg": "ES256"}), claims(json!({}))), "algorithm");
}

#[test]
fn names_of_keys_lead_nowhere_but_to_our_keys() {
    let scene = Scene::new();
    let tricks = [
        "",
        "b-2",
        "b-1 ",
        "B-1",
        "../../../../dev/null",
        "' OR 1=1 --",
        "/etc/passwd",
        "b-1\u{0}",
    ];
    let long = "k".repeat(3000);
    for kid in tricks.into_iter().chain([long.as_str()]) {
        scene.refuses(&scene.ed.sign(json!({"alg": "EdDSA", "kid": kid}), of_b()), "key");
    }
    for kid in [json!(1), json!(["b-1"]), json!({"b-1": 1})] {
        scene.refuses(&scene.ed.sign(json!({"alg": "EdDSA", "kid": kid}), of_b()), "malformed");
    }
    scene.refuses(&scene.ed.sign(json!({"alg": "EdDSA"}), of_b()), "key");
    scene.refuses(&scene.ed.sign(json!({"alg": "EdDSA", "kid": null}), of_b()), "key");
    // Another issuer's key, and its name, do not make another issuer's token.
    let foreign = Pair::ed();
    scene.refuses(&foreign.sign(json!({"alg": "EdDSA", "kid": "b-1"}), of_b()), "signature");
    scene.refuses(
        &scene.ed.sign(json!({"alg": "EdDSA", "kid": "b-1"}), claims(json!({}))),
        "issuer",
    );
    let by_a = hmac(SECRET.as_bytes(), &json!({"alg": "HS256", "kid": "b-1"}), &of_b());
    scene.refuses(&by_a, "issuer");
}

#[test]
fn keys_that_a_token_brings_are_not_looked_at() {
    let scene = Scene::new();
    let (foreign, listener) = (Pair::ed(), TcpListener::bind("127.0.0.1:0").unwrap());
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    for extra in [
        json!({"jwk": foreign.jwk("b-1")}),
        json!({"jku": url}),
        json!({"x5u": url}),
        json!({"x5c": [encoded("certificate")]}),
        json!({"jwk": foreign.jwk("b-1"), "jku": url, "x5u": url, "x5t": "x"}),
    ] {
        let mut head = json!({"alg": "EdDSA", "kid": "b-1"});
        head.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        scene.refuses(&foreign.sign(head, of_b()), "signature");
    }
    let nobody = listener.accept().map(drop).unwrap_err().kind();
    assert_eq!(nobody, std::io::ErrorKind::WouldBlock, "nobody asks there");
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(["x"])] {
        let head = json!({"alg": "HS256", "crit": crit, "b64": false, "x": 1});
        scene.refuses(&hmac(SECRET.as_bytes(), &head, &claims(json!({}))), "critical");
    }
}

#[test]
fn times_that_are_none_are_refused() {
    let scene = Scene::new();
    let (past, future) = (seconds_from_now(-60), seconds_from_now(60));
    let with = |name: &str, value: Value| hs256(&claims(json!({ name: value })));
    for exp in [json!(past), json!(0), json!(past as f64 + 0.5)] {
        scene.refuses(&with("exp", exp), "expired");
    }
    let odd = [
        (json!(future.to_string()), "claim"),
        (json!(null), "claim"),
        (json!(true), "claim"),
        (json!(-future), "claim"),
        (json!(""), "claim"),
        (json!("never"), "claim"),
        (json!([future]), "malformed"),
        (json!({"$numberLong": future}), "malformed"),
    ];
    for (time, reason) in odd {
        scene.refuses(&with("exp", time.clone()), reason);
        scene.refuses(&with("nbf", time), reason);
    }
    scene.refuses(&hs256(&without("exp")), "claim");
    scene.refuses(&with("nbf", json!(future)), "not_yet");
    let raw = |exp: &str| {
        let text = format!(r#"{{"iss":"{A}","aud":"ssegate",{exp}}}"#);
        let message = format!("{}.{}", encoded(r#"{"alg":"HS256"}"#), encoded(text));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        format!("{message}.{}", encoded(ring::hmac::sign(&key, message.as_bytes())))
    };
    scene.accepts(&raw(&format!(r#""exp":{future}"#)));
    scene.accepts(&raw(r#""exp":1e300"#));
    scene.refuses(&raw(r#""exp":1e999"#), "malformed");
    scene.refuses(&raw(r#""exp":NaN"#), "malformed");
    scene.refuses(&raw(&format!(r#""exp":{past},"exp":{future}"#)), "malformed");
}

#[test]
fn tokens_of_and_for_others_are_refused() {
    let scene = Scene::new();
    let with = |name: &str, value: Value| hs256(&claims(json!({ name: value })));
    for aud in [
        json!("other"),
        json!("ssegate2"),
        json!("Ssegate"),
        json!("x,ssegate"),
        json!([]),
        json!(["x"]),
        json!(null),
    ] {
        scene.refuses(&with("aud", aud), "audience");
    }
    scene.refuses(&hs256(&without("aud")), "audience");
    for aud in [json!(1), json!({"ssegate": 1}), json!([["ssegate"]]), json!(["ssegate", 1])] {
        scene.refuses(&with("aud", aud), "claim");
    }
    for iss in ["https://a.example/", "https://c.example", "", "HTTPS://A.EXAMPLE"] {
        scene.refuses(&with("iss", json!(iss)), "issuer");
    }
    scene.refuses(&hs256(&without("iss")), "issuer");
    for iss in [json!([A]), json!(null), json!(1), json!({"a": A})] {
        scene.refuses(&with("iss", iss), "issuer");
    }
    for (sub, reason) in [
        (json!(1), "claim"),
        (json!(null), "claim"),
        (json!(["alice"]), "malformed"),
        (json!({}), "malformed"),
    ] {
        scene.refuses(&with("sub", sub), reason);
    }
}

#[test]
fn garbage_is_refused_and_disturbs_nobody() {
    let scene = Scene::new();
    let good = hs256(&claims(json!({})));
    let mut watching = Client::with(
        &scene.gateway.address,
        "/any/a",
        &[("Authorization", &format!("Bearer {good}"))],
    );
    watching.live();
    let deep = encoded("[".repeat(4000));
    for garbage in [
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "null",
        "{}",
        "\"\"",
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good} x"),
        &format!("{good}="),
        &format!("{good},{good}"),
        &good.replace('.', ".."),
        &format!("{}.{}.{}", encoded("[]"), encoded("{}"), encoded("x")),
        &format!("{deep}.{deep}.x"),
        &encoded([0xff; 100]),
        &"A".repeat(8 << 10),
        &"A".repeat(9 << 10),
    ] {
        scene.refuses(garbage, "malformed");
    }
    for claims in ["[]", "null", "1", "\"x\"", "", "{", "{\"exp\":1}x"] {
        let message = format!("{}.{}", encoded(r#"{"alg":"HS256"}"#), encoded(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = encoded(ring::hmac::sign(&key, message.as_bytes()));
        scene.refuses(&format!("{message}.{signature}"), "malformed");
    }
    // Larger than a head may be.
    let response = super::head(&scene.gateway, "/any/a", &bearer(&"A".repeat(100 << 10)));
    assert!(matches!(response.status, 0 | 431), "{response:?}");
    scene.gateway.publish("events:a", "still here");
    assert_eq!(watching.entry().data, "still here");
    let log = scene.gateway.log();
    let lines = log.lines().filter(|line| line.contains("refused for its token"));
    assert!(lines.clone().count() <= 3, "once for each reason: {log}");
    assert!(lines.clone().all(|line| line.contains("\"reason\":")), "{log}");
}
