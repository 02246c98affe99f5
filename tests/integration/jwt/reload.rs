//! Tokens that were good when their streams began, held against what a new configuration says.

use std::time::{Duration, Instant};

use super::keys::Issuer;
use super::*;
use crate::support::token::{Pair, hmac};

/// The routes, and these lines of `[auth.jwt]`; secrets are in a folder that stays.
fn with(lines: &[&str]) -> Setup {
    let setup = Setup::memory().routes(ROUTES).set("server", "keepalive = \"1h\"");
    lines.iter().fold(setup, |setup, line| setup.set("auth.jwt", line))
}

fn keys(pairs: &[&Pair]) -> String {
    let key = |pair: &&Pair| format!("{{ alg = \"EdDSA\", public_key_file = {:?} }}", pair.file());
    format!("keys = [{}]", pairs.iter().map(key).collect::<Vec<_>>().join(", "))
}

fn signed(pair: &Pair, more: &Value) -> String {
    let mut claims = json!({"sub": "alice", "aud": "us", "exp": seconds_from_now(600)});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pair.sign(json!({"alg": "EdDSA", "kid": "k"}), claims)
}

fn open(gateway: &Gateway, path: &str, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    let mut client = Client::with(&gateway.address, path, &[("Authorization", &bearer)]);
    client.live();
    client
}

/// Reloads the configuration, after which these streams go on and those end.
#[track_caller]
fn judges(gateway: &Gateway, setup: &Setup, kept: &mut [&mut Client], ended: &mut [&mut Client]) {
    gateway.write(setup);
    let begin = Instant::now();
    let line = gateway.reload();
    assert_eq!((&line["kept"], &line["ended"]), (&json!(kept.len()), &json!(ended.len())));
    for client in ended {
        assert_eq!(client.control().0, json!({"type": "expired"}));
        assert!(begin.elapsed() < Duration::from_secs(5), "after {:?}", begin.elapsed());
        assert_eq!((client.rest(), client.complete), (Vec::new(), true));
    }
    gateway.publish("events:a", "on");
    for client in kept {
        assert_eq!(client.event().data, "on");
    }
}

#[test]
fn a_stream_whose_key_is_gone_ends_and_no_other() {
    let (old, new) = (Pair::ed(), Pair::ed());
    let audience = "audience = [\"us\"]";
    let gateway = with(&[&keys(&[&old, &new]), audience]).start_ready();
    let mut by_old = open(&gateway, "/any/a", &signed(&old, &json!({})));
    let mut by_new = open(&gateway, "/any/a", &signed(&new, &json!({})));
    let mut without = Client::open(&gateway.address, "/public/a");
    without.live();
    let only_new = with(&[&keys(&[&new]), audience]);
    judges(&gateway, &only_new, &mut [&mut by_new, &mut without], &mut [&mut by_old]);
    assert_eq!(head(&gateway, "/any/a", &bearer(&signed(&old, &json!({})))).status, 401);
    // A stream that a reload ends does not count as a refused request.
    assert_eq!(refused(&gateway, "signature"), 1.0);
}

#[test]
fn a_stream_whose_token_lacks_a_claim_that_is_now_required_ends() {
    let pair = Pair::ed();
    let keys = keys(&[&pair]);
    let gateway = with(&[&keys, "audience = [\"us\", \"them\"]"]).start_ready();
    let mut of_us = open(&gateway, "/any/a", &signed(&pair, &json!({"iss": "a", "tenant": 1})));
    let mut of_them = open(&gateway, "/any/a", &signed(&pair, &json!({"aud": "them"})));
    let mut of_b = open(&gateway, "/any/a", &signed(&pair, &json!({"iss": "b"})));
    let mut nobody = open(&gateway, "/any/a", &signed(&pair, &json!({"iss": "a"})));
    let mut path = open(
        &gateway,
        "/events/a",
        &signed(&pair, &json!({"streams": "a", "iss": "a", "tenant": 1})),
    );
    let us = "audience = [\"us\"]";
    let mut kept = [&mut of_us, &mut of_b, &mut nobody, &mut path];
    judges(&gateway, &with(&[&keys, us]), &mut kept, &mut [&mut of_them]);
    let issuer = "issuer = [\"a\"]";
    let mut kept = [&mut of_us, &mut nobody, &mut path];
    judges(&gateway, &with(&[&keys, us, issuer]), &mut kept, &mut [&mut of_b]);
    let require = "require = [\"exp\", \"tenant\"]";
    let mut kept = [&mut of_us, &mut path];
    judges(&gateway, &with(&[&keys, us, issuer, require]), &mut kept, &mut [&mut nobody]);
    let other = ROUTES.replace("name = \"streams\"", "name = \"rooms\"");
    let setup = with(&[&keys, us, issuer, require]).routes(&other);
    judges(&gateway, &setup, &mut [&mut of_us], &mut [&mut path]);
}

#[test]
fn a_stream_whose_token_is_in_a_place_no_longer_searched_ends() {
    let pair = Pair::ed();
    let (keys, audience) = (keys(&[&pair]), "audience = [\"us\"]");
    let from = |places: &str, origins: &str| {
        with(&[&keys, audience, &format!("from = [{places}]")])
            .set("cors", &format!("origins = [{origins}]"))
            .set("cors", "credentials = true")
    };
    let both = "\"https://a.example\", \"https://b.example\"";
    let gateway = from("\"header\", \"cookie:t\", \"query:t\"", both).start_ready();
    let token = signed(&pair, &json!({}));
    let mut by_header = open(&gateway, "/any/a", &token);
    let mut by_query = Client::open(&gateway.address, &format!("/any/a?x=1&t={token}"));
    by_query.live();
    let cookie = |origin: &str| {
        let headers = [("Cookie", &*format!("a=b; t={token}")), ("Origin", origin)];
        let mut client = Client::with(&gateway.address, "/any/a", &headers);
        client.live();
        client
    };
    let (mut of_a, mut of_b) = (cookie("https://a.example"), cookie("https://b.example"));
    let setup = from("\"header\", \"cookie:t\"", both);
    let mut kept = [&mut by_header, &mut of_a, &mut of_b];
    judges(&gateway, &setup, &mut kept, &mut [&mut by_query]);
    let setup = from("\"cookie:t\", \"header\"", "\"https://a.example\"");
    judges(&gateway, &setup, &mut [&mut by_header, &mut of_a], &mut [&mut of_b]);
    // Without credentials a browser would not let the page read what it got for its cookie.
    let setup = from("\"cookie:t\", \"header\"", both).set("cors", "credentials = false");
    judges(&gateway, &setup, &mut [&mut by_header], &mut [&mut of_a]);
}

#[test]
fn keys_at_an_address_are_fetched_before_they_are_applied() {
    let (old, new) = (Pair::ed(), Pair::ed());
    let issuer = Issuer::start(None);
    issuer.publish(&[old.jwk("o"), new.jwk("n")]);
    let at = |issuer: &Issuer| {
        let keys = format!("keys = [{{ alg = \"EdDSA\", jwks_url = {:?} }}]", issuer.url());
        with(&[&keys, "audience = [\"us\"]"])
    };
    let gateway = at(&issuer).start_ready();
    let token = |pair: &Pair, kid: &str| {
        let claims = json!({"aud": "us", "exp": seconds_from_now(600)});
        pair.sign(json!({"alg": "EdDSA", "kid": kid}), claims)
    };
    eventually("the keys are there", || {
        head(&gateway, "/any/a", &bearer(&token(&new, "n"))).status == 200
    });
    let mut by_old = open(&gateway, "/any/a", &token(&old, "o"));
    let mut by_new = open(&gateway, "/any/a", &token(&new, "n"));
    // What cannot be had now stays as it was.
    issuer.answer("500 Oops\r\nContent-Length: 0\r\n\r\n");
    judges(&gateway, &at(&issuer), &mut [&mut by_old, &mut by_new], &mut []);
    issuer.publish(&[new.jwk("n")]);
    judges(&gateway, &at(&issuer), &mut [&mut by_new], &mut [&mut by_old]);
    // An address that was never asked at has to answer.
    let other = Issuer::start(None);
    other.answer("500 Oops\r\nContent-Length: 0\r\n\r\n");
    gateway.write(&at(&other));
    let line = gateway.reload();
    assert!(line["message"].as_str().unwrap().contains("no token could be verified"), "{line}");
    assert_eq!(head(&gateway, "/any/a", &bearer(&token(&new, "n"))).status, 200);
    other.publish(&[new.jwk("n"), old.jwk("o")]);
    judges(&gateway, &at(&other), &mut [&mut by_new], &mut []);
    let asked = issuer.asked();
    let mut by_old = open(&gateway, "/any/a", &token(&old, "o"));
    judges(&gateway, &at(&other), &mut [&mut by_new, &mut by_old], &mut []);
    assert_eq!(issuer.asked(), asked, "an issuer that is gone from the file is no longer asked");
}

#[test]
fn secrets_are_read_again_from_their_files() {
    let folder = Folder::new();
    let file = folder.0.join("secret");
    let secrets = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    std::fs::write(&file, secrets[0]).unwrap();
    let setup = || with(&[&format!("keys = [{{ alg = \"HS256\", secret_file = {file:?} }}]")]);
    let gateway = setup().start_ready();
    let token = |secret: &str| {
        hmac(secret.as_bytes(), &json!({"alg": "HS256"}), &json!({"exp": seconds_from_now(600)}))
    };
    let mut before = open(&gateway, "/any/a", &token(secrets[0]));
    std::fs::write(&file, secrets[1]).unwrap();
    judges(&gateway, &setup(), &mut [], &mut [&mut before]);
    let mut after = open(&gateway, "/any/a", &token(secrets[1]));
    judges(&gateway, &setup(), &mut [&mut after], &mut []);
}
