//! The resources that `ssegate check` computes, compared with what a running gateway uses.

use super::{ROUTE, file};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::program::run;
use crate::support::redis::Redis;

fn budget(toml: &str, open_files: usize) -> serde_json::Value {
    let file = file(toml);
    let open_files = open_files.to_string();
    let arguments = ["check", "--json", "--open-files", &open_files, "--config", &file.path];
    let (code, out, stderr) = run(&arguments, &[]);
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str(&out).expect(&out)
}

#[test]
fn the_budget_is_what_a_gateway_allows() {
    for (clients, bound) in [(0, "open files"), (50, "limits.clients"), (5000, "open files")] {
        for open_files in [300, 1000] {
            let setup = || {
                Setup::memory()
                    .set("limits", &format!("clients = {clients}"))
                    .set("limits", "readers = 30")
            };
            let budget = budget(&setup().toml(), open_files);
            let gateway = setup().descriptors(open_files).start_ready();
            let metric = |name: &str| gateway.metric(name) as u64;
            assert_eq!(budget["clients"], metric("ssegate_clients_limit"), "{budget}");
            assert_eq!(budget["readers"], metric("ssegate_readers_limit"), "{budget}");
            let state: serde_json::Value =
                serde_json::from_str(&gateway.admin_get("/state").body).unwrap();
            assert_eq!(budget["pending"], state["pending"]["limit"], "{budget}");
            assert_eq!(budget["process_bytes"]["rings"], state["rings"]["limit_bytes"]);
            assert_eq!(budget["clients_bound_by"], bound, "{budget}");
            assert_eq!(budget["upstream_addresses"], 1, "{budget}");
            let clients = budget["clients"].as_u64().unwrap();
            assert!(budget["proxy_connections"].as_u64() >= Some(2 * clients), "{budget}");
        }
    }
}

#[test]
fn redis_sees_no_more_connections_than_the_budget_says() {
    let redis = Redis::start();
    let setup =
        || Setup::redis(&redis).set("limits", "readers = 5").set("limits", "readers_per_ip = 5");
    let most = budget(&setup().toml(), 1000)["redis_connections"].as_u64().unwrap();
    let gateway = setup().start_ready();
    let ids: Vec<_> = (0..5).map(|n| redis.add(&format!("events:{n}"), "first")).collect();
    (0..5).for_each(|n| drop(redis.add(&format!("events:{n}"), "second")));
    // Each asks Redis for what it missed, beside its reader.
    let resume = |n: usize| Client::resume(&gateway.address, &format!("/events/{n}"), &ids[n]);
    let mut clients: Vec<_> = (0..20).map(|n| resume(n % 5)).collect();
    for client in &mut clients {
        assert_eq!(client.entry().data, "second");
        client.live();
    }
    gateway.publish("events:0", "third");
    let seen = redis.clients() as u64;
    assert!((6..=most).contains(&seen), "{seen} connections, {most} in the budget");
}

#[test]
fn a_stream_key_takes_an_epoll_from_its_second_client_to_its_last() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "linger = \"5m\"").start_ready();
    let fds = format!("/proc/{}/fd", gateway.pid());
    let epolls = || {
        let open =
            std::fs::read_dir(&fds).unwrap().filter_map(|fd| fd.ok()?.path().read_link().ok());
        open.filter(|target| target.ends_with("anon_inode:[eventpoll]")).count()
    };
    let open = |n: usize| {
        let mut client = Client::open(&gateway.address, &format!("/events/{n}"));
        client.live();
        client
    };
    let own = epolls();
    let first: Vec<_> = (0..3).map(open).collect();
    assert_eq!(epolls(), own, "each key has one client");
    let second: Vec<_> = (0..3).map(open).collect();
    eventually("each key has an epoll", || epolls() == own + 3);
    // A key that has something to offer is read on for a while.
    for n in 0..3 {
        redis.add(&format!("events:{n}"), "kept");
    }
    let mut clients: Vec<_> = first.into_iter().chain(second).collect();
    clients.iter_mut().for_each(|client| drop(client.entry()));
    drop(clients);
    eventually("they went with the clients", || epolls() == own);
    assert_eq!(gateway.metric("ssegate_readers") as u64, 3, "the keys are still read");
}

#[test]
fn check_explains_and_ends_with_the_budget() {
    let good = file(&format!("[source]\nurl = \"redis://127.0.0.1:6379\"\n\n{ROUTE}"));
    let check =
        |arguments: &[&str]| run(&[&["check", "--config", &good.path], arguments].concat(), &[]);
    let (code, out, stderr) = check(&["--open-files", "1048576"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(out.starts_with(&format!("{}: no faults\n", good.path)), "{out}");
    assert!(out.contains("1 route of redis://127.0.0.1:6379/0 (0 with a token)"), "{out}");
    assert!(out.contains("Resources with 1,048,576 open files"), "{out}");
    for name in ["clients", "rings", "kernel at most", "Redis connections", "upstream addresses"] {
        assert!(out.lines().any(|line| line.trim_start().starts_with(name)), "{name} in\n{out}");
    }
    // Amounts end in one column.
    let amounts = out.lines().filter(|line| line.starts_with("  ")).map(|line| {
        let rest = line.trim_start().split_once("  ").expect(line).1.trim_start();
        let amount = rest.split_once("  ").expect(line).0;
        line.find(rest).expect(line) + amount.len()
    });
    let mut amounts: Vec<_> = amounts.collect();
    amounts.dedup();
    assert_eq!(amounts.len(), 1, "{out}");

    let (code, out, stderr) = check(&["--open-files", "80"]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(stderr.contains("80 descriptors leave room for 0 clients"), "{stderr}");
    let (code, out, _) = check(&["--print"]);
    assert!(
        code == 0 && !out.contains("Resources with"),
        "the values alone are a file of their own: {out}"
    );
}

/// A key of a route that filters may want two epolls, so there may be too few of them, and yet more than keys.
#[test]
fn no_more_keys_are_named_than_there_are() {
    let setup = |readers: usize| {
        let route =
            "[[route]]\npath = \"/a\"\nkey = \"a\"\nfilter = [\"severity\"]\naccess = \"public\"\n";
        let setup = Setup::with_url("redis://127.0.0.1:6379").routes(route);
        file(&setup.set("limits", &format!("readers = {readers}")).toml())
    };
    let told = |readers| {
        let file = setup(readers);
        let (code, out, stderr) =
            run(&["check", "--open-files", "800", "--config", &file.path], &[]);
        assert_eq!(code, 0, "{stderr}");
        let line = out.lines().find(|line| line.trim_start().starts_with("stream keys"));
        line.expect(&out).to_owned()
    };
    assert!(!told(100).contains("no more than"), "{}", told(100));
    assert!(told(150).contains("no more than 136 of them"), "{}", told(150));
}
