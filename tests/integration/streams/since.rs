//! A start at a time: so long ago, or a time of RFC 3339.

use ssegate::sse::StreamId;

use super::{everywhere, newest, replays};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::{Answer, Redis};

#[test]
fn entries_can_be_asked_for_since_a_time() {
    everywhere(
        |setup| setup,
        |scene| {
            let mut ids = scene.publish(5);
            replays(scene, scene.open("?since=15m"), &ids, &ids[4]);
            ids.push(newest(scene));
            let ms = |id: &str| id.parse::<StreamId>().unwrap().ms;
            let time = jiff::Timestamp::from_millisecond(ms(&ids[3]).try_into().unwrap()).unwrap();
            let since: Vec<_> = ids.iter().filter(|id| ms(id) >= ms(&ids[3])).cloned().collect();
            replays(scene, scene.open(&format!("?since={time}")), &since, &ids[5]);
            let now = newest(scene);
            replays(scene, scene.open("?since=2999-01-01T00:00:00Z"), &[], &now);
            for refused in ["", "15", "yesterday", "2026-01-31", "-5m"] {
                assert_eq!(scene.status(&format!("?since={refused}")), 400, "since={refused}");
            }
        },
    );
}

#[test]
fn a_time_may_have_an_offset_whose_plus_is_encoded_or_not() {
    let redis = Redis::start();
    let id = |time: &str| {
        let time: jiff::Timestamp = time.parse().unwrap();
        format!("{}-0", time.as_millisecond())
    };
    // An hour apart: an offset that is dropped or turned round lands on another entry.
    let ids = ["10", "11", "12", "13", "14"].map(|hour| id(&format!("2026-01-31T{hour}:00:00Z")));
    for id in &ids {
        assert_eq!(redis.run(&["XADD", "events:a", id, "payload", id]), Answer::Text(id.clone()));
    }
    let gateway = Setup::redis(&redis).start_ready();
    for since in [
        "2026-01-31T12:00:00Z",
        // A query's plus is a space.
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T13:00:00 01:00",
        "2026-01-31T13:00:00%2B01:00",
        "2026-01-31T13:00:00%2b01:00",
        "2026-01-31T11:00:00-01:00",
        "2026-02-01T01:30:00%2B13:30",
    ] {
        // A space is none in a request line.
        let path = format!("/events/a?since={}", since.replace(' ', "%20"));
        let mut client = Client::open(&gateway.address, &path);
        for id in &ids[2..] {
            assert_eq!(&client.event().last_event_id, id, "{since}");
        }
        assert_eq!(client.live(), (3, ids[4].clone()), "{since}");
    }
}
