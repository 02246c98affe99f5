//! What hostile input must not cause: a function for each kind of input, which takes any bytes.
//!
//! `fuzz/` runs these functions under libFuzzer (CONTRIBUTING.md). The tests here run them over
//! `fuzz/corpus`, which libFuzzer found, and over random bytes.

use std::sync::{Arc, LazyLock};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Version};

use crate::auth::Gate;
use crate::config::{self, Access, Config, KeyTemplate, PathTemplate, Trusted};
use crate::http;
use crate::http::peer::Peer;
use crate::http::response;
use crate::http::router::{self, Decision};
use crate::sse::{RowValue, StreamId};
use crate::telemetry::metrics::Metrics;

pub use crate::http::proxy_header::fuzz as proxy_header;
pub use crate::source::fuzz_redis_reply as redis_reply;

mod token;

pub use token::{jwks, token};

/// Takes any bytes, and panics if they cause what they must not.
pub type Target = fn(&[u8]);

/// Each kind of input, by the name of its target.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config),
    ("forwarded", forwarded),
    ("jwks", jwks),
    ("last_event_id", last_event_id),
    ("proxy_header", proxy_header),
    ("redis_reply", redis_reply),
    ("request", request),
    ("template", template),
    ("token", token),
];

/// gateway.toml: either a configuration that can be printed, or faults with their places.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, "fuzz.toml", &[], false) {
        Ok(loaded) => assert!(!config::print::print(&loaded).is_empty()),
        Err(faults) => {
            for fault in &faults {
                let told = fault.to_string();
                assert!(told.starts_with("fuzz.toml") || told.starts_with("default: "), "{told}");
            }
        }
    }
}

/// An id from a client: an accepted id is canonical.
pub fn last_event_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<StreamId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(StreamId::parse_short(text), Ok(id));
    }
    if let Ok(id) = StreamId::parse_short(text) {
        assert!(id.to_string() == text || id.to_string() == format!("{text}-0"));
    }
}

/// Lines of `X-Forwarded-For` and of `Forwarded`: whatever a client invents, the address that a proxy
/// appends counts.
pub fn forwarded(data: &[u8]) {
    let network = "10.0.0.0/8".parse().expect("a network");
    let trusted = Trusted { networks: vec![network], unix: false };
    let proxy = Peer::Tcp("10.0.0.1".parse().expect("an address"));
    let client = "192.0.2.1".parse().ok();
    for (name, added) in
        [("x-forwarded-for", ", 192.0.2.1"), ("forwarded", ", For=\"192.0.2.1:80\"")]
    {
        let headers = |lines: &[Vec<u8>]| {
            let mut headers = HeaderMap::new();
            for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                headers.append(name, value);
            }
            headers
        };
        let lines = data.split(|byte| *byte == b'\n').take(100).map(<[u8]>::to_vec);
        let mut lines: Vec<Vec<u8>> = lines.collect();
        http::forwarded::client(&trusted, proxy, &headers(&lines));
        lines.retain(|line| HeaderValue::from_bytes(line).is_ok());
        lines.push(lines.last().cloned().unwrap_or_default());
        lines.last_mut().expect("one was added").extend_from_slice(added.as_bytes());
        assert_eq!(http::forwarded::client(&trusted, proxy, &headers(&lines)), client);
    }
}

const ROUTES: &str = r#"
    [source]
    url = "memory:"
    [server]
    hosts = ["x"]
    [cors]
    origins = ["https://app.example"]
    credentials = true
    [[route]]
    path = "/events/{name}"
    key = "events:{name}"
    access = "public"
    [[route]]
    path = "/t/{tenant}/{name}"
    key = "{{{tenant}}}:{name}"
    access = "public"
    replay = "all"
    filter = ["severity", "source"]
    [auth.jwt]
    keys = [{ alg = ["RS256", "ES256"], jwks_url = "http://127.0.0.1:1/" }]
    audience = ["x"]
    from = ["header", "cookie:token", "query:token"]
    [[route]]
    path = "/guarded/{name}"
    key = "guarded:{name}"
    access = "jwt"
    match = { name = "streams" }
    where = { tenant = "org.id" }
"#;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    config::parse(ROUTES, "fuzz.toml", &[], false).expect("it has no faults").config
});

/// Its keys were never fetched.
static GATE: LazyLock<Gate> =
    LazyLock::new(|| Gate::new(&CONFIG.jwt, &CONFIG.cors, Arc::new(Metrics::new(&CONFIG.routes))));

/// A request: method and target in the first line, headers in the others. It gets an answer of the
/// contract, reads no stream key but one of its route, and is not admitted where a token is needed. Rows that no token
/// opened are not there.
pub fn request(data: &[u8]) {
    let Some(request) = parsed(data) else { return };
    match router::decide(&CONFIG, &GATE, &request) {
        Decision::Stream(plan) | Decision::Head(plan) => {
            let is_guarded = CONFIG.routes[plan.route].access != Access::Public;
            assert_eq!(plan.unavailable.is_some(), is_guarded);
            let selection = plan.selection.as_ref();
            assert!(
                !is_guarded
                    || selection.is_some_and(|rows| !rows.admits(&[Some(RowValue::of(b"acme"))]))
            );
            let bounded = |values: &[RowValue]| (1..=16).contains(&values.len());
            let mut wanted = selection.into_iter().flat_map(|selection| selection.wanted());
            assert!(is_guarded || wanted.all(|(_, values)| bounded(values)));
            let value = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let key = plan.key.replace(['{', '}'], "");
            assert!(key.len() <= 2 * 128 + 16, "{key}");
            assert!(key.chars().all(|c| value(c) || c == ':'), "{key}");
            assert!([Method::GET, Method::HEAD].contains(request.method()));
            assert!(!String::from_utf8_lossy(&response::stream_head(&plan)).contains("\n\n"));
        }
        Decision::Publish(plan) => {
            assert!(
                CONFIG.routes[plan.route].publish.is_some() && request.method() == Method::POST
            );
        }
        Decision::Respond(response) => {
            let status = response.status().as_u16();
            let is_known =
                matches!(status, 200 | 204 | 400 | 401 | 403 | 404 | 405 | 406 | 421 | 503);
            assert!(is_known, "{status}");
        }
    }
}

fn parsed(data: &[u8]) -> Option<Request<()>> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(2, |byte| *byte == b' ');
    let mut request = Request::builder()
        .method(words.next()?)
        .uri(words.next()?)
        .version(Version::HTTP_11)
        .body(())
        .ok()?;
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            request.headers_mut().append(name, value);
        }
    }
    Some(request)
}

/// A path template, a key template and a request's path, in a line each.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (Some(path), Some(key), Some(asked)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let (Ok(path), key) = (PathTemplate::parse(path), KeyTemplate::parse(key)) else { return };
    let Some(found) = path.matches(asked) else { return };
    assert_eq!(found.len(), path.variables().count());
    for (_, value) in &found {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!((1..=128).contains(&value.len()) && value.chars().all(allowed), "{value:?}");
        assert!(value != "." && value != "..", "{value:?}");
    }
    if let Ok(key) = key
        && key.variables().all(|name| path.variables().any(|known| known == name))
    {
        let longest = key.as_str().len() + 128 * key.variables().count();
        assert!(key.key(&found).len() <= longest);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    #[test]
    fn each_target_survives_every_input_found_so_far() {
        for (name, target) in TARGETS {
            assert!(folder("fuzz_targets").join(format!("{name}.rs")).exists(), "{name}");
            let corpus = folder("corpus").join(name);
            let files =
                std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{name}: {error}"));
            let inputs: Vec<_> =
                files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
            assert!(!inputs.is_empty(), "{name} has no corpus");
            for input in &inputs {
                target(input);
                // And half of it.
                target(&input[..input.len() / 2]);
            }
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn each_target_survives_any_bytes(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "\\PC{0,200}".prop_map(String::into_bytes),
            ]
        ) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
