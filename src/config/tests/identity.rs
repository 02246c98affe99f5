//! The certificate for clients: what is a fault, and what is only warned about.

use rcgen::{CertificateParams, KeyPair};

use super::refused::assert_told;
use super::*;

/// Files of a test's own, gone with the value.
struct Files(std::path::PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ssegate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Line 6 is the first of these.
fn with(lines: &str) -> Result<Loaded, Faults> {
    let base = "[source]\nurl = \"memory:\"\n[server]\nlisten = [\"127.0.0.1:0\"]\n[server.tls]\n";
    let route = "[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\n";
    parse(&format!("{base}{lines}\n{route}"), "gateway.toml", &[], false)
}

fn pair(certificate: &str, key: &str) -> String {
    format!("certificate = {certificate:?}\nkey = {key:?}")
}

#[test]
fn unusable_files_are_faults() {
    let files = Files::new("identity");
    let signed = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    let certificate = files.write("certificate", &signed.cert.pem());
    let key = files.write("key", &signed.signing_key.serialize_pem());
    let other = files.write("other", &KeyPair::generate().unwrap().serialize_pem());
    let good = with(&pair(&certificate, &key)).unwrap();
    assert!(good.config.server.tls.is_some());
    assert_eq!(good.warnings, []);
    assert!(with("certificate = \"\"\nkey = \"\"").unwrap().config.server.tls.is_none());
    for (lines, told) in [
        (format!("certificate = {certificate:?}"), "6:15: server.tls.certificate = "),
        (format!("key = {key:?}"), "6:7: server.tls.key = "),
        (pair("/no/such", &key), "6:15: server.tls.certificate = \"/no/such\": cannot be read"),
        (pair(&certificate, "/no/such"), "7:7: server.tls.key = \"/no/such\": cannot be read"),
        (pair("Cargo.toml", &key), "6:15: server.tls.certificate = \"Cargo.toml\": holds no cert"),
        (pair(&certificate, "Cargo.toml"), "7:7: server.tls.key = \"Cargo.toml\": holds no priv"),
        ("keys = \"x\"".into(), "6:1: server.tls.keys: unknown key; did you mean \"key\"?"),
    ] {
        assert_told(with(&lines), &format!("gateway.toml:{told}"));
    }
    assert_told(
        with(&pair(&certificate, &other)),
        &format!("gateway.toml:7:7: server.tls.key = {other:?}: is not the key of the certificate"),
    );
}

#[test]
fn the_environment_may_name_the_files() {
    let files = Files::new("identity-env");
    let signed = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    let certificate = files.write("certificate", &signed.cert.pem());
    let key = files.write("key", &signed.signing_key.serialize_pem());
    let named =
        [("SSEGATE_SERVER_TLS_CERTIFICATE", &*certificate), ("SSEGATE_SERVER_TLS_KEY", &key)];
    assert!(under(&named).unwrap().config.server.tls.is_some());
}

#[test]
fn a_certificate_outside_its_validity_is_warned_about() {
    let files = Files::new("identity-time");
    let signed = |from: i32, until: i32| {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        let name = format!("{from}-{until}");
        let certificate = files.write(&name, &certificate);
        with(&pair(&certificate, &files.write(&(name + ".key"), &key.serialize_pem()))).unwrap()
    };
    for (from, until, why) in [(2000, 2001, "expired"), (2900, 2901, "not valid yet")] {
        let loaded = signed(from, until);
        let warning = loaded.warnings[0].to_string();
        assert!(warning.starts_with("gateway.toml:6:15: server.tls.certificate"), "{warning}");
        assert!(warning.contains(why), "{warning}");
    }
    assert_eq!(signed(2000, 2900).warnings, []);
}

#[test]
fn a_certificate_is_useless_with_unix_sockets_alone() {
    let files = Files::new("identity-unix");
    let signed = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
    let certificate = files.write("certificate", &signed.cert.pem());
    let key = files.write("key", &signed.signing_key.serialize_pem());
    let named = [
        ("SSEGATE_SERVER_TLS_CERTIFICATE", &*certificate),
        ("SSEGATE_SERVER_TLS_KEY", &key),
        ("SSEGATE_SERVER_LISTEN", "unix:/run/http.sock"),
    ];
    let warning = under(&named).unwrap().warnings[0].to_string();
    assert!(warning.contains("has no effect: unix sockets speak plain HTTP"), "{warning}");
}
