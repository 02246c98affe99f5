//! A faulty file: the running configuration is unchanged; the log, the metrics and the status report the fault.

use super::*;
use crate::support::manager::Manager;
use crate::support::tls::Authority;

const SUCCESSFUL: &str = "ssegate_config_last_reload_successful";
const SUCCESS: &str = "ssegate_config_last_reload_success_timestamp_seconds";

/// What it would have changed, had it been applied.
fn with_more() -> Setup {
    let both = route("/events/{name}", "events:{name}") + &route("/more/{name}", "events:{name}");
    Setup::memory().routes(&both).set("limits", "clients_per_key = 1")
}

#[test]
fn a_faulty_file_changes_nothing_and_is_reported_until_one_is_good() {
    let manager = Manager::start();
    let gateway = Setup::memory().env("NOTIFY_SOCKET", &manager.name).start_ready();
    let mut client = live(&gateway, "/events/a");
    assert_eq!(gateway.metric(SUCCESSFUL), 1.0);
    let begin = gateway.metric(SUCCESS);
    let file = gateway.folder.0.join("gateway.toml");
    let good = with_more().toml();
    let missing = "[{ alg = \"HS256\", secret_file = \"/no/such/file\" }]";
    for (text, says) in [
        (format!("{good}\n[[["), "not TOML"),
        (good.replace("clients_per_key = 1", "clients_per_key = \"x\""), "limits.clients_per_key"),
        (good.replace("[auth.jwt]\n", &format!("[auth.jwt]\nkeys = {missing}\n")), "no/such/file"),
        (
            good.replace(
                "[server.tls]\n",
                "[server.tls]\ncertificate = \"/no/such\"\nkey = \"/no\"\n",
            ),
            "server.tls.certificate",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let line = gateway.reload();
        assert!(
            line["message"].as_str().unwrap().contains("the next restart would fail"),
            "{line}"
        );
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains(says)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("gateway.toml:") && line.contains("\"ERROR\""), "{line}");
        assert_eq!(gateway.metric(SUCCESSFUL), 0.0);
        assert_eq!(gateway.get("/more/a").status, 404);
        drop(live(&gateway, "/events/a"));
    }
    std::fs::remove_file(&file).unwrap();
    gateway.reload();
    gateway.has_logged("gateway.toml: cannot be read");
    assert_eq!(gateway.metric(SUCCESS), begin);
    eventually("the status tells", || {
        let heard = manager.heard();
        let last = heard.iter().rev().find(|message| message.starts_with("STATUS=")).unwrap();
        last.ends_with("the last reload was rejected: a restart would fail")
    });
    gateway.publish("events:a", "through it all");
    assert_eq!(client.event().data, "through it all");

    gateway.write(&with_more());
    assert_eq!(judged(&gateway.reload()), (1, 0));
    assert_eq!(gateway.metric(SUCCESSFUL), 1.0);
    assert!(gateway.metric(SUCCESS) > begin);
    manager.has_status("clients: 1, streams: 1, embedded source");
    let (refused, _) = Client::open(&gateway.address, "/more/a").control();
    assert_eq!(refused["reason"], "clients_per_key");
    assert_eq!(manager.count("RELOADING=1"), 6);
    eventually("each is over", || manager.count("READY=1") == 7);
}

#[test]
fn a_faulty_certificate_alone_rejects_the_reload() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let gateway = Setup::memory().tls(&identity).start_ready();
    let other = authority.sign_as("other", "127.0.0.1");
    let good = std::fs::read(&identity.certificate).unwrap();
    std::fs::copy(&other.certificate, &identity.certificate).unwrap();
    gateway.write(&with_more().tls(&identity).set("admin", "publish = false"));
    gateway.reload();
    gateway.has_logged("is not the key of the certificate");
    gateway.publish("events:a", "it is still let");
    std::fs::write(&identity.certificate, good).unwrap();
    gateway.reload();
    assert_eq!(gateway.post("events:a", "no more").status, 404);
}
