//! Faults of the source, its login and its TLS.

use super::refused::{assert_told, told};
use super::*;

#[test]
fn unusable_sources_are_faults() {
    for url in [
        "",
        "h:6379",
        "http://h",
        "memory://",
        "redis://",
        "redis:///1",
        "redis://h/x",
        "redis://h/x",
        "rediss:///",
        "redis-sentinel://h",
        "redis-sentinel://h//1",
        "redis-sentinel://h/name/x",
        "redis-sentinel://h/name/1/2",
        "redis-sentinel://h,/name",
        "redis-sentinel://,h/name",
        "redis-cluster://",
        "redis-cluster://h,:1",
        "redis-cluster://h/x",
        "redis-cluster://h?a=b",
    ] {
        let told = told(with_source(&format!("url = \"{url}\"")));
        assert!(told.starts_with("gateway.toml:2:7: source.url"), "{url}: {told}");
    }
    let unix = [
        "redis+unix://h/p",
        "redis+unix:///p?db=x",
        "redis+unix:///p?database=1",
        "redis+unix:///",
    ];
    for url in unix {
        let told = told(with_source(&format!("url = \"{url}\"")));
        assert!(told.starts_with("gateway.toml:2:7: source.url = \"redis+unix:…\": "), "{told}");
    }
    assert_told(
        with_source("url = \"redis://me@h\"\nusername = \"you\""),
        "gateway.toml:3:12: source.username = \"you\": source.url names a user too",
    );
}

#[test]
fn settings_of_another_kind_of_source_are_faults() {
    let of_no_use = "is for TLS, which source.url does not speak";
    for key in ["ca_file", "client_certificate", "client_key", "server_name"] {
        assert_told(
            with_source(&format!("url = \"redis://h\"\n{key} = \"/f\"")),
            &format!("gateway.toml:3:{}: source.{key} = \"/f\": {of_no_use}", key.len() + 4),
        );
    }
    assert_told(
        with_source("url = \"redis://h\"\nsentinel_username = \"me\""),
        "gateway.toml:3:21: source.sentinel_username = \"me\": sentinels have a login here",
    );
    assert_told(
        with_source("url = \"memory:\"\nread_from = \"replica\""),
        "gateway.toml:3:13: source.read_from = \"replica\": the embedded source has no replica",
    );
}

#[test]
fn a_single_connection_is_a_fault_and_none_is_no_limit() {
    assert_told(
        with_source("url = \"redis://h\"\nconnections = 1"),
        "gateway.toml:3:15: source.connections = 1: over one connection the gateway waits",
    );
    let connections = |lines: &str| with_source(lines).unwrap().config.source.connections;
    assert_eq!(connections("url = \"redis://h\"\nconnections = 0"), 0);
    assert_eq!(connections("url = \"redis://h\""), 64);
}

#[test]
fn unusable_files_of_tls_are_faults() {
    let with = |lines: &str| with_source(&format!("url = \"rediss://h\"\n{lines}"));
    assert_told(
        with("ca_file = \"/no/such\""),
        "gateway.toml:3:11: source.ca_file = \"/no/such\": cannot be read as /no/such: ",
    );
    // It exists, but is not PEM.
    assert_told(
        with("ca_file = \"Cargo.toml\""),
        "gateway.toml:3:11: source.ca_file = \"Cargo.toml\": holds no certificate in PEM form",
    );
    let signed = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let folder = std::env::temp_dir().join(format!("ssegate-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("certificate", &signed.cert.pem());
    let key = file("key", &signed.signing_key.serialize_pem());
    let other = file("other", &other.serialize_pem());
    let base = format!("ca_file = {certificate:?}\n");
    let with = |lines: String| with(&format!("{base}{lines}"));
    with(format!("client_certificate = {certificate:?}\nclient_key = {key:?}")).unwrap();
    with("server_name = \"redis.example\"".into()).unwrap();
    assert_told(
        with("server_name = \"no name\"".into()),
        "gateway.toml:4:15: source.server_name = \"no name\": is no host name",
    );
    assert_told(
        with(format!("client_certificate = {certificate:?}")),
        &format!("gateway.toml:4:22: source.client_certificate = {certificate:?}: has no key"),
    );
    assert_told(
        with(format!("client_key = {key:?}")),
        &format!("gateway.toml:4:14: source.client_key = {key:?}: has no certificate"),
    );
    assert_told(
        with(format!("client_certificate = {certificate:?}\nclient_key = {other:?}")),
        &format!("gateway.toml:5:14: source.client_key = {other:?}: does not match source.client"),
    );
    assert_told(
        with(format!("client_certificate = {certificate:?}\nclient_key = {certificate:?}")),
        &format!("gateway.toml:5:14: source.client_key = {certificate:?}: holds no private key"),
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
