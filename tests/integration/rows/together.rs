use serde_json::{Value, json};

use super::*;

#[test]
fn a_stream_ends_for_all_of_its_clients_whoever_gets_the_marker() {
    let lines =
        format!("{OWN}end = {{ field = \"type\", equals = \"done\" }}\nstart = \"earliest\"");
    on_both_sources(&lines, |gateway| {
        let mut clients = ["acme", "other"].map(|tenant| open(gateway, &json!(tenant), ""));
        clients.iter_mut().for_each(|client| drop(client.live()));
        let done = json!({ "tenant": "acme", "type": "done", "payload": "over" });
        add(gateway, &[row("other", "1"), row("acme", "2"), done]);
        let [acme, other] = &mut clients;
        assert_eq!(heard(acme, 2), ["2", "over"]);
        assert_eq!(heard(other, 1), ["1"]);
        for client in &mut clients {
            let (end, _) = client.control();
            assert_eq!(end, json!({ "type": "end", "reason": "marker" }));
            assert!(client.rest().is_empty());
        }
        let mut late = open(gateway, &json!("other"), "");
        assert_eq!(heard(&mut late, 1), ["1"]);
        assert_eq!(late.control().0["type"], "end");
    });
}

fn table(client: &mut Client) -> Value {
    let event = client.event();
    assert_eq!(event.event_type, "snapshot", "{event:?}");
    serde_json::from_str(&event.data).unwrap()
}

#[test]
fn a_state_is_folded_from_the_clients_own_rows() {
    let lines = format!("{OWN}snapshot = {{ newest_by = \"id\" }}");
    on_both_sources(&lines, |gateway| {
        let entry = |tenant: &str, id: &str, payload: &str| json!({ "tenant": tenant, "id": id, "payload": payload });
        let added = add(
            gateway,
            &[
                entry("acme", "1", "a"),
                entry("other", "1", "b"),
                entry("acme", "2", "c"),
                entry("acme", "1", "d"),
                entry("other", "2", "e"),
            ],
        );
        assert_eq!(added.len(), 5);
        let mut acme = open(gateway, &json!("acme"), "");
        assert_eq!(table(&mut acme), json!({ "1": "d", "2": "c" }));
        let mut other = open(gateway, &json!("other"), "");
        assert_eq!(table(&mut other), json!({ "1": "b", "2": "e" }));
        let mut both = open(gateway, &json!(["acme", "other"]), "");
        assert_eq!(table(&mut both), json!({ "1": "d", "2": "e" }));
        acme.live();
        add(gateway, &[entry("other", "3", "f"), entry("acme", "3", "g")]);
        assert_eq!(acme.entry().data, "g");
    });
}

/// What a client does not get supersedes nothing that it gets.
#[test]
fn a_client_that_is_behind_is_spared_only_what_its_own_rows_supersede() {
    const ROUNDS: usize = 3000;
    let redis = Redis::start();
    let lines = format!("{OWN}conflate = \"id\"");
    let gateway = on(Setup::redis(&redis), &lines);
    let header = format!("Authorization: {}\r\n", token(&json!("acme")));
    let mut client = Client::with_small_window_and(&gateway.address, "/events/a", &header);
    client.live();
    let pad = "x".repeat(2000);
    for round in 0..ROUNDS {
        let number = format!("{round}{pad}");
        for tenant in ["acme", "other"] {
            let id = (round % 4).to_string();
            redis.run(&["XADD", "events:a", "*", "tenant", tenant, "id", &id, "payload", &number]);
        }
    }
    let (mut newest, mut spared, mut got) = ([0; 4], 0, 0);
    let round = |data: &str| data.trim_end_matches('x').parse::<usize>().unwrap();
    while got + spared < ROUNDS {
        let event = client.event();
        if event.event_type == "ssegate" {
            let control: Value = serde_json::from_str(&event.data).unwrap();
            match control["type"].as_str() {
                Some("conflated") => {
                    spared += usize::try_from(control["entries"].as_u64().unwrap()).unwrap()
                }
                Some("at") => {}
                _ => panic!("{control}"),
            }
            continue;
        }
        got += 1;
        let round = round(&event.data);
        assert!(newest[round % 4] <= round, "in order");
        newest[round % 4] = round;
    }
    assert!(spared > 0, "it was behind");
    assert_eq!(newest, [ROUNDS - 4, ROUNDS - 3, ROUNDS - 2, ROUNDS - 1]);
}

#[test]
fn a_gap_ends_or_heals_only_where_it_is_one() {
    let redis = Redis::start();
    let lines = format!("{OWN}on_gap = \"end\"");
    let gateway = on(Setup::redis(&redis).set("source", "max_entry = \"1KiB\""), &lines);
    let mut clients = ["acme", "other"].map(|tenant| open(&gateway, &json!(tenant), ""));
    clients.iter_mut().for_each(|client| drop(client.live()));
    redis.run(&["XADD", "events:a", "*", "tenant", "acme", "payload", &"x".repeat(2000)]);
    redis.run(&["XADD", "events:a", "*", "tenant", "other", "payload", "small"]);
    let [acme, other] = &mut clients;
    assert_eq!(acme.control().0["reason"], "oversize");
    assert!(acme.rest().is_empty());
    assert_eq!(other.entry().data, "small");
}
