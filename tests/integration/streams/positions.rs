//! Last event ids, in the header and in the query, as clients add them to a URL.

use serde_json::json;

use super::{everywhere, newest, replays};
use crate::support::client::Client;

#[test]
fn an_empty_header_is_none() {
    everywhere(
        |setup| setup,
        |scene| {
            let ids = scene.publish(2);
            replays(scene, scene.resume(""), &[], &ids[1]);
            let now = newest(scene);
            let path = format!("/events/a?last_event_id={}", ids[1]);
            let client = Client::resume(&scene.gateway.address, &path, "");
            replays(scene, client, std::slice::from_ref(&now), &now);
            let now = newest(scene);
            replays(scene, scene.open("?last_event_id="), &[], &now);
        },
    );
}

#[test]
fn the_short_form_of_an_id_is_taken_in_the_query_and_in_the_header() {
    everywhere(
        |setup| setup,
        |scene| {
            let ids = scene.publish(3);
            // 0 stands for 0-0, after which is everything; nothing was removed, so it is exact.
            replays(scene, scene.open("?last_event_id=0"), &ids, &ids[2]);
            let all = [&ids[..], &[newest(scene)]].concat();
            replays(scene, scene.resume("0"), &all, &all[3]);
            let all = [&all[..], &[newest(scene)]].concat();
            replays(scene, scene.resume("earliest"), &all, &all[4]);
        },
    );
}

#[test]
fn an_id_of_another_server_is_a_gap_and_starts_live() {
    everywhere(
        |setup| setup,
        |scene| {
            let mut tail = scene.publish(2).remove(1);
            let huge = "18446744073709551616-0";
            for id in ["garbage", "1-2-3", "01-0", "+1-0", "5-", "-", huge] {
                let in_query = format!("?last=2&lastEventId={}", id.replace('+', "%2b"));
                for in_header in [true, false] {
                    let mut client =
                        if in_header { scene.resume(id) } else { scene.open(&in_query) };
                    let gap = json!({"type": "gap", "after": null, "next": null, "lost": null, "reason": "unknown"});
                    assert_eq!(client.control(), (gap, tail.clone()), "{id}, header: {in_header}");
                    replays(scene, client, &[], &tail);
                    tail = newest(scene);
                }
            }
        },
    );
}

#[test]
fn a_query_that_is_wrong_is_refused() {
    everywhere(
        |setup| setup,
        |scene| {
            for query in
                ["?last=3&since=15m", "?last=3&last=4", "?last_event_id=earliest&last=3", "?last=x"]
            {
                assert_eq!(scene.status(query), 400, "{query}");
            }
        },
    );
}

#[test]
fn a_client_that_adds_its_id_to_a_url_with_a_beginning_loses_nothing() {
    everywhere(
        |setup| setup,
        |scene| {
            let mut ids = scene.publish(5);
            let names = ["lastEventId", "Last-Event-ID", "last-event-id", "LASTEVENTID"];
            for (name, beginning) in names.into_iter().zip(["last=2", "since=1h", "last=x", "a=b"])
            {
                // Both ways round, and the newer one of two.
                for query in [
                    format!("?{beginning}&{name}={}", ids[1]),
                    format!("?{name}={}&{beginning}&{name}={}", ids[0], ids[1]),
                ] {
                    eprintln!("{query}");
                    let tail = ids.last().unwrap().clone();
                    replays(scene, scene.open(&query), &ids[2..], &tail);
                    ids.push(newest(scene));
                }
            }
        },
    );
}
