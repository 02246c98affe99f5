use std::sync::Arc;
use std::time::Instant;

use super::arrivals::Arrivals;
use super::*;
use crate::config::{self, Config};

fn limits(change: impl FnOnce(&mut config::Limits)) -> Arc<Limits> {
    Limits::new(&config("memory:", change), 1000).unwrap()
}

fn config(url: &str, change: impl FnOnce(&mut config::Limits)) -> Config {
    let route = "[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"";
    let text = format!("[source]\nurl = \"{url}\"\n{route}");
    let mut config = config::parse(&text, "test", &[], false).unwrap().config;
    change(&mut config.limits);
    config
}

fn at(address: &str) -> ClientIdentity {
    ClientIdentity { address: Some(address.parse().unwrap()), principal: None }
}

fn named(principal: &str) -> ClientIdentity {
    ClientIdentity { address: None, principal: Some(principal.into()) }
}

#[test]
fn descriptors_bound_the_clients_and_leave_some_to_pending_connections() {
    let all = 1000 - 128 - 250;
    assert_eq!(limits(|_| {}).bounds().max_clients(), all - all / 16);
    let all = 1000 - 128 - 10;
    assert_eq!(limits(|config| config.readers = 10).bounds().max_clients(), all - all / 16);
    assert_eq!(limits(|config| config.clients = 5).bounds().max_clients(), 5);
}

/// No more connections than `source.connections` to each server, and no more epolls than clients.
#[test]
fn a_stream_key_takes_a_descriptor_where_several_clients_share_its_shard() {
    let cluster = "redis-cluster://a:1,b:2";
    for (url, connections, readers, clients, for_readers) in [
        ("memory:", 64, 100, 0, 100),
        ("redis://a", 64, 50, 0, 2 * 50),
        ("redis://a", 64, 1000, 0, 1000 + 64),
        ("redis://a", 64, 1000, 100, 100 + 64),
        ("redis://a", 0, 1000, 0, 2 * 1000),
        (cluster, 64, 100, 0, 2 * 100),
        (cluster, 64, 1000, 0, 1000 + 2 * 64),
    ] {
        let mut config =
            config(url, |limits| (limits.readers, limits.clients) = (readers, clients));
        config.source.connections = connections;
        let division = Division::of(&config, 10_000);
        let too_few = (division.too_few_connections(), division.too_few_epolls());
        assert_eq!((division.readers, too_few), (for_readers, (None, None)), "{url}");
        // A quarter of the open files is the most, and what fits into that is told.
        let division = Division::of(&config, 200);
        let connections = division.reader_connections;
        assert_eq!(division.readers, 50, "{url}");
        assert_eq!(division.too_few_connections(), (connections > 50).then_some(50), "{url}");
        assert_eq!(division.too_few_epolls(), Some(50_usize.saturating_sub(connections)), "{url}");
    }
}

#[test]
fn selecting_clients_have_epolls_of_their_own_and_merged_ones_need_none() {
    let public = "access = \"public\"";
    let merge = "merge = [{ name = \"x\", key = \"x\" }]";
    let chosen = "merge_query = { name = \"s\", key = \"s:{s}\" }";
    for (route, clients, epolls) in [
        (format!("key = \"a\"\n{public}"), 0, 100),
        (format!("key = \"a\"\nfilter = [\"severity\"]\n{public}"), 0, 200),
        (format!("{merge}\n{public}"), 0, 100),
        (format!("{chosen}\n{public}"), 50, 50),
    ] {
        let text = format!(
            "[source]\nurl = \"memory:\"\n[limits]\nreaders = 100\nclients = {clients}\n[[route]]\npath = \"/a\"\n{route}"
        );
        let config = config::parse(&text, "test", &[], false).unwrap().config;
        assert_eq!(Division::of(&config, 10_000).epolls(), epolls, "{route}");
    }
}

#[test]
fn streams_leave_the_rest_of_the_descriptors_to_pending_connections() {
    let limits = limits(|_| {});
    let all = 1000 - 128 - 250;
    let mut clients = Vec::new();
    while let Ok(client) = limits.admit(&limits.bounds(), &ClientIdentity::default()) {
        assert_eq!(limits.max_pending(), all - clients.len() - 1);
        clients.push(client);
    }
    assert_eq!((clients.len(), limits.max_pending()), (limits.bounds().max_clients(), all / 16));
    clients.truncate(100);
    assert_eq!(limits.max_pending(), all - 100);
    assert_eq!(self::limits(|config| config.pending = 7).max_pending(), 7);
}

#[test]
fn an_ipv6_customer_counts_as_one_address_and_a_mapped_ipv4_address_as_itself() {
    let limits = limits(|config| config.clients_per_ip = 1);
    let admit = |address: &str| limits.admit(&limits.bounds(), &at(address));
    let held = admit("2001:db8::1").unwrap();
    assert_eq!(admit("2001:db8::2").err(), Some(LimitExceeded("clients_per_ip")));
    assert!(admit("2001:db8:0:1::1").is_ok());
    let _v4 = admit("192.0.2.1").unwrap();
    assert!(admit("::ffff:192.0.2.1").is_err());
    drop(held);
    assert!(admit("2001:db8::2").is_ok());
    assert_eq!(limits.clients(), 1);
}

#[test]
fn a_principal_has_one_limit_at_all_addresses() {
    let limits = limits(|config| {
        (config.clients_per_principal, config.readers_per_principal) = (1, 2);
        (config.clients_per_ip, config.readers_per_ip) = (1, 5);
    });
    let somewhere = |address: &str, principal: &str| ClientIdentity {
        principal: Some(principal.into()),
        ..at(address)
    };
    let held = limits.admit(&limits.bounds(), &somewhere("192.0.2.1", "ann")).unwrap();
    let again = limits.admit(&limits.bounds(), &somewhere("192.0.2.2", "ann"));
    assert_eq!(again.err(), Some(LimitExceeded("clients_per_principal")));
    // What was taken before it was refused is given back.
    let other = limits.admit(&limits.bounds(), &somewhere("192.0.2.2", "ben")).unwrap();
    assert_eq!(limits.clients(), 2);
    drop((held, other));
    assert!(limits.admit(&limits.bounds(), &named("ann")).is_ok());
    assert_eq!(limits.clients(), 0);

    let readers = [
        limits.admit_reader(&limits.bounds(), &named("ann")),
        limits.admit_reader(&limits.bounds(), &named("ann")),
    ];
    assert_eq!(
        limits.admit_reader(&limits.bounds(), &named("ann")).err(),
        Some(LimitExceeded("readers_per_principal"))
    );
    assert!(limits.admit_reader(&limits.bounds(), &named("ben")).is_ok());
    assert!(
        limits
            .admit_reader(&limits.bounds(), &ClientIdentity::default())
            .is_ok_and(|share| share.is_none())
    );
    drop(readers);
    assert!(limits.admit_reader(&limits.bounds(), &named("ann")).is_ok());
}

#[test]
fn an_address_that_holds_nothing_is_forgotten() {
    let limits = limits(|config| config.clients_per_ip = 1);
    for host in 0..100 {
        drop(limits.admit(&limits.bounds(), &at(&format!("192.0.2.{host}"))).unwrap());
    }
    let held = limits.admit(&limits.bounds(), &at("192.0.2.1")).unwrap();
    assert!(limits.admit(&limits.bounds(), &at("192.0.2.1")).is_err());
    drop(held);
    assert!(limits.shares.has_no_address());
}

#[test]
fn an_address_that_comes_too_often_takes_nothing_from_the_others() {
    let limits = limits(|config| {
        (config.new_clients_per_second, config.new_clients_per_second_per_ip) = (3, 2);
    });
    // They have to come within one second; on a slow machine the test tries again.
    for _ in 0..10 {
        *limits.arrivals.lock().unwrap() = Arrivals::now();
        let begun = Instant::now();
        let admitted = |address: &str| {
            limits.admit(&limits.bounds(), &at(address)).err().map(|LimitExceeded(why)| why)
        };
        let per_ip = Some("new_clients_per_second_per_ip");
        let refused = [
            admitted("2001:db8::1"),
            admitted("2001:db8::2"),
            admitted("2001:db8::3"),
            admitted("2001:db8::4"),
            admitted("192.0.2.1"),
            admitted("192.0.2.2"),
        ];
        if begun.elapsed().as_millis() < 500 {
            let in_all = Some("new_clients_per_second");
            assert_eq!(refused, [None, None, per_ip, per_ip, None, in_all]);
            return;
        }
    }
    panic!("no six clients within half a second");
}

#[test]
fn lower_bounds_keep_the_clients_that_are_here_and_refuse_new_ones() {
    let limits = limits(|config| (config.clients, config.clients_per_ip) = (4, 3));
    let admit = |address: &str| limits.admit(&limits.bounds(), &at(address));
    let mut held: Vec<_> = (0..3).map(|_| admit("192.0.2.1").unwrap()).collect();
    let config = config("memory:", |config| (config.clients, config.clients_per_ip) = (3, 2));
    limits.set_bounds(limits.bounds_of(&config).unwrap().into());
    assert_eq!(limits.clients(), 3);
    assert_eq!(admit("192.0.2.2").err(), Some(LimitExceeded("clients")));
    held.pop();
    assert_eq!(admit("192.0.2.1").err(), Some(LimitExceeded("clients_per_ip")));
    assert!(admit("192.0.2.2").is_ok());
    held.pop();
    assert!(admit("192.0.2.1").is_ok());
    drop(held);
    assert!(limits.shares.has_no_address() && limits.clients() == 0);
}

#[test]
fn too_few_descriptors_are_an_error() {
    assert!(Limits::new(&config("memory:", |_| {}), 80).is_err());
}

#[test]
fn nobody_takes_all_room_for_bodies() {
    let limits = limits(|_| {});
    let held: Vec<_> = (0..256).map(|_| limits.admit_body(&at("10.0.0.1")).unwrap()).collect();
    let refused = limits.admit_body(&at("10.0.0.1")).err();
    assert_eq!(refused, Some(LimitExceeded("bodies_per_ip")));
    let others: Vec<_> = (1..4096 - 255)
        .map(|number| limits.admit_body(&named(&number.to_string())).unwrap())
        .collect();
    assert_eq!(limits.admit_body(&named("last")).err(), Some(LimitExceeded("bodies")));
    drop(held);
    assert!(limits.admit_body(&at("10.0.0.1")).is_ok());
    drop(others);
    assert!(limits.shares.has_no_address());
}
