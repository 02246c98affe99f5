//! `ssegate check --connect`: each finding, provoked on a real server.

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::gateway::Setup;
use crate::support::program::run;
use crate::support::redis::{Answer, Redis};
use crate::support::sentinel::{NAME, Trio};
use crate::support::tls::Authority;
use crate::support::{Folder, eventually};

const FIXED: &str = "[[route]]\npath = \"/logs\"\nkey = \"siem:logs\"\naccess = \"public\"\n";

/// The exit code and the findings, which are the same as text.
struct Checked {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

fn checked(setup: &Setup) -> Checked {
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let file = file.to_str().unwrap();
    let (code, out, stderr) = run(&["check", "--connect", "--json", "--config", file], &[]);
    let json: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{stderr}"));
    let (text_code, text, _) = run(&["check", "--connect", "--config", file], &[]);
    assert_eq!(code, text_code);
    let findings = json["findings"].as_array().unwrap().clone();
    for finding in &findings {
        assert!(text.contains(finding["code"].as_str().unwrap()), "{finding} in\n{text}");
    }
    Checked { code, findings, text }
}

impl Checked {
    /// The levels of the findings with this code.
    fn levels(&self, code: &str) -> Vec<&str> {
        let found = self.findings.iter().filter(|finding| finding["code"] == code);
        found.map(|finding| finding["level"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn has(&self, exit: i32, level: &str, code: &str) {
        assert!(self.levels(code).contains(&level), "{level} {code} in\n{}", self.text);
        assert_eq!(self.code, exit, "{}", self.text);
    }
}

#[test]
fn a_server_as_it_should_be_has_nothing_wrong() {
    let redis = Redis::with(&["--appendonly", "yes"]);
    redis.add("siem:logs", "one");
    let found = checked(&Setup::redis(&redis).routes(FIXED));
    assert_eq!(found.code, 0, "{}", found.text);
    for code in [
        "version",
        "access",
        "eviction",
        "output-buffer",
        "persistence",
        "replication",
        "key",
        "round-trip",
        "clock",
    ] {
        assert_eq!(found.levels(code), ["fine"], "{code} in\n{}", found.text);
    }
}

#[test]
fn the_embedded_source_has_no_server() {
    let found = checked(&Setup::memory());
    assert_eq!((found.code, found.findings.len()), (0, 0));
    assert!(found.text.contains("there is no server to ask"), "{}", found.text);
}

#[test]
fn without_connect_nothing_is_asked() {
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, Setup::with_url("redis://127.0.0.1:1").toml()).unwrap();
    let (code, out, _) = run(&["check", "--json", "--config", file.to_str().unwrap()], &[]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json.get("findings")), (0, None));
}

#[test]
fn a_server_that_is_away_is_no_fault_of_the_configuration() {
    let found = checked(&Setup::with_url("redis://127.0.0.1:1"));
    found.has(69, "unreachable", "unreachable");
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let redis = Redis::start();
    redis.signal("STOP");
    let found = checked(&Setup::redis(&redis));
    redis.signal("CONT");
    found.has(69, "unreachable", "unreachable");
}

#[test]
fn a_refused_login_is_wrong() {
    let redis = Redis::start();
    redis.run(&["CONFIG", "SET", "requirepass", "secret"]);
    let folder = Folder::new();
    let file = folder.0.join("password");
    std::fs::write(&file, "other").unwrap();
    let with = Setup::redis(&redis).set("source", &format!("password_file = {file:?}"));
    checked(&with).has(78, "wrong", "login");
    checked(&Setup::redis(&redis)).has(78, "wrong", "login");
    std::fs::write(&file, "secret").unwrap();
    assert_eq!(checked(&with).levels("version"), ["fine"]);
}

#[test]
fn a_certificate_without_trust_is_wrong_over_tls() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let redis = Redis::on_tcp_with(&|ip| theirs.arguments(ip, false));
    let setup = |authority: &Authority| {
        Setup::with_url(&format!("rediss://{}", redis.address()))
            .set("source", &format!("ca_file = {:?}", authority.file()))
    };
    checked(&setup(&ours)).has(78, "wrong", "tls");
    assert_eq!(checked(&setup(&theirs)).code, 0);
}

#[test]
fn settings_that_lose_entries_or_connections_are_told() {
    let evicting = Redis::with(&["--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"]);
    let found = checked(&Setup::redis(&evicting));
    found.has(78, "wrong", "eviction");
    assert_eq!(found.levels("persistence"), ["note"]);
    let volatile = Redis::with(&["--maxmemory", "10mb", "--maxmemory-policy", "volatile-lru"]);
    checked(&Setup::redis(&volatile)).has(0, "note", "eviction");
    let few = Redis::with(&["--maxclients", "20"]);
    checked(&Setup::redis(&few)).has(78, "wrong", "maxclients");
    checked(&Setup::redis(&few).set("limits", "readers = 5\nreaders_per_ip = 5")).has(
        0,
        "fine",
        "maxclients",
    );
    let cut = Redis::with(&["--client-output-buffer-limit", "normal 1mb 0 0"]);
    checked(&Setup::redis(&cut)).has(78, "wrong", "output-buffer");
    let small = Setup::redis(&cut).set("source", "max_entry = \"1KiB\"");
    checked(&small).has(0, "fine", "output-buffer");
}

#[test]
fn a_replica_and_a_primary_with_one_are_told() {
    let (primary, replica) = (Redis::on_tcp(&[]), Redis::on_tcp(&[]));
    replica.follow(&primary);
    let at = |redis: &Redis| Setup::with_url(&format!("redis://{}", redis.address()));
    checked(&at(&primary)).has(0, "note", "replication");
    let of_replica = checked(&at(&replica));
    of_replica.has(0, "note", "role");
    assert!(of_replica.text.contains(&primary.address()), "{}", of_replica.text);
    primary.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    checked(&at(&primary)).has(0, "fine", "replication");
}

#[test]
fn keys_of_routes_are_streams_or_not_there_yet() {
    let redis = Redis::start();
    let setup = || Setup::redis(&redis).routes(FIXED);
    checked(&setup()).has(0, "note", "key");
    redis.run(&["SET", "siem:logs", "text"]);
    checked(&setup()).has(78, "wrong", "key");
}

/// Of a user that has these rights and no others.
fn limited(redis: &Redis, rights: &[&str]) -> Setup {
    let words = ["ACL", "SETUSER", "gw", "reset", "on", ">secret"];
    assert_eq!(redis.run(&[&words[..], rights].concat()), Answer::Text("OK".into()));
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("password"), "secret").unwrap();
    let file = credentials.0.join("password");
    Setup::redis(redis)
        .set("admin", "publish = false")
        .set("source", "username = \"gw\"")
        .set("source", &format!("password_file = {file:?}"))
        .credentials(credentials)
}

#[test]
fn commands_that_the_user_may_not_run_are_named() {
    let redis = Redis::start();
    let user = |rights: &[&str]| checked(&limited(&redis, rights));
    let all = ["+xread", "+xinfo|stream", "+xrange", "+xrevrange", "%R~events:*"];
    let found = user(&all);
    found.has(0, "fine", "access");
    for code in ["version", "settings", "clock", "role", "shared-reads"] {
        assert_eq!(found.levels(code), ["note"], "{code} in\n{}", found.text);
    }
    // With the dry run, and without.
    for extra in [&["+acl|whoami", "+acl|dryrun"][..], &[]] {
        let lacks = |rights: &[&str], missing: &str| {
            let found = user(&[rights, extra].concat());
            found.has(78, "wrong", "access");
            assert!(found.text.contains(&format!("may not run {missing} on")), "{}", found.text);
        };
        lacks(&["+xread", "+xinfo|stream", "+xrange", "%R~events:*"], "XREVRANGE");
        lacks(
            &["+xread", "+xinfo", "+xrange", "+xrevrange", "%R~other:*"],
            "XREAD, XINFO, XRANGE, XREVRANGE",
        );
    }
}

#[test]
fn what_the_user_lacks_to_read_a_state_is_named() {
    let redis = Redis::start();
    let stream = ["+xread", "+xinfo|stream", "+xrange", "+xrevrange", "%R~events:*"];
    let state = ["%R~state:*", "+type", "+multi", "+exec"];
    for extra in [&["+acl|whoami", "+acl|dryrun"][..], &[]] {
        let found = |name: &str, rights: &[&str]| {
            let routes = FIXED.replace("siem:logs", "events:logs");
            let routes = format!("{routes}snapshot = \"state:{name}\"\n");
            let rights = [&stream[..], rights, extra].concat();
            checked(&limited(&redis, &rights).routes(&routes))
        };
        let with = |rights: &[&'static str]| [&state[..], rights].concat();
        let lacks = |name: &str, rights: &[&str], missing: &str| {
            let found = found(name, rights);
            found.has(78, "wrong", "access");
            let told = format!("may not run {missing} on \"state:{name}\"");
            assert!(found.text.contains(&told), "{told} in\n{}", found.text);
        };
        // What is there decides; of what is not there yet any kind may be meant.
        redis.run(&["HSET", "state:hash", "a", "1"]);
        found("hash", &with(&["+hlen", "+hgetall"])).has(0, "fine", "access");
        found("none", &with(&["+llen", "+lrange"])).has(0, "fine", "access");
        lacks("hash", &with(&["+llen", "+lrange", "+hlen"]), "HGETALL");
        lacks("none", &with(&["+llen", "+hgetall"]), "what reads a state of any kind");
        let no_exec = ["%R~state:*", "+type", "+multi", "+hlen", "+hgetall"];
        lacks("hash", &no_exec, "EXEC");
        let no_multi = ["%R~state:*", "+type", "+exec", "+hlen", "+hgetall"];
        lacks("hash", &no_multi, "MULTI");
        let no_key = ["+type", "+multi", "+exec", "+get", "+strlen"];
        lacks("none", &no_key, "TYPE, what reads a state of any kind");
    }
    assert_eq!(redis.calls("hgetall"), 0, "a state may be large");
}

#[test]
fn how_keys_that_share_are_waited_for_is_told_where_keys_may_share() {
    let redis = Redis::start();
    let setup = || Setup::redis(&redis);
    checked(&setup()).has(0, "fine", "shared-reads");
    let denied = |right: &str| {
        redis.run(&["ACL", "SETUSER", "default", right]);
        let found = checked(&setup());
        found.has(0, "note", "shared-reads");
        found.text
    };
    let text = denied("-client|tracking");
    assert!(text.contains("allow +hello +client|tracking"), "{text}");
    assert!(!text.contains("+client|unblock"), "{text}");
    for right in ["-client|unblock", "-client|id"] {
        let text = denied(right);
        assert!(text.contains("allow +client|id +client|unblock"), "{text}");
    }
    redis.run(&["ACL", "SETUSER", "default", "+client|tracking"]);
    checked(&setup()).has(0, "fine", "shared-reads");
    let never = [
        setup().set("source", "connections = 0"),
        setup().set("limits", "readers = 64\nreaders_per_ip = 64"),
        setup().routes(FIXED),
    ];
    for setup in never {
        assert_eq!(checked(&setup).levels("shared-reads"), [""; 0]);
    }
}

#[test]
fn sentinels_are_asked_for_the_primary_and_for_a_quorum() {
    let trio = Trio::start();
    let found = checked(&Setup::with_url(&trio.url()));
    assert_eq!(found.levels("quorum"), ["fine"; 3], "{}", found.text);
    assert_eq!(found.levels("version"), ["fine"; 3], "one primary, two replicas");
    found.has(0, "note", "replication");
    let unknown = trio.url().replace(NAME, "other");
    checked(&Setup::with_url(&unknown)).has(78, "wrong", "sentinel");
    trio.sentinels[1..].iter().for_each(|sentinel| sentinel.signal("STOP"));
    eventually("the first misses the others", || {
        let quorum = trio.sentinels[0].run(&["SENTINEL", "CKQUORUM", NAME]);
        matches!(quorum, Some(Answer::Error(_)))
    });
    let found = checked(&Setup::with_url(&trio.url()));
    trio.sentinels[1..].iter().for_each(|sentinel| sentinel.signal("CONT"));
    found.has(78, "unreachable", "unreachable");
}

#[test]
fn a_cluster_is_asked_for_all_its_slots_and_nodes() {
    let cluster = Cluster::start(0);
    let setup = || Setup::with_url(&cluster.url());
    let found = checked(&setup());
    assert_eq!(found.levels("coverage"), ["fine"; 3], "{}", found.text);
    assert_eq!(found.levels("version"), ["fine"; 3], "{}", found.text);
    assert_eq!(found.code, 0, "{}", found.text);
    assert_eq!(cluster.nodes[0].run(&["CLUSTER", "DELSLOTS", "0"]), Answer::Text("OK".into()));
    checked(&setup()).has(78, "wrong", "coverage");
}
