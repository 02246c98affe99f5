//! `[auth.jwt]`, `access = "jwt"` and `match`.

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::refused::{assert_told, told};
use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef\n";

/// A configuration with these lines in `[auth.jwt]` and in its route, which needs a token.
fn with(jwt: &str, route: &str) -> Result<Loaded, Faults> {
    let routes = MINIMAL.replace("\"public\"", "\"jwt\"");
    parse(&format!("[auth.jwt]\n{jwt}\n{routes}{route}"), "f", &[], false)
}

/// The table of a key.
fn key(alg: &str, name: &str, file: &Path) -> String {
    format!("{{ alg = {alg}, {name} = {file:?} }}")
}

/// The faults of a key that is otherwise good.
#[track_caller]
fn assert_key_told(key: &str, begin: &str) {
    let told = told(with(&format!("audience = [\"a\"]\nkeys = [{key}]"), "match = \"any\""));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() == 1 && lines[0].contains(begin), "expected: {begin}\ntold: {told}");
    assert!(lines[0].starts_with("f:3:"), "{told}");
}

#[test]
fn every_key_of_the_section_is_read() {
    let secret = scratch_file("jwt-read", SECRET);
    let loaded = with(
        &format!(
            "keys = [{}]\nissuer = [\"https://a\"]\naudience = [\"x\", \"y\"]\nrequire = [\"exp\", \"sub\"]\n\
             leeway = \"0s\"\nfrom = [\"cookie:__Secure-t\", \"header\", \"query:token\"]\nwarn = \"5s\"",
            key("[\"HS256\", \"HS512\"]", "secret_file", &secret)
        ),
        "match = { name = \"streams\" }",
    );
    let Config { jwt, routes, .. } = loaded.unwrap().config;
    assert_eq!(jwt.keys.len(), 1);
    assert_eq!(
        (jwt.issuers, jwt.audiences),
        (vec!["https://a".into()], vec!["x".into(), "y".into()])
    );
    assert_eq!(jwt.require, ["exp", "sub"]);
    assert_eq!((jwt.leeway, jwt.warn), (Duration::ZERO, Duration::from_secs(5)));
    let cookie = TokenPlace::Cookie("__Secure-t".into());
    assert_eq!(jwt.from, [cookie, TokenPlace::Header, TokenPlace::Query("token".into())]);
    let rule = Match { variable: "name".into(), claim: "streams".into() };
    assert_eq!(routes[0].access, Access::Jwt(vec![rule]));
    remove(&secret);
}

#[test]
fn a_route_that_needs_tokens_needs_keys_and_a_rule_for_each_variable() {
    assert_told(with("", "match = \"any\""), "f:9:10: route.access = \"jwt\": needs keys");
    let secret = scratch_file("jwt-rules", SECRET);
    let keys = format!("keys = [{}]", key("\"HS256\"", "secret_file", &secret));
    for (rule, told) in [
        ("", "f:9:10: route.access = \"jwt\": any valid token would open every {name}"),
        ("match = {}", "f:10:9: route.match = {}: does not mention {name}"),
        (
            "match = { nam = \"s\" }",
            "f:10:9: route.match = { nam = \"s\" }: {nam} is not a variable of the path \"/events/{name}\"; did you mean \"name\"?",
        ),
        (
            "match = { name = 1 }",
            "f:10:9: route.match = { name = 1 }: 1 is not the name of a claim",
        ),
        ("match = \"all\"", "f:10:9: route.match = \"all\": not a rule"),
    ] {
        assert_told(with(&keys, rule), told);
    }
    let both = "match = { name = \"s\", x = \"s\" }";
    assert!(told(with(&keys, both)).contains("{x} is not a variable"));
    assert_told(
        with_route("match = { name = \"s\" }"),
        "gateway.toml:8:9: route.match = { name = \"s\" }: is for tokens, but access is",
    );
    remove(&secret);
}

#[test]
fn unusable_keys_are_faults() {
    let secret = scratch_file("jwt-secret", SECRET);
    let pair = KeyPair::generate().unwrap();
    let public = scratch_file("jwt-public", pair.public_key_pem().as_bytes());
    let private = scratch_file("jwt-private", pair.serialize_pem().as_bytes());
    let set =
        scratch_file("jwt-set", b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"\"},{\"kty\":\"?\"},7]}");
    let no_set = scratch_file("jwt-no-set", b"[]");
    let url = |alg: &str, url: &str| format!("{{ alg = {alg}, jwks_url = \"{url}\" }}");
    for (key, told) in [
        (key("\"none\"", "secret_file", &secret), "auth.jwt.keys.alg = \"none\": not an algorithm"),
        (key("\"HS265\"", "secret_file", &secret), "did you mean \"HS256\"?"),
        (key("[]", "secret_file", &secret), "names no algorithm"),
        (key("1", "secret_file", &secret), "not a list"),
        (key("\"RS256\"", "secret_file", &secret), "a secret is for HS256"),
        (key("[\"HS256\", \"RS256\"]", "secret_file", &secret), "different kinds of keys"),
        (key("\"HS256\"", "public_key_file", &public), "a public key is not a secret"),
        (key("\"HS256\"", "secret_file", &public), "holds a key in PEM form, not a secret"),
        (key("\"RS256\"", "public_key_file", &public), "holds another kind of key than alg says"),
        (key("\"ES384\"", "public_key_file", &public), "holds no key for ES384"),
        (key("\"EdDSA\"", "public_key_file", &public), "holds another kind of key"),
        (key("\"ES256\"", "public_key_file", &private), "holds a private key"),
        (key("\"ES256\"", "public_key_file", &secret), "holds no public key in PEM form"),
        (key("\"HS256\"", "jwks_file", &set), "holds no key for the algorithms of alg"),
        (key("\"HS256\"", "jwks_file", &no_set), "is not a set of keys"),
        (key("\"HS256\"", "jwks_file", &secret), "is not JSON"),
        (key("\"HS256\"", "secret_file", Path::new("/no/such")), "cannot be read"),
        (url("\"HS256\"", "https://a/b"), "would know the secret"),
        (url("\"RS256\"", "ftp://a/b"), "not the URL of a set of keys"),
        (url("\"RS256\"", "/a/b"), "not the URL of a set of keys"),
        (url("\"RS256\"", "https://me:hunter2@a/b"), "user name or password"),
        ("{ alg = \"HS256\" }".into(), "does not say where the key is"),
        (format!("{{ secret_file = {secret:?} }}"), "auth.jwt.keys.alg: missing"),
        ("{ alg = \"HS256\", secret_file = \"\" }".into(), "cannot be read"),
        ("7".into(), "not a list of keys"),
    ] {
        assert_key_told(&key, told);
    }
    // The value may be a secret: it is not shown.
    let inline =
        told(with("keys = [{ alg = \"HS256\", secret = \"hunter2\" }]", "match = \"any\""));
    assert!(
        inline.contains("auth.jwt.keys.secret: unknown key") && !inline.contains("hunter2"),
        "{inline}"
    );
    for file in [secret, public, private, set, no_set] {
        remove(&file);
    }
}

#[test]
fn each_kind_of_key_is_read() {
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let p256 = KeyPair::generate().unwrap();
    for (alg, pair) in [("ES384", p384), ("EdDSA", ed), ("ES256", p256)] {
        let file = scratch_file(&format!("jwt-{alg}"), pair.public_key_pem().as_bytes());
        let key = key(&format!("\"{alg}\""), "public_key_file", &file);
        let loaded = with(&format!("keys = [{key}]"), "match = \"any\"").unwrap();
        assert_eq!(loaded.warnings, [], "{alg}");
        remove(&file);
    }
    let url = "keys = [{ alg = [\"RS256\", \"EdDSA\"], jwks_url = \"http://127.0.0.1:1/keys\" }]\naudience = [\"a\"]";
    assert_eq!(with(url, "match = \"any\"").unwrap().warnings, []);
    let plain = with(&url.replace("127.0.0.1", "keys.example"), "match = \"any\"").unwrap();
    assert_eq!(plain.config.risks()[0].choice, "plain_jwks");
    let reachable = format!("{url}\n[server]\nlisten = [\"0.0.0.0:1\"]");
    let open = with(&reachable, "match = \"any\"").unwrap();
    assert_eq!(open.config.risks()[0].choice, "plain_token");
    let behind = format!("{reachable}\n[proxy]\ntrusted = [\"10.0.0.0/8\"]");
    assert_eq!(with(&behind, "match = \"any\"").unwrap().config.risks(), []);
}

#[test]
fn rules_that_would_admit_too_many_tokens_are_faults() {
    let url = "{ alg = \"RS256\", jwks_url = \"http://127.0.0.1:1/keys\" }";
    let any = "match = \"any\"";
    let own = url.replace(" }", ", issuer = \"https://a\" }");
    for (jwt, told) in [
        (
            format!("keys = [{url}]"),
            "f:2:37: auth.jwt.keys.jwks_url = \"http://127.0.0.1:1/keys\": this issuer also signs for others",
        ),
        (
            format!("keys = [{url}]\naudience = [\"x\"]\nissuer = [\"https://a\", \"https://b\"]"),
            "could sign for any of the issuers",
        ),
        (
            format!("keys = [{own}]\naudience = [\"x\"]\nissuer = [\"https://b\"]"),
            "is of issuer \"https://a\", which auth.jwt.issuer does not list",
        ),
        ("require = [\"sub\"]".into(), "lacks \"exp\""),
        ("from = []".into(), "names no place"),
        ("from = [\"body\"]".into(), "not a place of a token"),
        ("from = [\"cookie:a b\"]".into(), "not a place of a token"),
        ("leeway = \"61s\"".into(), "out of range"),
        ("issuer = [\"\"]".into(), "empty"),
    ] {
        let all = self::told(with(&jwt, any));
        let lines = all.lines().filter(|line| !line.contains("needs keys"));
        assert!(lines.clone().count() == 1 && all.contains(told), "expected: {told}\ntold: {all}");
    }
    with(
        &format!("keys = [{own}]\naudience = [\"x\"]\nissuer = [\"https://a\", \"https://b\"]"),
        any,
    )
    .unwrap();
}

#[test]
fn a_short_secret_is_warned_about() {
    let file = scratch_file("jwt-short", b"dev-secret");
    let keys = format!("keys = [{}]", key("\"HS256\"", "secret_file", &file));
    let [warning] = &with(&keys, "match = \"any\"").unwrap().warnings[..] else { panic!() };
    assert!(warning.to_string().contains("a secret of 10 bytes can be guessed"), "{warning}");
    remove(&file);
}

#[test]
fn the_environment_overrides_lists_and_has_no_part_in_keys() {
    let env = |pairs: &[(&str, &str)]| under(pairs).unwrap().config.jwt;
    assert_eq!(env(&[("SSEGATE_AUTH_JWT_ISSUER", "a,b")]).issuers, ["a", "b"]);
    assert_told(
        under(&[("SSEGATE_AUTH_JWT_KEYS_ALG", "HS256")]),
        "environment: SSEGATE_AUTH_JWT_KEYS_ALG: unknown variable",
    );
}
