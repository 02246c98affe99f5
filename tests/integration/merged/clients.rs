//! What concerns the client and none of its streams: its token, a drain, a slow one, Redis away.

use std::time::{Duration, Instant};

use serde_json::json;
use ssegate::sse::parse::Item;

use super::{Http, ROUTES, Scene, Viewer, both, everywhere, everywhere_with, on_redis};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};
use crate::support::{Folder, eventually};

#[test]
fn an_event_of_a_mebibyte_goes_through_between_those_of_the_others() {
    everywhere_with(
        ROUTES,
        |setup| setup.set("source", "max_entry = \"2MiB\""),
        |scene| {
            let mut viewer = scene.open("/all/u");
            viewer.live();
            let large: String = (0..1 << 17).map(|n| format!("{n:07}\n")).collect();
            let chat = scene.add("chat:u", &large);
            let alerts: Vec<_> = (0..20).map(|n| scene.add("alerts", &format!("a{n}"))).collect();
            let mut told: Vec<_> = (0..21).map(|_| viewer.told()).collect();
            let at = told.iter().position(|(_, data, _)| data.len() > 50_000).unwrap();
            let (_, data, id) = told.remove(at);
            assert!(data == large, "it is torn");
            assert!(id.starts_with(&format!("chat={chat},")), "{id}");
            for (number, (_, data, id)) in told.iter().enumerate() {
                assert_eq!((data, id.ends_with(&alerts[number])), (&format!("a{number}"), true));
            }
        },
    );
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_goes_on_where_it_was() {
    let set = |setup: Setup| setup.set("limits", "write_stall = \"1s\"");
    let routes = ROUTES.replace("access =", "replay = \"all\"\naccess =");
    everywhere_with(&routes, set, |scene| {
        let payload = |name: &str, number: usize| format!("{name}{number}:{}", "x".repeat(50_000));
        // Over HTTP/2 the window of the connection is small.
        let mut viewer = match scene.http {
            Http::One => {
                Viewer::One(Box::new(Client::with_small_window(&scene.gateway.address, "/all/u")))
            }
            Http::Two => scene.open("/all/u"),
        };
        viewer.live();
        for number in 0..60 {
            scene.add("chat:u", &payload("c", number));
            scene.add("alerts", &payload("a", number));
        }
        eventually("it is cut", || {
            scene.gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}") == 1.0
        });
        let mut data: Vec<String> = Vec::new();
        let mut id = both("0-0", "0-0");
        for item in viewer.rest() {
            let Item::Event(event) = item else { continue };
            data.push(event.data.split(':').next().unwrap().to_owned());
            id = event.last_event_id;
        }
        assert!(viewer.was_cut());
        let mut viewer = scene.resume("/all/u", &id);
        loop {
            let (event, text, _) = viewer.told();
            if event == "ssegate" {
                break;
            }
            data.push(text.split(':').next().unwrap().to_owned());
        }
        let of = |name: char| -> Vec<String> {
            data.iter().filter(|data| data.starts_with(name)).cloned().collect()
        };
        let all = |name: &str| (0..60).map(|n| format!("{name}{n}")).collect::<Vec<_>>();
        assert_eq!((of('c'), of('a')), (all("c"), all("a")));
    });
}

#[test]
fn a_drain_tells_the_client_once_and_it_goes_on_elsewhere() {
    everywhere(ROUTES, |scene| {
        let mut viewer = scene.open("/all/u");
        viewer.live();
        let chat = scene.add("chat:u", "before");
        viewer.hears("message", "before", &both(&chat, "0-0"));
        scene.gateway.signal("TERM");
        let (control, id) = viewer.control();
        assert_eq!((control, id), (json!({"type": "drain"}), both(&chat, "0-0")));
        assert_eq!(viewer.rest(), []);
    });
}

#[test]
fn a_client_is_rotated_once_its_time_is_up() {
    everywhere_with(
        ROUTES,
        |setup| setup.set("server", "max_connection_age = \"1s\""),
        |scene| {
            let mut viewer = scene.open("/all/u");
            viewer.live();
            assert_eq!(viewer.rest(), []);
            let rotated = "ssegate_client_disconnects_total{reason=\"rotated\"}";
            assert_eq!(scene.gateway.metric(rotated), 1.0);
        },
    );
}

#[test]
fn a_token_is_over_for_all_streams_at_once() {
    let set = |setup: Setup| {
        let credentials = Folder::new();
        std::fs::write(credentials.0.join("jwt"), format!("{SECRET}\n")).unwrap();
        setup
            .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
            .set("auth.jwt", "warn = \"2s\"")
            .credentials(credentials)
    };
    let routes = ROUTES.replace("access = \"public\"", "access = \"jwt\"\nmatch = \"any\"");
    everywhere_with(&routes, set, |scene| {
        let token = format!("Bearer {}", hs256(&json!({"exp": seconds_from_now(5)})));
        let headers = [("Authorization", &*token)];
        let mut viewer = Viewer::open(scene.http, &scene.gateway, "/all/u", &headers);
        viewer.live();
        let (control, _) = viewer.control();
        assert_eq!((&control["type"], &control["stream"]), (&"expiring".into(), &json!(null)));
        assert_eq!(viewer.control().0, json!({"type": "expired"}));
        assert_eq!(viewer.rest(), []);
    });
}

#[test]
fn a_silent_stream_has_one_sign_of_life() {
    let set = |setup: Setup| setup.set("server", "keepalive = \"1s\"");
    let routes =
        ROUTES.replacen("access = \"public\"", "access = \"public\"\nsignals = \"event\"", 1);
    everywhere_with(&routes, set, |scene| {
        // From before it may be told anything: on a loaded machine it reads late.
        let since = Instant::now();
        let mut viewer = scene.open("/all/u");
        viewer.live();
        for _ in 0..3 {
            assert_eq!(viewer.control().0, json!({"type": "ping"}));
        }
        assert!(since.elapsed() > Duration::from_millis(2500), "one for all, not one for each");
    });
}

#[test]
fn redis_away_and_back_is_told_of_each_stream_and_nothing_is_lost() {
    for http in [Http::One, Http::Two] {
        let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let gateway = Setup::redis(&redis).routes(ROUTES).start_ready();
        let mut viewer = Viewer::open(http, &gateway, "/all/u", &[]);
        viewer.live();
        let chat = redis.add("chat:u", "before");
        viewer.hears("message", "before", &both(&chat, "0-0"));
        redis.kill();
        let mut down = [viewer.told().1, viewer.told().1];
        down.sort();
        let source = |stream: &str, up: bool| {
            format!(r#"{{"type":"source","stream":"{stream}","up":{up}}}"#)
        };
        assert_eq!(down, [source("alerts", false), source("chat", false)]);
        redis.launch();
        let mut told = vec![viewer.told().1, viewer.told().1];
        let chat = redis.add("chat:u", "c1");
        let alerts = redis.add("alerts", "a1");
        let mut last = String::new();
        while told.len() < 4 {
            let (_, data, id) = viewer.told();
            told.push(data);
            last = id;
        }
        told.sort();
        assert_eq!(
            told,
            ["a1".to_owned(), "c1".into(), source("alerts", true), source("chat", true)]
        );
        assert_eq!(last, both(&chat, &alerts));
    }
}

#[test]
fn a_source_that_is_away_refuses_the_client_as_one_stream_would() {
    on_redis(ROUTES, |scene| {
        let Scene { mut redis, gateway, http, .. } = scene;
        redis.kill();
        let mut viewer = Viewer::open(http, &gateway, "/all/u", &[]);
        assert_eq!(viewer.control().0, json!({"type": "unavailable", "reason": "source"}));
        assert_eq!(viewer.rest().len(), 0);
    });
}
