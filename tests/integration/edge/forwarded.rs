//! The client that proxies name: only trusted proxies count, read from the right.

use std::os::unix::net::UnixStream;

use super::*;
use crate::support::Folder;

const ONE_EACH: &str = "clients_per_ip = 1";
const DEBUG: &str = "level = \"info,ssegate=debug\"";

/// A stream asked for with these header lines.
fn ask(gateway: &Gateway, lines: &str) -> (Client, String) {
    outcome(connect(&gateway.address), &get("/events/a", lines))
}

#[test]
fn a_header_of_an_untrusted_peer_changes_nothing_and_is_logged() {
    let setup = setup().set("limits", ONE_EACH).set("log", DEBUG);
    // The configuration trusts another peer.
    let gateway = setup.set("proxy", "trusted = [\"10.0.0.0/8\", \"unix\"]").start_ready();
    let (_first, answer) = ask(&gateway, "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(answer, "live");
    for forged in [
        "X-Forwarded-For: 192.0.2.2\r\n",
        "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=192.0.2.3\r\n",
        "Forwarded: for=\"[2001:db8::1]\"\r\n",
    ] {
        assert_eq!(ask(&gateway, forged).1, "clients_per_ip", "{forged}");
    }
    were_logged(&gateway, &["127.0.0.1"]);
    eventually("the log says what to do", || {
        gateway.log().contains("list its network in proxy.trusted")
    });
    assert_eq!(gateway.log().matches("list its network in proxy.trusted").count(), 1);
}

#[test]
fn the_clients_of_a_trusted_proxy_have_limits_of_their_own() {
    let setup = setup().set("limits", ONE_EACH).set("log", DEBUG);
    let gateway = setup.set("proxy", "trusted = [\"127.0.0.0/8\"]").start_ready();
    let mut held = Vec::new();
    let mut ask = |lines: &str| {
        let (client, answer) = super::outcome(connect(&gateway.address), &get("/events/a", lines));
        held.push(client);
        answer
    };
    // What clients claim is to the left of what the proxy adds.
    assert_eq!(ask("X-Forwarded-For: 192.0.2.1\r\n"), "live");
    assert_eq!(ask("X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n"), "clients_per_ip");
    assert_eq!(ask("X-Forwarded-For: 192.0.2.1, 192.0.2.2, 127.0.0.5\r\n"), "live");
    assert_eq!(ask("X-Forwarded-For: 6.6.6.7\r\nX-Forwarded-For: 192.0.2.2\r\n"), "clients_per_ip");
    assert_eq!(ask("Forwarded: for=\"[2001:db8::1]:4711\";proto=https\r\n"), "live");
    // One IPv6 customer has a /64.
    assert_eq!(ask("X-Forwarded-For: 2001:db8::ffff:1\r\n"), "clients_per_ip");
    assert_eq!(ask("X-Forwarded-For: 2001:db8:0:1::1\r\n"), "live");
    // Empty elements say nothing.
    assert_eq!(ask("X-Forwarded-For: 192.0.2.1, ,\r\nX-Forwarded-For:\r\n"), "clients_per_ip");
    assert_eq!(ask("X-Forwarded-For: ,\r\nForwarded: , for=192.0.2.2,\r\n"), "clients_per_ip");
    // Nothing that says an address: the proxy itself.
    assert_eq!(ask("X-Forwarded-For: unknown\r\n"), "live");
    assert_eq!(ask("Forwarded: for=_hidden\r\n"), "clients_per_ip");
    let clients = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "127.0.0.1"];
    were_logged(&gateway, &clients);
    were_rejected(&gateway, "clients_per_ip", 6);
}

#[test]
fn a_unix_socket_is_a_trusted_proxy_where_the_configuration_says_so() {
    for trusted in [true, false] {
        let folder = Folder::new();
        let path = folder.0.join("http.sock");
        let mut setup = setup().set("limits", ONE_EACH).set("log", DEBUG);
        setup = setup.set("server", &format!("listen = [\"unix:{}\"]", path.display()));
        if trusted {
            setup = setup.set("proxy", "trusted = [\"unix\"]");
        }
        let gateway = setup.start_ready();
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let request = get("/events/a", "X-Forwarded-For: 192.0.2.1\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            held.push(stream);
            let refused = trusted && held.len() == 2;
            eventually("it is answered", || {
                let answered = logged_addresses(&gateway).len() == held.len();
                answered || refused && rejected(&gateway, "clients_per_ip") > 0.5
            });
        }
        // Without trust the client has no address, and no limit counts it.
        let expected: &[&str] = if trusted { &["192.0.2.1"] } else { &["none", "none"] };
        were_logged(&gateway, expected);
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_is_known_by_its_own_address() {
    let gateway = setup().set("server", "listen = [\"[::]:0\"]").set("log", DEBUG).start_ready();
    let port = gateway.address.rsplit_once(':').unwrap().1;
    let stream = connect(&format!("127.0.0.1:{port}"));
    assert_eq!(outcome(stream, &get("/events/a", "")).1, "live");
    were_logged(&gateway, &["127.0.0.1"]);
}
