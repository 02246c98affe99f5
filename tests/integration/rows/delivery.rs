use serde_json::json;

use super::*;

#[test]
fn a_client_gets_its_own_rows_live_and_from_the_past() {
    on_both_sources(OWN, |gateway| {
        let (acme, both) = (json!("acme"), json!(["acme", "other"]));
        let mut clients = [open(gateway, &acme, ""), open(gateway, &both, "")];
        let mut everybody = Client::open(&gateway.address, "/all/a");
        clients.iter_mut().for_each(|client| drop(client.live()));
        everybody.live();
        let added = add(
            gateway,
            &[
                row("acme", "1"),
                row("third", "2"),
                row("other", "3"),
                json!({ "payload": "nobody's" }),
                row("acmee", "4"),
                row("", "5"),
                row("acme", "6"),
            ],
        );
        assert_eq!(heard(&mut everybody, 7).len(), 7);
        let [one, two] = &mut clients;
        assert_eq!(heard(one, 2), ["1", "6"]);
        assert_eq!(heard(two, 3), ["1", "3", "6"]);
        assert_eq!(
            (one.last_event_id(), two.last_event_id()),
            (added[6].clone(), added[6].clone())
        );
        for query in ["?last=2", "?since=1h", "?last_event_id=earliest"] {
            let mut client = open(gateway, &acme, query);
            assert_eq!(heard(&mut client, 2), ["1", "6"], "{query}");
            assert_eq!(client.live(), (2, added[6].clone()), "{query}");
        }
        let mut newest = open(gateway, &both, "?last=2");
        assert_eq!(heard(&mut newest, 2), ["3", "6"]);
        let mut back = resume(gateway, &both, &added[1]);
        assert_eq!(heard(&mut back, 2), ["3", "6"], "its id is another's row");
        assert_eq!(back.live().1, added[6]);
    });
}

/// Of the past that no ring has, Redis is asked.
#[test]
fn the_past_that_only_redis_has_is_selected_by_the_same_rule() {
    let redis = Redis::start();
    for number in 0..300 {
        let tenant = ["acme", "other", "third"][number % 3];
        redis.run(&["XADD", "events:a", "*", "tenant", tenant, "payload", &number.to_string()]);
    }
    redis.run(&["XADD", "events:a", "*", "tenant", "acme", "tenant", "other", "payload", "of two"]);
    redis.run(&["XADD", "events:a", "*", "tenant", "acme", "tenant", "acme", "payload", "twice"]);
    let gateway = on(Setup::redis(&redis), &format!("{OWN}replay = 150"));
    let all = ids(&redis, "events:a");
    let acme = json!("acme");
    let mut client = open(&gateway, &acme, "?last=20");
    let expected: Vec<_> = (81..100).map(|nth| (nth * 3).to_string()).collect();
    assert_eq!(heard(&mut client, 20), [&expected[..], &["twice".into()]].concat());
    assert_eq!(client.live().0, 20);
    // No further back than `replay` allows, and that is no gap.
    let mut client = open(&gateway, &acme, "?last=150");
    let expected: Vec<_> = (51..100).map(|nth| (nth * 3).to_string()).collect();
    assert_eq!(heard(&mut client, 50), [&expected[..], &["twice".into()]].concat());
    let mut client = resume(&gateway, &json!(["third"]), &all[200].to_string());
    let expected: Vec<_> = (67..100).map(|nth| (nth * 3 + 2).to_string()).collect();
    assert_eq!(heard(&mut client, 33), expected);
    assert_eq!(client.live(), (33, all.last().unwrap().to_string()));
}

#[test]
fn several_fields_have_to_hold_and_claims_may_be_within_objects() {
    let lines = "where = { tenant = \"org.id\", user = \"sub\" }";
    on_both_sources(lines, |gateway| {
        let claims = json!({ "sub": "u", "exp": seconds_from_now(600), "org": { "id": ["acme"] } });
        let token = format!("Bearer {}", hs256(&claims));
        let headers = [("Authorization", token.as_str())];
        let mut client = Client::with(&gateway.address, "/events/a", &headers);
        client.live();
        add(
            gateway,
            &[
                json!({ "tenant": "acme", "user": "v", "payload": "1" }),
                json!({ "tenant": "other", "user": "u", "payload": "2" }),
                json!({ "tenant": "acme", "payload": "3" }),
                json!({ "tenant": "acme", "user": "u", "payload": "4" }),
            ],
        );
        assert_eq!(heard(&mut client, 1), ["4"]);
    });
}

#[test]
fn a_filter_narrows_what_the_token_allows_and_nothing_else() {
    on_both_sources(OWN, |gateway| {
        let acme = json!("acme");
        let mut urgent = open(gateway, &acme, "?severity=high,critical");
        let mut of_one = open(gateway, &acme, "?severity=high&source=fw-01");
        urgent.live();
        of_one.live();
        let entry = |tenant, severity, source, payload| json!({ "tenant": tenant, "severity": severity, "source": source, "payload": payload });
        add(
            gateway,
            &[
                entry("acme", "low", "fw-01", "1"),
                entry("other", "high", "fw-01", "2"),
                entry("acme", "critical", "fw-01", "3"),
                row("acme", "4"),
                entry("acme", "high", "fw-01", "5"),
                entry("acme", "high", "fw-02", "6"),
            ],
        );
        assert_eq!(heard(&mut urgent, 3), ["3", "5", "6"]);
        assert_eq!(heard(&mut of_one, 1), ["5"]);
        let mut past = open(gateway, &acme, "?severity=critical&last=5");
        assert_eq!(heard(&mut past, 1), ["3"]);
    });
}

#[test]
fn a_filter_may_look_into_the_payload() {
    let lines =
        "filter = [\"severity\"]\nfilter_from = \"payload\"\nwhere = { tenant = \"tenants\" }";
    on_both_sources(lines, |gateway| {
        let mut client = open(gateway, &json!("acme"), "?severity=high,3");
        client.live();
        let entry = |tenant: &str, payload: &str| json!({ "tenant": tenant, "severity": "high", "payload": payload });
        add(
            gateway,
            &[
                entry("acme", "no JSON"),
                entry("acme", r#"{"severity":"low"}"#),
                entry("other", r#"{"severity":"high"}"#),
                entry("acme", r#"{"severity":"high"}"#),
                entry("acme", r#"{"x":{"severity":"high"}}"#),
                entry("acme", r#"{"severity":3}"#),
            ],
        );
        assert_eq!(heard(&mut client, 2), [r#"{"severity":"high"}"#, r#"{"severity":3}"#]);
    });
}

#[test]
fn streams_of_one_connection_over_http_2_each_have_their_own_rows() {
    on_both_sources(OWN, |gateway| {
        let mut session = Session::open(&gateway.address);
        let tokens = [json!("acme"), json!("other")].map(|tenants| token(&tenants));
        let streams = tokens.each_ref().map(|token| {
            let stream = session.get("/events/a", &[("authorization", token)]);
            assert_eq!(session.status(stream), 200);
            session.live(stream);
            stream
        });
        add(gateway, &[row("other", "1"), row("acme", "2"), row("third", "3"), row("acme", "4")]);
        let mut heard = |stream| session.event(stream).data;
        assert_eq!([heard(streams[0]), heard(streams[0])], ["2", "4"]);
        assert_eq!(heard(streams[1]), "1");
        // With the next keepalive each hears how far it has come.
        for stream in streams {
            let at = session.event(stream);
            assert_eq!(at.data, r#"{"type":"at"}"#);
        }
    });
}
