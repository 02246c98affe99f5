//! Keys of every kind: in files, and at an address, where they change, are missing, or too many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;
use crate::support::address::own_address;
use crate::support::tls::Authority;
use crate::support::token::{Pair, hmac};

/// An address with keys.
pub(super) struct Issuer {
    address: SocketAddr,
    state: Arc<Mutex<Answer>>,
}

#[derive(Default)]
struct Answer {
    /// The whole response; empty: none at all.
    response: String,
    asked: usize,
}

impl Issuer {
    pub(super) fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Answer::default()));
        let shared = state.clone();
        // It ends with the tests' process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => answer(stream, &shared),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config).unwrap();
                        answer(rustls::StreamOwned::new(session, stream), &shared);
                    }
                });
            }
        });
        Self { address, state }
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        let body = json!({ "keys": keys }).to_string();
        self.answer(&format!("200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    pub(super) fn answer(&self, response: &str) {
        self.state.lock().unwrap().response = format!("HTTP/1.1 {response}");
    }

    pub(super) fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/keys?v=1", self.address)
    }
}

fn answer(mut stream: impl Read + Write, state: &Mutex<Answer>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{request}");
    let response = {
        let mut state = state.lock().unwrap();
        state.asked += 1;
        state.response.clone()
    };
    let _ = stream.write_all(response.as_bytes());
    let _ = stream.flush();
}

fn with_keys(keys: &str) -> Setup {
    setup(&[&format!("keys = [{keys}]"), "audience = [\"ssegate\"]"])
}

fn remote(issuer: &Issuer) -> String {
    format!("{{ alg = [\"RS256\", \"ES256\", \"EdDSA\"], jwks_url = {:?} }}", issuer.url())
}

fn claims() -> Value {
    json!({"aud": "ssegate", "exp": seconds_from_now(60)})
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    head(gateway, "/any/a", &bearer(token)).status
}

#[test]
fn each_algorithm_is_verified_with_keys_from_files() {
    let (rsa, p256, p384, ed) = (Pair::rsa(), Pair::ec("P-256"), Pair::ec("P-384"), Pair::ed());
    let rs = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let files = Folder::new();
    let set = files.0.join("set.json");
    let secret = json!({"kty": "oct", "kid": "s", "alg": "HS384", "k": crate::support::token::encoded("0".repeat(48))});
    let keys = json!({"keys": [rsa.jwk("r"), p256.jwk("p"), p384.jwk("q"), ed.jwk("e"), secret, {"kty": "new"}]});
    std::fs::write(&set, keys.to_string()).unwrap();
    let by_file = format!(
        "{{ alg = {rs:?}, public_key_file = {:?} }}, {{ alg = \"ES256\", public_key_file = {:?} }}, \
         {{ alg = \"ES384\", public_key_file = {:?} }}, {{ alg = \"EdDSA\", public_key_file = {:?} }}, \
         {{ alg = [\"HS256\", \"HS384\", \"HS512\"], secret_file = \"jwt\" }}",
        rsa.file(),
        p256.file(),
        p384.file(),
        ed.file()
    );
    let all = "[\"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\", \"EdDSA\", \"HS384\"]";
    let by_set = format!("{{ alg = {all}, jwks_file = {set:?} }}");
    let gateways = [with_keys(&by_file).start_ready(), with_keys(&by_set).start_ready()];
    let pairs = rs.map(|alg| (alg, &rsa, "r")).into_iter();
    let pairs = pairs.chain([("ES256", &p256, "p"), ("ES384", &p384, "q"), ("EdDSA", &ed, "e")]);
    for (alg, pair, kid) in pairs {
        let token = pair.sign(json!({"alg": alg, "kid": kid}), claims());
        for gateway in &gateways {
            assert_eq!(status(gateway, &token), 200, "{alg}");
        }
    }
    for alg in ["HS256", "HS384", "HS512"] {
        let token = hmac(SECRET.as_bytes(), &json!({"alg": alg}), &claims());
        assert_eq!(status(&gateways[0], &token), 200, "{alg}");
    }
    let token = hmac("0".repeat(48).as_bytes(), &json!({"alg": "HS384", "kid": "s"}), &claims());
    assert_eq!(status(&gateways[1], &token), 200);
    let token = hmac("0".repeat(48).as_bytes(), &json!({"alg": "HS256", "kid": "s"}), &claims());
    assert_eq!(status(&gateways[1], &token), 401);
}

#[test]
fn keys_at_an_address_are_fetched_and_new_ones_are_found() {
    let (old, new) = (Pair::ec("P-256"), Pair::ed());
    let issuer = Issuer::start(None);
    issuer.publish(&[old.jwk("old")]);
    let gateway = with_keys(&remote(&issuer)).start_ready();
    let by_old = old.sign(json!({"alg": "ES256", "kid": "old"}), claims());
    let by_new = new.sign(json!({"alg": "EdDSA", "kid": "new"}), claims());
    eventually("the keys are there", || status(&gateway, &by_old) == 200);
    // A set that was just fetched has all that there is.
    assert_eq!((status(&gateway, &by_new), issuer.asked()), (401, 1));
    issuer.publish(&[old.jwk("old"), new.jwk("new")]);
    eventually("the new key is found", || status(&gateway, &by_new) == 200);
    assert_eq!(
        (status(&gateway, &by_old), issuer.asked()),
        (200, 2),
        "asked once more, no oftener"
    );
    // What it says while it fails takes nothing away, and no name of a key is asked for again at once.
    issuer.answer("500 Oops\r\nContent-Length: 0\r\n\r\n");
    let unknown = old.sign(json!({"alg": "ES256", "kid": "?"}), claims());
    for _ in 0..20 {
        assert_eq!(status(&gateway, &unknown), 401);
    }
    assert_eq!((status(&gateway, &by_old), issuer.asked()), (200, 2));
}

#[test]
fn keys_that_never_came_are_not_the_clients_fault() {
    let pair = Pair::ec("P-256");
    let token = pair.sign(json!({"alg": "ES256", "kid": "k"}), claims());
    let issuer = Issuer::start(None);
    let elsewhere = Issuer::start(None);
    elsewhere.publish(&[pair.jwk("k")]);
    let moved = format!("302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    let filler = " ".repeat(300 << 10);
    let large = format!("200 OK\r\nContent-Length: {}\r\n\r\n{{{filler}", filler.len() + 100);
    issuer.answer(&moved);
    let keys = format!("{{ alg = \"HS256\", secret_file = \"jwt\" }}, {}", remote(&issuer));
    let gateway = with_keys(&keys).start_ready();
    let ask = |gateway: &Gateway, token: &str| {
        let request = format!("GET /any/a HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(token));
        exchange(&gateway.address, &request)
    };
    for (response, what) in [
        (&*moved, "302"),
        (&large, "no whole answer"),
        ("200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not a set of keys"),
    ] {
        issuer.answer(response);
        eventually("it was asked", || gateway.log().contains(what));
        let refused = ask(&gateway, &token);
        assert_eq!(refused.status, 200);
        assert!(refused.body.contains(r#"{"type":"unavailable","reason":"keys"}"#), "{refused:?}");
        let wait = refused.body.split_once("retry: ").unwrap().1.split_once('\n').unwrap().0;
        assert!(wait.parse::<u64>().unwrap() >= 10_000, "{wait}");
    }
    assert_eq!(elsewhere.asked(), 0, "no redirection is followed");
    assert!(!gateway.log().contains("v=1"), "a query is not for the log: {}", gateway.log());
    // Other keys' tokens are as good or bad as ever.
    assert_eq!(status(&gateway, &hs256(&claims())), 200);
    assert_eq!(status(&gateway, &hmac(b"x", &json!({"alg": "HS256"}), &claims())), 401);
    assert_eq!(status(&gateway, &token), 503);
    issuer.publish(&[pair.jwk("k")]);
    eventually("the keys come", || status(&gateway, &token) == 200);
}

#[test]
fn a_refusal_for_want_of_keys_is_a_status_where_the_operator_wants_one() {
    let token = Pair::ed().sign(json!({"alg": "EdDSA", "kid": "k"}), claims());
    let issuer = Issuer::start(None);
    issuer.answer("404 No\r\nContent-Length: 0\r\n\r\n");
    let gateway = with_keys(&remote(&issuer)).set("server", "refuse = \"status\"").start_ready();
    let request = format!("GET /any/a HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token));
    let refused = exchange(&gateway.address, &request);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(header(&refused, "retry-after").is_some());
    assert_eq!(super::refused(&gateway, "keys"), 1.0);
}

#[test]
fn a_secret_at_an_address_is_none_and_each_set_is_for_its_own_issuer() {
    let (a, b) = (Pair::ed(), Pair::ed());
    let issuers = [Issuer::start(None), Issuer::start(None)];
    let secret = json!({"kty": "oct", "kid": "s", "k": crate::support::token::encoded(SECRET)});
    let of_encryption = {
        let mut key = b.jwk("enc");
        key["use"] = json!("enc");
        key
    };
    // Both have a key of one name, as those that count from 1 do.
    issuers[0].publish(&[a.jwk("1"), secret]);
    issuers[1].publish(&[b.jwk("1"), of_encryption]);
    let names = ["https://a", "https://b"];
    let keys: Vec<String> = issuers
        .iter()
        .zip(names)
        .map(|(issuer, name)| {
            format!("{{ alg = \"EdDSA\", jwks_url = {:?}, issuer = {name:?} }}", issuer.url())
        })
        .collect();
    let gateway = setup(&[
        &format!("keys = [{}]", keys.join(", ")),
        &format!("issuer = {names:?}"),
        "audience = [\"ssegate\"]",
    ])
    .start_ready();
    let token = |pair: &Pair, kid: &str, issuer: &str| {
        let mut claims = claims();
        claims["iss"] = json!(issuer);
        pair.sign(json!({"alg": "EdDSA", "kid": kid}), claims)
    };
    for (pair, issuer) in [(&a, names[0]), (&b, names[1])] {
        eventually("its keys are there", || status(&gateway, &token(pair, "1", issuer)) == 200);
    }
    for (pair, issuer) in [(&a, names[1]), (&b, names[0])] {
        assert_eq!(status(&gateway, &token(pair, "1", issuer)), 401);
    }
    assert_eq!(status(&gateway, &token(&b, "enc", names[1])), 401);
    // One set for both, as an issuer with two names has it.
    let keys = names.map(|name| {
        format!("{{ alg = \"EdDSA\", jwks_url = {:?}, issuer = {name:?} }}", issuers[0].url())
    });
    let lines = [
        &*format!("keys = [{}]", keys.join(", ")),
        &*format!("issuer = {names:?}"),
        "audience = [\"ssegate\"]",
    ];
    let gateway = setup(&lines).start_ready();
    for issuer in names {
        eventually("it signs for both", || status(&gateway, &token(&a, "1", issuer)) == 200);
    }
    assert_eq!(status(&gateway, &token(&a, "1", "https://c")), 401);
    let by_secret = hmac(SECRET.as_bytes(), &json!({"alg": "HS256", "kid": "s"}), &claims());
    assert_eq!(status(&gateway, &by_secret), 401);
}

#[test]
fn keys_come_over_tls_from_a_server_that_the_system_trusts() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (authority, foreign) = (Authority::new(), Authority::new());
    let identity = authority.sign("127.0.0.1");
    let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let issuer = Issuer::start(Some(Arc::new(config)));
    let pair = Pair::ed();
    issuer.publish(&[pair.jwk("k")]);
    let token = pair.sign(json!({"alg": "EdDSA", "kid": "k"}), claims());
    let keys = remote(&issuer).replace("http://", "https://");
    let gateway = with_keys(&keys).env("SSL_CERT_FILE", &authority.file()).start_ready();
    eventually("the keys are there", || status(&gateway, &token) == 200);
    let asked = issuer.asked();
    let gateway = with_keys(&keys).env("SSL_CERT_FILE", &foreign.file()).start_ready();
    eventually("it is not trusted", || gateway.log().contains("no TLS: "));
    assert_eq!((status(&gateway, &token), issuer.asked()), (503, asked));
}

/// A configuration is good even if the address does not answer.
#[test]
fn an_address_that_nobody_answers_at_does_not_stop_a_start() {
    let nobody = own_address();
    assert!(TcpStream::connect(nobody).is_err());
    let issuer = Issuer { address: nobody, state: Arc::default() };
    let gateway = with_keys(&remote(&issuer)).start_ready();
    eventually("it was tried", || gateway.log().contains("keys cannot be fetched"));
    assert_eq!(head(&gateway, "/any/a", "").status, 401);
}
