//! TLS with an authority of one's own, with and without a certificate of the client.

use super::works;
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::program::run;
use crate::support::redis::Redis;
use crate::support::sentinel::{NAME, Trio};
use crate::support::tls::{Authority, Identity};

fn server(authority: &Authority, clients_show: bool) -> Redis {
    Redis::on_tcp_with(&|ip| authority.arguments(ip, clients_show))
}

fn setup(redis: &Redis, authority: &Authority) -> Setup {
    Setup::with_url(&format!("rediss://{}", redis.address()))
        .set("source", &format!("ca_file = {:?}", authority.file()))
}

fn showing(setup: Setup, identity: &Identity) -> Setup {
    setup
        .set("source", &format!("client_certificate = {:?}", identity.certificate))
        .set("source", &format!("client_key = {:?}", identity.key))
}

#[test]
fn a_server_of_a_private_authority_is_spoken_to() {
    let authority = Authority::new();
    let redis = server(&authority, false);
    let gateway = setup(&redis, &authority).start_ready();
    works(&gateway, &redis);
    // More than one record of TLS, both ways.
    let large = "x".repeat(300_000);
    let mut client = Client::open(&gateway.address, "/events/c");
    client.live();
    gateway.publish("events:c", &large);
    assert_eq!(client.entry().data, large);
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let authority = Authority::new();
    let redis = server(&authority, true);
    let gateway = showing(setup(&redis, &authority), &authority.sign("gateway")).start_ready();
    works(&gateway, &redis);
}

/// The log reports it, and the gateway tries again for ever.
#[track_caller]
fn is_refused(gateway: &Gateway) {
    eventually("it is logged", || gateway.log().contains("no TLS with this server"));
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("no TLS with this server")).unwrap();
    assert!(line.contains("\"ERROR\"") && line.contains("TLS: "), "{line}");
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let redis = server(&authority, false);
    is_refused(&setup(&redis, &foreign).start());
}

#[test]
fn a_server_of_another_name_is_refused() {
    let authority = Authority::new();
    let redis = Redis::on_tcp_with(&|_| authority.arguments("redis.example", false));
    is_refused(&setup(&redis, &authority).start());
}

#[test]
fn a_server_that_asks_in_vain_for_a_certificate_refuses() {
    let authority = Authority::new();
    let redis = server(&authority, true);
    is_refused(&setup(&redis, &authority).start());
    let foreign = Authority::new();
    let identity = foreign.sign("gateway");
    is_refused(&showing(setup(&redis, &authority), &identity).start());
}

#[test]
fn a_server_without_tls_is_distinguished_from_one_that_is_away() {
    let (authority, redis) = (Authority::new(), Redis::on_tcp(&[]));
    let gateway = setup(&redis, &authority).start();
    eventually("it is logged", || gateway.log().contains("does this port speak it?"));
}

#[test]
fn an_authority_that_the_system_trusts_is_trusted_where_none_is_named() {
    let authority = Authority::new();
    let redis = server(&authority, false);
    let gateway = Setup::with_url(&format!("rediss://{}", redis.address())).start();
    is_refused(&gateway);
}

#[test]
fn files_that_are_no_certificates_end_the_start_with_78() {
    let redis = Redis::on_tcp(&[]);
    let setup = Setup::with_url(&format!("rediss://{}", redis.address()))
        .set("source", "ca_file = \"/dev/null\"");
    let folder = crate::support::Folder::new();
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("source.ca_file = \"/dev/null\": holds no certificate"), "{stderr}");
}

#[test]
fn sentinels_and_their_servers_are_spoken_to_with_tls() {
    const PORT: u16 = 26380;
    let authority = Authority::new();
    let lines = |ip: &str| {
        let mut arguments = authority.arguments(ip, true);
        arguments[1] = PORT.to_string();
        let lines = arguments.chunks(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1]));
        lines.filter(|line| !line.starts_with("tls-cluster")).collect()
    };
    let trio = Trio::with(&|ip| authority.arguments(ip, true), &lines);
    let sentinels =
        trio.sentinels.iter().map(|sentinel| sentinel.address.split_once(':').unwrap().0);
    let sentinels: Vec<_> = sentinels.map(|ip| format!("{ip}:{PORT}")).collect();
    let url = format!("rediss-sentinel://{}/{NAME}", sentinels.join(","));
    let setup = Setup::with_url(&url).set("source", &format!("ca_file = {:?}", authority.file()));
    let gateway = showing(setup, &authority.sign("gateway")).start_ready();
    works(&gateway, &trio.servers[0]);
}

#[test]
fn the_nodes_of_a_cluster_are_spoken_to_with_tls() {
    let authority = Authority::new();
    let cluster = Cluster::with(0, &|ip| authority.arguments(ip, true));
    let url = cluster.url().replace("redis-cluster", "rediss-cluster");
    let setup = Setup::with_url(&url).set("source", &format!("ca_file = {:?}", authority.file()));
    let gateway = showing(setup, &authority.sign("gateway")).start_ready();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let name = cluster.name_at(index);
        let mut client = Client::open(&gateway.address, &format!("/events/{name}"));
        client.live();
        let id = node.add(&format!("events:{name}"), "live");
        assert_eq!(client.entry().last_event_id, id);
    }
}
