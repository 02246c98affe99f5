use std::time::{Duration, Instant};

use super::*;
use crate::support::multiplexed::{End, Session};

/// Reloads with these keys, after which the streams of acme go on.
#[track_caller]
fn keeps(gateway: &Gateway, setup: &Setup, clients: &mut [&mut Client]) {
    gateway.write(setup);
    let line = gateway.reload();
    assert_eq!((&line["kept"], &line["ended"]), (&json!(clients.len()), &json!(0)), "{line}");
    add(gateway, &json!({"tenant": "acme", "user": "alice", "severity": "high", "payload": "on"}));
    for client in clients {
        assert_eq!(client.entry().data, "on");
    }
}

/// Reloads with these keys, after which these streams end.
#[track_caller]
fn ends(gateway: &Gateway, setup: &Setup, clients: Vec<Client>, kept: usize) {
    gateway.write(setup);
    let begin = Instant::now();
    let line = gateway.reload();
    assert_eq!((&line["kept"], &line["ended"]), (&json!(kept), &json!(clients.len())), "{line}");
    for mut client in clients {
        assert_eq!(client.control().0, json!({"type": "expired"}));
        assert!(begin.elapsed() < Duration::from_secs(5), "after {:?}", begin.elapsed());
        assert_eq!((client.rest(), client.complete), (Vec::new(), true));
    }
}

#[test]
fn a_stream_goes_on_while_its_token_opens_the_same_entries() {
    let tokens = Tokens::new();
    let setup = |keys: &str| tokens.setup(Setup::memory(), keys);
    let gateway = setup(WHERE).start_ready();
    let claims = json!({"tenants": ["acme", "b"], "same": ["b", "acme", "b"]});
    let mut narrow = open(&gateway, &asked("/alerts?severity=high", &claims));
    let mut wide = open(&gateway, &asked("/alerts", &claims));
    let mut without = open(&gateway, "/plain");
    let mut all = [&mut narrow, &mut wide, &mut without];
    // The filter that it began with is gone, and there are others.
    keeps(
        &gateway,
        &setup("where = { tenant = \"tenants\" }\nfilter = [\"a\", \"tenant\"]"),
        &mut all,
    );
    keeps(&gateway, &setup("where = { tenant = \"tenants\" }"), &mut all);
    // Another claim with the same values.
    keeps(&gateway, &setup("where = { tenant = \"same\" }\nfilter = [\"tenant\"]"), &mut all);
    keeps(&gateway, &setup(&format!("{WHERE}\nfilter_from = \"payload\"")), &mut all);
}

#[test]
fn a_stream_ends_once_its_token_opens_other_entries() {
    let tokens = Tokens::new();
    let setup = |keys: &str| tokens.setup(Setup::memory(), keys);
    let claims = json!({"tenants": "acme", "other": "b", "user": "acme"});
    for (before, now) in [
        ("where = { tenant = \"tenants\" }", "where = { tenant = \"other\" }"),
        ("where = { tenant = \"tenants\" }", "where = { tenant = \"absent\" }"),
        ("where = { tenant = \"tenants\" }", "where = { user = \"tenants\" }"),
        ("where = { tenant = \"tenants\" }", "where = { tenant = \"tenants\", user = \"user\" }"),
        ("where = { tenant = \"tenants\", user = \"user\" }", "where = { tenant = \"tenants\" }"),
        ("where = { tenant = \"tenants\" }", ""),
        ("", "where = { tenant = \"tenants\" }"),
    ] {
        let gateway = setup(before).start_ready();
        let client = open(&gateway, &asked("/alerts", &claims));
        let mut session = Session::open(&gateway.address);
        let hosted = session.stream(&asked("/alerts", &claims));
        session.live(hosted);
        let _without = open(&gateway, "/plain");
        gateway.write(&setup(now));
        let line = gateway.reload();
        assert_eq!((&line["kept"], &line["ended"]), (&json!(1), &json!(2)), "{before} {now}");
        let mut client = client;
        assert_eq!(client.control().0, json!({"type": "expired"}), "{before} {now}");
        assert_eq!((client.rest(), client.complete), (Vec::new(), true));
        assert_eq!(session.control(hosted).0, json!({"type": "expired"}));
        assert_eq!(session.end(hosted), End::Whole);
    }
}

#[test]
fn a_route_that_is_public_now_ends_the_streams_of_tokens() {
    let tokens = Tokens::new();
    let setup = |keys: &str| tokens.setup(Setup::memory(), keys);
    let gateway = setup(WHERE).start_ready();
    let client = open(&gateway, &asked("/alerts", &json!({"tenants": "acme"})));
    let public = routes("filter = [\"severity\"]").replace("\"jwt\"", "\"public\"");
    ends(&gateway, &setup(WHERE).routes(&public), vec![client], 0);
    // Who comes back gets every entry, as everybody does.
    let mut back = open(&gateway, "/alerts");
    add(&gateway, &json!({"tenant": "b", "payload": "all"}));
    assert_eq!(back.entry().data, "all");
    // And from then on the rows of a token again.
    ends(&gateway, &setup(WHERE), vec![back], 0);
}
