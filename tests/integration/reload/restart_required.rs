//! Settings that take effect only with a restart: they are named and stay as they are; the rest is applied.

use super::*;

#[test]
fn settings_that_need_a_restart_are_named_and_the_rest_is_applied() {
    let gateway = Setup::memory().set("log", "format = \"json\"").start_ready();
    let mut client = live(&gateway, "/events/a");
    let more = route("/events/{name}", "events:{name}") + &route("/more/{name}", "events:{name}");
    let other = |url: &str| {
        Setup::with_url(url)
            .routes(&more)
            .set("server", "listen = [\"127.0.0.1:1\"]")
            .set("server", "workers = 7")
            .set("source", "max_entry = \"1KiB\"")
            .set("ring", "entries = 5")
            .set("log", "format = \"text\"")
    };
    let named = || {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("takes effect with a restart"));
        let key = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["level"], "WARN");
            line["key"].as_str().unwrap().to_owned()
        };
        lines.map(key).collect::<Vec<_>>()
    };
    gateway.write(&other("redis://127.0.0.1:1"));
    assert_eq!(judged(&gateway.reload()), (1, 0));
    let all = [
        "server.listen",
        "server.workers",
        "source.url",
        "source.max_entry",
        "ring.entries",
        "log.format",
    ];
    assert_eq!(named(), all);
    gateway.publish("events:a", "as before");
    assert_eq!(client.event().data, "as before");
    assert_eq!(live(&gateway, "/more/a").last_event_id(), client.last_event_id());
    // A setting that is back as it was is no longer named.
    gateway.write(&Setup::memory().set("log", "format = \"json\"").set("server", "workers = 7"));
    gateway.reload();
    assert_eq!(named()[all.len()..], ["server.workers"]);
}

#[test]
fn a_password_that_changed_in_its_file_needs_no_restart_and_one_in_the_url_does() {
    let gateway = Setup::memory().start_ready();
    let password = gateway.folder.0.join("password");
    std::fs::write(&password, "one").unwrap();
    let redis = Setup::with_url("redis://127.0.0.1:1")
        .set("source", &format!("password_file = {password:?}"));
    drop(gateway);
    std::fs::create_dir_all(password.parent().unwrap()).unwrap();
    std::fs::write(&password, "one").unwrap();
    let gateway = redis.start();
    std::fs::write(&password, "two").unwrap();
    gateway.reload();
    assert!(!gateway.log().contains("takes effect with a restart"), "it is read at each login");
    std::fs::remove_dir_all(password.parent().unwrap()).unwrap();

    let with = |password: &str| Setup::with_url(&format!("redis://:{password}@127.0.0.1:1"));
    let gateway = with("one").start();
    gateway.write(&with("two"));
    gateway.reload();
    gateway.has_logged("\"key\":\"source.url\"");
}

#[test]
fn a_reachable_listener_stays_guarded_until_it_is_gone() {
    let folder = crate::support::Folder::new();
    let token = folder.0.join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let guarded = |token: &str| {
        Setup::memory()
            .set("admin", "listen = \"0.0.0.0:0\"")
            .set("admin", &format!("token_file = {token:?}"))
    };
    let gateway = guarded(token.to_str().unwrap()).start();
    let status = || gateway.admin_get("/streams").status;
    assert_eq!(status(), 401);
    // Good for a start, which nobody else could reach: so it is applied, except for what needs a restart.
    gateway.write(&Setup::memory());
    gateway.reload();
    let log = gateway.log();
    assert!(log.contains("\"admin.listen\"") && log.contains("\"admin.token_file\""), "{log}");
    assert_eq!(status(), 401);
    // Another token is another token.
    std::fs::write(&token, "fedcba9876543210fedcba9876543210").unwrap();
    gateway.write(&guarded(token.to_str().unwrap()));
    gateway.reload();
    let ask = "GET /streams HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer fedcba9876543210fedcba9876543210\r\n\r\n";
    assert_eq!(exchange(&gateway.admin.replace("0.0.0.0", "127.0.0.1"), ask).status, 200);
}

/// The operator's page reads for as long as it is open, but not with a token that has been replaced.
#[test]
fn an_operator_with_another_token_is_disconnected() {
    let folder = crate::support::Folder::new();
    let token = folder.0.join("token");
    let secrets = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    std::fs::write(&token, secrets[0]).unwrap();
    let setup = || Setup::memory().set("admin", &format!("token_file = {token:?}"));
    let gateway = setup().start();
    let follow = |secret: &str| {
        let bearer = format!("Bearer {secret}");
        let mut client = Client::with(&gateway.admin, "/overview", &[("Authorization", &bearer)]);
        client.event();
        client
    };
    let mut before = follow(secrets[0]);
    gateway.reload();
    before.event();
    before.event();
    std::fs::write(&token, secrets[1]).unwrap();
    gateway.reload();
    before.rest();
    assert_eq!(gateway.admin_get("/streams").status, 401);
    follow(secrets[1]);
}
