//! What docs/state.md shows is done here as it is written there.

use std::process::Command;

use serde_json::{Map, Value, json};

use super::json_of;
use crate::documents::{block, commands, read, section};
use crate::support::address::own_addresses;
use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};
use crate::support::{Folder, within};

const PAGE: &str = "docs/state.md";
/// A browser that has lost its server comes back after up to three times `retry`, and then some.
const BACK: std::time::Duration = std::time::Duration::from_secs(40);

/// A module in place of redis-py, which has what the producer uses of it.
const REDIS_PY: &str = r#"
import os, subprocess

class Pipeline:
    def __init__(self): self.lines = ["MULTI"]
    def __enter__(self): return self
    def __exit__(self, *why): pass
    def _add(self, *words):
        escaped = [str(word).replace("\\", "\\\\").replace('"', '\\"') for word in words]
        self.lines.append(" ".join(f'"{word}"' for word in escaped))
    def hset(self, key, field, value): self._add("HSET", key, field, value)
    def hdel(self, key, field): self._add("HDEL", key, field)
    def xadd(self, key, fields, maxlen):
        self._add("XADD", key, "MAXLEN", "~", maxlen, "*", *[part for pair in fields.items() for part in pair])
    def execute(self):
        text = "\n".join(self.lines + ["EXEC"])
        told = subprocess.run(["redis-cli", "-s", os.environ["SOCKET"]], input=text, capture_output=True, text=True)
        assert told.returncode == 0 and "ERR" not in told.stdout, told

class Redis:
    def pipeline(self, transaction):
        assert transaction
        return Pipeline()
"#;

/// Runs the producer that is shown, and then these calls of it.
fn produce(redis: &Redis, calls: &str) {
    let folder = Folder::new();
    std::fs::write(folder.0.join("redis.py"), REDIS_PY).unwrap();
    let shown = block(PAGE, "The producer", "python");
    let code = format!("{shown}\nimport redis\ndb = redis.Redis()\n{calls}\n");
    let mut python = Command::new("python3");
    python.args(["-c", &code]).env("PYTHONPATH", &folder.0).env("SOCKET", redis.socket());
    let output = python.output().expect("python3 must be installed");
    assert!(output.status.success(), "{output:?}");
}

/// Runs the script that is shown, by the command that is shown.
fn put_by_script(redis: &Redis) {
    let folder = Folder::new();
    std::fs::write(folder.0.join("put.lua"), block(PAGE, "The producer", "lua")).unwrap();
    let all = commands(&read(PAGE));
    let command = all.iter().find(|command| command.starts_with("redis-cli --eval")).unwrap();
    let socket = format!("redis-cli -s {}", redis.socket().display());
    let command = command.replace("redis-cli", &socket);
    let output = Command::new("sh").args(["-c", &command]).current_dir(&folder.0).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// The gateway with the route that is shown.
fn setup(redis: &Redis) -> Setup {
    Setup::redis(redis).routes(&block(PAGE, "The route", "toml")).set("server", "retry = \"100ms\"")
}

/// Draws the table on a page of the gateway's origin; its rows are in `window.rows`, the gaps in `window.gaps`.
fn draw(browser: &Browser, gateway: &Gateway) {
    browser.open(&format!("http://{}/nothing", gateway.address));
    let table = block(PAGE, "The page", "js");
    browser.script(&format!(
        "{table}
        window.gaps = [];
        const Plain = EventSource;
        window.EventSource = function (url) {{
            const source = new Plain(url);
            source.addEventListener('ssegate', ({{ data }}) => {{
                const control = JSON.parse(data);
                if (control.type === 'gap') window.gaps.push(control.reason);
            }});
            return source;
        }};
        table('/tables/eu', rows => {{ window.rows = Object.fromEntries(rows); }});"
    ));
}

/// The hash, as the page ought to show it.
fn state(redis: &Redis) -> Value {
    let Answer::List(words) = redis.run(&["HGETALL", "state:eu"]) else { panic!("no hash") };
    let text = |word: &Answer| match word {
        Answer::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let rows: Map<_, _> = words
        .chunks(2)
        .map(|pair| (text(&pair[0]), serde_json::from_str(&text(&pair[1])).unwrap()))
        .collect();
    json!(rows)
}

#[track_caller]
fn equals_the_hash(browser: &Browser, redis: &Redis, rows: usize) {
    let expected = state(redis);
    assert_eq!(expected.as_object().unwrap().len(), rows);
    within(BACK, "the table is the hash", || {
        browser.script("return window.rows ?? null") == expected
    });
}

#[test]
fn the_table_is_the_hash_through_changes_restarts_and_a_trim() {
    let redis = Redis::start();
    // No other test takes it while the gateway is away.
    let [address, _] = own_addresses();
    let start = || {
        setup(&redis)
            .set("server", &format!("listen = [\"{address}\"]"))
            .set("server", &format!("hosts = [\"{}\"]", address.ip()))
            .start_ready()
    };
    let mut gateway = start();
    produce(&redis, "for n in range(20): put(db, 'eu', f'row-{n}', {'n': n, 'text': 'ü \"'})");
    put_by_script(&redis);
    let browser = Browser::start();
    draw(&browser, &gateway);
    equals_the_hash(&browser, &redis, 21);
    produce(&redis, "put(db, 'eu', 'row-3', {'n': 'new'})\nremove(db, 'eu', 'row-4')");
    equals_the_hash(&browser, &redis, 20);
    // Away while less is added than the stream keeps: it hears of the rest alone.
    gateway.kill();
    produce(&redis, "remove(db, 'eu', 'row-5')");
    gateway = start();
    equals_the_hash(&browser, &redis, 19);
    assert_eq!(browser.script("return window.gaps"), json!([]));
    // And while what it would need is trimmed.
    gateway.kill();
    produce(&redis, "for n in range(9): put(db, 'eu', f'row-{n}', {'n': -n})");
    redis.run(&["XTRIM", "events:eu", "MAXLEN", "1"]);
    let _gateway = start();
    equals_the_hash(&browser, &redis, 21);
    assert_eq!(browser.script("return window.gaps"), json!(["trimmed"]));
    produce(&redis, "remove(db, 'eu', 'db')");
    equals_the_hash(&browser, &redis, 20);
}

#[test]
fn the_page_puts_parts_together_and_reads_the_newest_of_each_too() {
    let redis = Redis::start();
    produce(&redis, "for n in range(150): put(db, 'eu', f'row-{n}', {'text': 'x' * 1000})");
    let browser = Browser::start();
    let gateway = setup(&redis).set("source", "max_entry = \"64KiB\"").start_ready();
    let mut client = Client::open(&gateway.address, "/tables/eu");
    let part = client.event();
    assert!(part.data.starts_with("{\"part\":1,\"of\":3,\"value\":{"), "{}", &part.data[..40]);
    draw(&browser, &gateway);
    equals_the_hash(&browser, &redis, 150);
    // A stream that still has all of it needs no hash.
    let newest = block(PAGE, "Without a key for the state", "toml");
    let route = block(PAGE, "The route", "toml").replace("snapshot = \"state:{name}\"\n", &newest);
    let gateway = setup(&redis).routes(&route).start_ready();
    produce(&redis, "remove(db, 'eu', 'row-0')");
    draw(&browser, &gateway);
    equals_the_hash(&browser, &redis, 149);
}

#[test]
fn the_rights_that_are_shown_are_enough() {
    let redis = Redis::start();
    let readme = read("README.md");
    let (_, rights) = readme.split_once("```text\nACL ").expect("the rights");
    let (rights, _) = rights.split_once("\n```").unwrap();
    let rights = rights.replace("siem:", "events:");
    let table = section("docs/redis.md", "Access rights");
    let row = table.lines().find(|line| line.starts_with("| a route with `snapshot")).unwrap();
    let more: Vec<_> = row.rsplit_once(" | ").unwrap().1.split('`').skip(1).step_by(2).collect();
    let more = more.join(" ").replace("\\|", "|").replace("+json.get", "");
    let words: Vec<_> = ["ACL"]
        .into_iter()
        .chain(rights.split_whitespace())
        .chain(more.split_whitespace())
        .collect();
    assert_eq!(redis.run(&words), Answer::Text("OK".into()), "{more}");
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("redis-password"), "password").unwrap();
    let gateway = setup(&redis)
        .set("source", "username = \"gateway\"")
        .set("source", "password_file = \"redis-password\"")
        .credentials(credentials)
        .start_ready();
    let kinds: [(&str, &[&str], Value); 6] = [
        ("hash", &["HSET", "state:hash", "a", "1"], json!({"a": "1"})),
        ("list", &["RPUSH", "state:list", "a"], json!(["a"])),
        ("set", &["SADD", "state:set", "a"], json!(["a"])),
        ("sorted", &["ZADD", "state:sorted", "inf", "a"], json!([["a", "inf"]])),
        ("text", &["SET", "state:text", "{}"], json!({})),
        ("none", &["PING"], Value::Null),
    ];
    for (name, command, expected) in kinds {
        redis.run(command);
        let mut client = Client::open(&gateway.address, &format!("/tables/{name}"));
        assert_eq!(json_of(&mut client).0, expected, "{name}");
    }
    let denied = redis.run(&["ACL", "LOG"]);
    let denied = objects(&denied);
    let is_known = |object: &&String| *object == "role" || object.starts_with("ssegate:");
    let unknown: Vec<_> = denied.iter().filter(|object| !is_known(object)).collect();
    assert!(unknown.is_empty(), "needed and not shown: {unknown:?}");
}

/// The commands and keys that `ACL LOG` tells of.
fn objects(log: &Answer) -> Vec<String> {
    let Answer::List(denied) = log else { panic!("{log:?}") };
    let objects = denied.iter().map(|entry| match entry {
        Answer::List(parts) => match &parts[7] {
            Answer::Text(object) => object.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    objects.collect()
}

#[test]
fn the_keys_that_are_shown_for_a_cluster_are_in_one_slot() {
    let cluster = Cluster::start(0);
    let keys = block(PAGE, "Clusters, replicas, databases", "toml");
    let route = block(PAGE, "The route", "toml");
    let kept =
        route.lines().filter(|line| !line.starts_with("key ") && !line.starts_with("snapshot "));
    let route = kept.chain(keys.lines()).collect::<Vec<_>>().join("\n");
    let setup = Setup::with_url(&cluster.url()).routes(&route);
    let gateway = setup.start_ready();
    let node = &cluster.nodes[cluster.owner("state:{eu}")];
    node.run(&["HSET", "state:{eu}", "db", "up"]);
    let mut client = Client::open(&gateway.address, "/tables/eu");
    assert_eq!(json_of(&mut client).0, json!({"db": "up"}));
}
