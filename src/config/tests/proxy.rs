//! `[proxy]`: which proxies are trusted, and which listeners require the PROXY protocol.

use super::refused::told;
use super::*;

fn with_proxy(listen: &str, lines: &str) -> Result<Loaded, Faults> {
    let text = format!("[server]\nlisten = {listen}\n[proxy]\n{lines}\n{MINIMAL}");
    parse(&text, "f", &[], false)
}

#[test]
fn proxies_are_networks_addresses_or_unix() {
    let lines = "trusted = [\"10.0.0.0/8\", \"fd00::/8\", \"192.0.2.1\", \"::ffff:198.51.100.0/120\", \"unix\"]\nprotocol = [\"unix:/run/b\"]";
    let loaded = with_proxy("[\"127.0.0.1:1\", \"unix:/run/b\"]", lines).unwrap();
    let Proxy { trusted, protocol } = loaded.config.proxy;
    assert!(trusted.unix);
    for proxy in ["10.255.0.1", "::ffff:10.0.0.1", "fd12::1", "192.0.2.1", "198.51.100.7"] {
        assert!(trusted.contains(proxy.parse().unwrap()), "{proxy}");
    }
    for stranger in ["11.0.0.1", "fe80::1", "192.0.2.2", "::10.0.0.1", "198.51.101.7"] {
        assert!(!trusted.contains(stranger.parse().unwrap()), "{stranger}");
    }
    assert_eq!(protocol, [Listen::Unix("/run/b".into())]);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_proxy_or_listener_that_does_not_exist_is_a_fault() {
    for (lines, why) in [
        ("trusted = [\"10.0.0.0/33\"]", "not a network"),
        ("trusted = [\"proxy.example\"]", "not a network"),
        ("trusted = [\"\"]", "not a network"),
        ("protocol = [\"127.0.0.1:2\"]", "not in server.listen"),
        ("protocol = [\"*\"]", "not an address"),
        ("protocols = []", "unknown key; did you mean \"protocol\"?"),
    ] {
        let told = told(with_proxy("[\"127.0.0.1:1\"]", lines));
        assert!(told.contains(why), "{lines}: {told}");
    }
}

#[test]
fn the_operators_listener_may_be_behind_a_proxy_too() {
    let behind = |listen: &str, protocol: &str| {
        let lines = format!("protocol = [{protocol:?}]\n[admin]\nlisten = \"127.0.0.1:0\"");
        with_proxy(listen, &lines).unwrap().config.is_admin_behind_proxy()
    };
    assert!(behind("[\"127.0.0.1:1\"]", "127.0.0.1:0"));
    assert!(!behind("[\"127.0.0.1:1\"]", "127.0.0.1:1"));
    // Any port, and any other.
    assert!(!behind("[\"127.0.0.1:0\"]", "127.0.0.1:0"));
}

#[test]
fn trust_in_everybody_is_warned_about() {
    let warning = |listen: &str, lines: &str| {
        let warnings = with_proxy(listen, lines).unwrap().warnings;
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let everybody = warning("[\"127.0.0.1:1\"]", "trusted = [\"::/0\"]");
    assert!(everybody.contains("proxy.trusted = [\"::/0\"]: trusts every client"), "{everybody}");
    let open = warning("[\"0.0.0.0:1\"]", "protocol = [\"0.0.0.0:1\"]");
    assert!(open.contains("any machine that connects can claim any address"), "{open}");
}
