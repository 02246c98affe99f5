use serde_json::json;

use super::routes::route;
use crate::support::Folder;
use crate::support::gateway::{Gateway, Response, Setup, exchange};
use crate::support::post::{ids_in, post};
use crate::support::token::{SECRET, hs256, seconds_from_now};

const APP: &str = "Origin: https://app.example";
const EVIL: &str = "Origin: https://evil.example";
const CROSS: &str = "Sec-Fetch-Site: cross-site";

fn preflight(gateway: &Gateway, path: &str, origin: &str) -> Response {
    exchange(
        &gateway.address,
        &format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type, idempotency-key\r\n\r\n"
        ),
    )
}

#[test]
fn a_preflight_tells_what_a_page_may_send_to_publish() {
    let routes = route("") + "[[route]]\npath = \"/quiet\"\nkey = \"q\"\naccess = \"public\"\n";
    let gateway = Setup::memory()
        .routes(&routes)
        .set("cors", "origins = [\"https://app.example\"]")
        .start_ready();
    let allowed = preflight(&gateway, "/events/a", APP);
    assert_eq!(allowed.status, 204, "{allowed:?}");
    assert!(allowed.head.contains("access-control-allow-methods: GET, HEAD, POST"), "{allowed:?}");
    assert!(allowed.head.contains("content-type, idempotency-key"), "{allowed:?}");
    let quiet = preflight(&gateway, "/quiet", APP);
    assert!(quiet.head.contains("access-control-allow-methods: GET, HEAD\r\n"), "{quiet:?}");
    assert!(!quiet.head.contains("idempotency-key"), "{quiet:?}");
    assert_eq!(preflight(&gateway, "/events/a", EVIL).status, 403);
}

#[test]
fn a_page_that_is_listed_publishes_and_reads_the_answer_and_no_other_page_does() {
    let gateway = Setup::memory()
        .routes(&route(""))
        .set("cors", "origins = [\"https://app.example\"]")
        .start_ready();
    let ask = |headers: &[&str]| post(&gateway, "/events/a", headers, "x");
    let listed = ask(&[APP, CROSS]);
    ids_in(&listed);
    assert!(listed.head.contains("access-control-allow-origin: https://app.example"), "{listed:?}");
    for own in [
        &[][..],
        &["Origin: http://x"],
        &["Sec-Fetch-Site: same-origin", "Origin: https://proxied"],
    ] {
        ids_in(&ask(own));
    }
    // A form of any site posts without asking first.
    let form = "Content-Type: text/plain";
    for foreign in
        [&[EVIL, CROSS][..], &[EVIL], &[CROSS], &["Origin: null"], &["Sec-Fetch-Site: same-site"]]
    {
        let refused = ask(&[foreign, &[form]].concat());
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains("a page of another origin may not publish"), "{refused:?}");
        assert!(!refused.head.contains("access-control-allow-origin: https://evil"), "{refused:?}");
    }
    assert_eq!(gateway.metric("ssegate_publish_refused_total{reason=\"page\"}"), 5.0);
    let any = Setup::memory().routes(&route("")).set("cors", "origins = [\"*\"]").start_ready();
    ids_in(&post(&any, "/events/a", &[EVIL, CROSS], "x"));
}

/// A refusal says to the page that may read it what is wrong.
#[test]
fn a_listed_page_reads_why_it_is_refused() {
    let gateway = Setup::memory()
        .routes(&route("fields = \"json\""))
        .set("cors", "origins = [\"https://app.example\"]")
        .start_ready();
    let refused = post(&gateway, "/events/a", &[APP, CROSS], "{a");
    assert_eq!(refused.status, 400);
    assert!(
        refused.head.contains("access-control-allow-origin: https://app.example"),
        "{refused:?}"
    );
}

/// The token is in a cookie, which a browser sends with the requests of every page.
#[test]
fn a_cookie_counts_only_for_pages_that_may_use_it() {
    let with = |credentials: &str| {
        let folder = Folder::new();
        std::fs::write(folder.0.join("jwt"), SECRET).unwrap();
        Setup::memory()
            .routes(&route("").replace(
                "publish = { access = \"public\", ",
                "publish = { access = \"jwt\", match = \"any\", ",
            ))
            .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
            .set("auth.jwt", "from = [\"cookie:token\", \"header\"]")
            .set("cors", "origins = [\"https://app.example\"]")
            .set("cors", credentials)
            .credentials(folder)
            .start_ready()
    };
    let token = hs256(&json!({ "exp": seconds_from_now(60) }));
    let cookie = format!("Cookie: token={token}");
    let ask = |gateway: &Gateway, headers: &[&str]| {
        post(gateway, "/events/a", &[headers, &[&cookie]].concat(), "x").status
    };
    let (credentials, none) = (with("credentials = true"), with("credentials = false"));
    let own = ["Origin: https://x", "Sec-Fetch-Site: same-origin"];
    for gateway in [&credentials, &none] {
        assert_eq!(ask(gateway, &own), 200);
        assert_eq!(ask(gateway, &[]), 200);
        assert_eq!(ask(gateway, &[EVIL, CROSS, "Content-Type: text/plain"]), 403);
        assert_eq!(ask(gateway, &["Sec-Fetch-Site: same-site"]), 403);
    }
    assert_eq!(ask(&credentials, &[APP, CROSS]), 200);
    assert_eq!(ask(&none, &[APP, CROSS]), 401, "it may publish, and not with cookies");
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(post(&none, "/events/a", &[APP, CROSS, &bearer], "x").status, 200);
}
