//! Limits that are lower than what is held: no client is cut for that, and none is admitted until there is room.

use super::*;

#[test]
fn clients_stay_and_none_is_admitted_until_there_are_fewer() {
    let gateway = Setup::memory().start_ready();
    let mut clients: Vec<_> = (0..3).map(|_| live(&gateway, "/events/a")).collect();
    let lower = |line: &str| {
        gateway.write(&Setup::memory().set("limits", line));
        assert_eq!(judged(&gateway.reload()), (clients.len() as u64, 0));
        let (refused, _) = Client::open(&gateway.address, "/events/a").control();
        assert_eq!(refused["reason"], line.split(' ').next().unwrap());
    };
    for line in ["clients_per_key = 2", "clients = 2"] {
        lower(line);
    }
    assert_eq!(gateway.metric("ssegate_clients_limit"), 2.0);
    gateway.publish("events:a", "on");
    for client in &mut clients {
        assert_eq!(client.event().data, "on");
    }
    clients.truncate(1);
    eventually("two have left", || gateway.metric("ssegate_clients") == 1.0);
    live(&gateway, "/events/a");
}

#[test]
fn stream_keys_and_addresses_are_counted_by_the_new_limits() {
    let per_ip = |most: usize| {
        let line = format!("clients_per_ip = {most}");
        Setup::memory().set("limits", &line).set("limits", "readers_per_ip = 9")
    };
    let gateway = per_ip(4).start_ready();
    let mut clients = vec![live(&gateway, "/events/a"), live(&gateway, "/events/b")];
    let refused = |path: &str| Client::open(&gateway.address, path).control().0["reason"].clone();
    gateway.write(&per_ip(4).set("limits", "readers = 1"));
    gateway.reload();
    assert_eq!(refused("/events/c"), "readers");
    clients.push(live(&gateway, "/events/b"));
    assert_eq!(gateway.metric("ssegate_readers_limit"), 1.0);
    gateway.write(&per_ip(2));
    gateway.reload();
    assert_eq!(refused("/events/a"), "clients_per_ip");
    clients.truncate(1);
    eventually("they have left", || gateway.metric("ssegate_clients") == 1.0);
    clients.push(live(&gateway, "/events/c"));
    assert_eq!(refused("/events/a"), "clients_per_ip");
}
