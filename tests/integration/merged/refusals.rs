//! What is refused, of all.

use serde_json::{Value, json};

use super::{ROUTES, Scene, Viewer, everywhere, everywhere_with};
use crate::support::gateway::{Response, Setup, exchange};
use crate::support::multiplexed::Session;
use crate::support::token::{SECRET, hs256, seconds_from_now};
use crate::support::{Folder, eventually};

const GUARDED: &str = r#"
[[route]]
path   = "/all/{user}"
merge  = [{ name = "chat", key = "chat:{user}" }, { name = "alerts", key = "alerts" }]
access = "jwt"
match  = { user = "user" }

[[route]]
path   = "/any"
merge_query = { name = "stream", key = "events:{stream}" }
access = "jwt"
match  = { stream = "streams" }
"#;

pub(super) fn guarded(setup: Setup) -> Setup {
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), format!("{SECRET}\n")).unwrap();
    setup
        .set("server", "keepalive = \"1h\"")
        .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
        .set("auth.jwt", "from = [\"header\", \"query:token\"]")
        .credentials(credentials)
}

pub(super) fn bearer(claims: &Value) -> String {
    let mut claims = claims.clone();
    claims["exp"] = json!(seconds_from_now(600));
    format!("Bearer {}", hs256(&claims))
}

fn answer(scene: &Scene, path: &str, headers: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    exchange(&scene.gateway.address, &request)
}

/// The names of the most streams, the longest parameter and last event id, and a token of 4 KiB, all in the URL; and the
/// id in a header as well.
#[test]
fn the_longest_choice_is_served() {
    const NUMBER: u64 = 18_446_744_073_709_551_000;
    let parameter = "p".repeat(64);
    let routes = format!(
        "[[route]]\npath = \"/any\"\nmerge_query = {{ name = \"{parameter}\", key = \"events:{{{parameter}}}\", most = 64 }}\naccess = \"jwt\"\nmatch = {{ {parameter} = \"streams\" }}\n"
    );
    let names: Vec<_> = (0..64).map(|number| format!("{number:0>21}")).collect();
    let id: Vec<_> = names.iter().map(|name| format!("{name}={NUMBER}-{NUMBER}")).collect();
    let id = id.join(",");
    assert_eq!(id.len(), 4095);
    let claims = |padding: usize| json!({ "streams": names, "padding": "x".repeat(padding) });
    let token = (0..4096).rev().map(|padding| bearer(&claims(padding)));
    let token = token.map(|token| token["Bearer ".len()..].to_owned());
    let token = token.into_iter().find(|token| token.len() <= 4096).unwrap();
    let chosen: Vec<_> = names.iter().map(|name| format!("{parameter}={name}")).collect();
    let in_query = id.replace('=', "%3D").replace(',', "%2C");
    let path = format!("/any?{}&token={token}&last_event_id={in_query}", chosen.join("&"));
    eprintln!("{} bytes", path.len());
    everywhere_with(&routes, guarded, |scene| {
        let mut viewer = scene.resume(&path, &id);
        let (gap, told) = viewer.control();
        assert_eq!((&gap["reason"], told.split(',').count()), (&"reset".into(), 64), "{gap}");
        let longer = format!("{path}&other={}", "x".repeat(1_000));
        let refused = answer(scene, &longer, "");
        assert_eq!((refused.status, &*refused.body), (414, "longer than 14336 bytes: query\n"));
    });
}

#[test]
fn one_refusal_is_403_for_all_and_says_nothing_of_which() {
    everywhere_with(GUARDED, guarded, |scene| {
        let token = bearer(&json!({"streams": ["a", "b"], "user": "u"}));
        let headers = format!("Authorization: {token}\r\n");
        let refused: Vec<_> = ["/any?stream=a&stream=c", "/any?stream=c&stream=d", "/any?stream=c"]
            .map(|path| answer(scene, path, &headers))
            .into_iter()
            .map(|refused| (refused.status, refused.body))
            .collect();
        assert_eq!(refused[0].0, 403);
        assert!(refused.iter().all(|other| *other == refused[0]), "{refused:?}");
        assert_eq!(answer(scene, "/any?stream=a", "").status, 401);
        assert_eq!(answer(scene, "/all/v", &headers).status, 403);
        let streams = scene.gateway.streams();
        assert_eq!(streams.as_array().unwrap().len(), 0, "nothing was read: {streams}");
        let headers = [("Authorization", &*token)];
        let mut viewer =
            Viewer::open(scene.http, &scene.gateway, "/any?stream=a&stream=b", &headers);
        viewer.live();
        Viewer::open(scene.http, &scene.gateway, "/all/u", &headers).live();
    });
}

#[test]
fn a_reload_ends_the_stream_of_which_one_part_is_not_allowed_any_more() {
    let folder = Folder::new();
    let secret = folder.0.join("jwt");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    // It is read again.
    let keys = format!("keys = [{{ alg = \"HS256\", secret_file = {secret:?} }}]");
    let set = |setup| guarded(setup).set("auth.jwt", &keys);
    everywhere_with(GUARDED, set, |scene| {
        let token = bearer(&json!({"streams": ["a", "b"], "user": "u"}));
        let in_query = format!("/any?stream=a&stream=b&token={}", &token["Bearer ".len()..]);
        let headers = [("Authorization", &*token)];
        let open = |path: &str| {
            let mut viewer = Viewer::open(scene.http, &scene.gateway, path, &headers);
            viewer.live();
            viewer
        };
        let mut kept = open("/all/u");
        let mut ended = open("/any?stream=a&stream=b");
        let mut ended_too = Viewer::open(scene.http, &scene.gateway, &in_query, &[]);
        ended_too.live();
        scene.gateway.reload();
        scene.gateway.has_logged("\"kept\":3,\"ended\":0");
        // Another key for what was chosen.
        let file = scene.gateway.folder.0.join("gateway.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("events:{stream}", "others:{stream}")).unwrap();
        scene.gateway.reload();
        for viewer in [&mut ended, &mut ended_too] {
            assert_eq!(viewer.control().0["type"], "expired");
            assert_eq!(viewer.rest(), []);
        }
        scene.add("alerts", "still here");
        assert_eq!(kept.told().1, "still here");
    });
}

#[test]
fn a_wrong_choice_is_400_and_says_what_would_be_right() {
    everywhere(ROUTES, |scene| {
        for (query, why) in [
            ("", "stream: no stream is chosen; write 1 to 3 streams, as in ?stream=a&stream=b"),
            ("?stream=", "stream: not the name of a stream"),
            ("?stream=a&stream=a", "stream: a is there twice; name each stream once"),
            ("?stream=a&stream=b&stream=c&stream=d", "stream: too many streams; write 1 to 3"),
            ("?stream=a%2Fb", "stream: not the name of a stream: it has 1 to 128 letters"),
            ("?stream=..", "stream: not the name of a stream"),
            ("?stream=a&last=0", "last: expected a whole number from 1"),
        ] {
            let refused = answer(scene, &format!("/any{query}"), "");
            assert_eq!(refused.status, 400, "{query}");
            assert!(refused.body.starts_with(why), "{query}: {}", refused.body);
            let mut session = Session::open(&scene.gateway.address);
            let id = session.get(&format!("/any{query}"), &[]);
            assert_eq!(session.status(id), 400, "{query}");
        }
    });
}

#[test]
fn an_id_that_could_become_too_long_is_400() {
    let routes = ROUTES.replace("most = 3", "most = 64");
    everywhere(&routes, |scene| {
        let names: Vec<_> = (10..40).map(|n| format!("stream={n}{}", "x".repeat(126))).collect();
        let refused = answer(scene, &format!("/any?{}", names.join("&")), "");
        assert_eq!(refused.status, 400);
        assert!(refused.body.contains("no more than 4096 are taken"), "{}", refused.body);
        let chosen = format!("/any?{}", names[..23].join("&"));
        let id = scene.open(&chosen).live().1;
        assert!(id.len() < 4096);
        // A page may write it into its URL, behind all the names.
        let id = id.replace('=', "%3D").replace(',', "%2C");
        scene.open(&format!("{chosen}&last_event_id={id}")).live();
    });
}

#[test]
fn a_client_of_many_streams_is_one_client_and_a_reader_for_each() {
    everywhere_with(
        ROUTES,
        |setup| {
            let setup = setup.set("limits", "clients = 2").set("limits", "readers = 3");
            setup.set("limits", "readers_per_ip = 3")
        },
        |scene| {
            let mut first = scene.open("/any?stream=a&stream=b");
            first.live();
            assert_eq!(scene.gateway.metric("ssegate_clients"), 1.0);
            let mut refused = scene.open("/any?stream=a&stream=c&stream=d");
            let (control, _) = refused.control();
            assert_eq!(control, json!({"type": "unavailable", "reason": "readers"}));
            refused.rest();
            let mut second = scene.open("/any?stream=a&stream=c");
            second.live();
            let mut third = scene.open("/any?stream=a");
            assert_eq!(third.control().0["reason"], "clients");
            drop((first, second, refused, third));
            eventually("they have left", || scene.gateway.metric("ssegate_clients") == 0.0);
        },
    );
}

#[test]
fn clients_of_a_key_are_counted_for_every_part() {
    everywhere_with(
        ROUTES,
        |setup| setup.set("limits", "clients_per_key = 1"),
        |scene| {
            let mut one = scene.open("/any?stream=a&stream=b");
            one.live();
            let mut refused = scene.open("/any?stream=c&stream=b");
            assert_eq!(refused.control().0["reason"], "clients_per_key");
            assert_eq!(scene.open("/any?stream=c").live().1, "c=0-0");
        },
    );
}
