use std::time::Duration;

use serde_json::json;
use ssegate::sse::parse::Item;

use super::*;
use crate::support::within;

const WITHHELD: &str = "ssegate_entries_withheld_total";
/// Two keepalives, and what a loaded machine adds.
const KEEPALIVES: Duration = Duration::from_secs(5);

/// The next control event of this type, among comments.
#[track_caller]
fn at(client: &mut Client) -> String {
    let (control, id) = client.control();
    assert_eq!(control, json!({ "type": "at" }));
    id
}

#[test]
fn a_client_of_which_everything_is_withheld_moves_and_resumes_where_it_is() {
    on_both_sources(OWN, |gateway| {
        let acme = json!("acme");
        let mut client = open(gateway, &acme, "");
        client.live();
        let before = gateway.metric(WITHHELD);
        let others: Vec<_> = (0..20).map(|nth| row("other", &nth.to_string())).collect();
        let added = add(gateway, &others);
        within(KEEPALIVES, "it hears how far it has come", || at(&mut client) == added[19]);
        within(KEEPALIVES, "they are counted", || gateway.metric(WITHHELD) >= before + 20.0);
        // It is told once, as long as nothing comes.
        let more = client.next_within(Duration::from_millis(2500));
        assert!(matches!(more, Some(Item::Comment(_))), "{more:?}");
        client.leave();
        let mut client = resume(gateway, &acme, &added[19]);
        assert_eq!(client.live(), (0, added[19].clone()));
        assert_eq!(gateway.metric(WITHHELD), before + 20.0, "nothing was read again");
        add(gateway, &[row("acme", "own")]);
        assert_eq!(client.entry().data, "own");
    });
}

#[test]
fn a_gap_tells_no_exact_count() {
    let redis = Redis::start();
    for _ in 0..10 {
        redis.run(&["XADD", "events:a", "*", "tenant", "other", "payload", "x"]);
    }
    let first = ids(&redis, "events:a")[0].to_string();
    redis.run(&["XTRIM", "events:a", "MAXLEN", "=", "4"]);
    let gateway = on(Setup::redis(&redis), OWN);
    let mut client = resume(&gateway, &json!("acme"), &first);
    let (gap, _) = client.control();
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("trimmed")));
    assert_eq!((&gap["lost"], gap.get("at_most")), (&json!(null), Some(&json!(null))), "{gap}");
    client.live();
    let mut all = Client::open(&gateway.address, "/all/a");
    all.live();
    // Deleted before the reader has it.
    let script = "local id = redis.call('XADD', KEYS[1], '*', 'tenant', 'other', 'payload', 'x') \
        redis.call('XDEL', KEYS[1], id) \
        return redis.call('XADD', KEYS[1], '*', 'tenant', 'acme', 'payload', 'y')";
    redis.run(&["EVAL", script, "1", "events:a"]);
    let (gap, _) = client.control();
    assert_eq!(gap["reason"], "deleted");
    assert_eq!((&gap["lost"], gap.get("at_most")), (&json!(null), Some(&json!(1))), "{gap}");
    assert_eq!(client.entry().data, "y");
    let (gap, _) = all.control();
    assert_eq!((&gap["lost"], gap.get("at_most")), (&json!(1), None), "{gap}");
}

#[test]
fn what_is_too_large_is_told_to_whom_it_was_for() {
    let redis = Redis::start();
    let gateway = on(Setup::redis(&redis).set("source", "max_entry = \"1KiB\""), OWN);
    let mut clients = ["acme", "other"].map(|tenant| open(&gateway, &json!(tenant), ""));
    clients.iter_mut().for_each(|client| drop(client.live()));
    let large = "x".repeat(2000);
    redis.run(&["XADD", "events:a", "*", "tenant", "acme", "payload", &large]);
    redis.run(&["XADD", "events:a", "*", "tenant", "other", "payload", "small"]);
    let [acme, other] = &mut clients;
    let (gap, _) = acme.control();
    assert_eq!((&gap["reason"], &gap["lost"]), (&json!("oversize"), &json!(1)), "{gap}");
    assert_eq!(other.entry().data, "small");
}

#[test]
fn a_crowd_of_tenants_hears_of_each_entry_once_and_of_nobody_elses() {
    const TENANTS: usize = 200;
    on_both_sources(OWN, |gateway| {
        let tenant = |nth: usize| format!("t{}", nth % TENANTS);
        let mut clients: Vec<_> =
            (0..2 * TENANTS).map(|nth| open(gateway, &json!(tenant(nth)), "")).collect();
        clients.iter_mut().for_each(|client| drop(client.live()));
        let entries: Vec<_> = (0..TENANTS).map(|nth| row(&tenant(nth), &tenant(nth))).collect();
        add(gateway, &entries);
        for (nth, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.entry().data, tenant(nth));
        }
        add(gateway, &[row("t7", "again")]);
        assert_eq!(clients[7].entry().data, "again");
        assert_eq!(clients[7 + TENANTS].entry().data, "again");
        let (control, _) = clients[8].control();
        assert_eq!(
            control,
            json!({ "type": "at" }),
            "it hears of the other's row as a place alone"
        );
    });
}
