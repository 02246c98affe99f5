use std::process::Command;

use serde_json::json;

use super::*;
use crate::documents::{block, commands, read};
use crate::support::browser::Browser;
use crate::support::eventually;

const PAGE: &str = "docs/rows.md";

/// Adds the entry that is shown, with these words in place of those.
fn produce(redis: &Redis, changes: &[(&str, &str)]) {
    let all = commands(&read(PAGE));
    let command = all.iter().find(|command| command.starts_with("redis-cli XADD")).unwrap();
    let socket = format!("redis-cli -s {}", redis.socket().display());
    let mut command = command.replace("redis-cli", &socket);
    for (from, to) in changes {
        assert!(command.contains(from), "{from}: {command}");
        command = command.replace(from, to);
    }
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// A token for this tenant, made as it is shown.
fn made(tenants: &str) -> String {
    let code = format!(
        "{}\nimport sys\nprint(token(sys.argv[1], 'alice', {tenants}))",
        block(PAGE, "A token", "python")
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pyjwt");
    let mut python = Command::new("python3");
    let output = python.args(["-c", &code, SECRET]).env("PYTHONPATH", path).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "./test brings PyJWT: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The gateway with the tokens and the route that are shown.
fn start(redis: &Redis) -> Gateway {
    let shown = block(PAGE, "The route", "toml");
    let (tokens, route) = shown.split_once("[[route]]").unwrap();
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt.secret"), SECRET).unwrap();
    let setup = Setup::redis(redis).routes(&format!("[[route]]{route}")).credentials(credentials);
    let lines = tokens.lines().filter(|line| line.contains(" = "));
    lines.fold(setup, |setup, line| setup.set("auth.jwt", line)).start_ready()
}

#[test]
fn the_page_shows_the_alerts_of_its_visitor() {
    let redis = Redis::start();
    let gateway = start(&redis);
    produce(&redis, &[]);
    produce(&redis, &[("tenant acme", "tenant other"), ("a new device", "not for acme")]);
    produce(&redis, &[("severity high", "severity low"), ("a new device", "a slow disk")]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/nothing", gateway.address));
    let page = block(PAGE, "The page", "js");
    browser.script(&format!(
        "{page}
        document.cookie = 'token={}';
        const shown = (url) => {{
            const table = document.createElement('table');
            alerts(url, table, () => {{ window.reloaded = true; }});
            return () => [...table.rows].map(row => row.cells[1].textContent);
        }};
        window.all = shown('/alerts');
        window.high = shown('/alerts?severity=high,critical');",
        made("['acme', 'blue']")
    ));
    let shows = |name: &str, rows: serde_json::Value| {
        eventually("the table has these rows", || {
            browser.script(&format!("return window.{name}()")) == rows
        });
    };
    shows("all", json!(["a slow disk", "a new device"]));
    shows("high", json!(["a new device"]));
    produce(&redis, &[("tenant acme", "tenant other"), ("a new device", "nor this")]);
    produce(&redis, &[("tenant acme", "tenant blue"), ("a new device", "a login")]);
    shows("all", json!(["a login", "a slow disk", "a new device"]));
    shows("high", json!(["a login", "a new device"]));
    assert_eq!(browser.script("return window.reloaded ?? null"), json!(null));
}

#[test]
fn a_terminal_is_shown_the_same() {
    let redis = Redis::start();
    let gateway = start(&redis);
    produce(&redis, &[("tenant acme", "tenant other")]);
    produce(&redis, &[("severity high", "severity low")]);
    produce(&redis, &[]);
    let bearer = format!("Bearer {}", made("'acme'"));
    let headers = [("Authorization", &*bearer)];
    let mut client = Client::with(&gateway.address, "/alerts?severity=high", &headers);
    let shown = block(PAGE, "The page", "text");
    let data = shown.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert_eq!(client.event().data, data);
    assert_eq!(client.live().0, 1);
}
