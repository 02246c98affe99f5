//! A gateway that goes and comes back: each client that acts as an `EventSource` is there again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::Value;

use super::*;
use crate::support::browser::Browser;
use crate::support::front::event_source;
use crate::support::proxies::HOST;
use crate::support::redis::Redis;
use crate::support::viewer::Writer;
use crate::support::{DEADLINE, within};

pub fn an_event_source_survives_a_restart_and_a_crash(kind: Kind) {
    const SOURCES: usize = 6;
    let runtime = swarm::runtime();
    let redis = Redis::start();
    let mut gateway = restartable(Setup::redis(&redis), None);
    let (_proxy, front) = start(kind, &gateway, &runtime);
    let requests: Vec<_> = (0..SOURCES).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let protocols = protocols(kind).iter().cycle();
    let sources = requests.iter().zip(protocols).map(|(requests, &protocol)| {
        runtime.spawn(event_source(front.clone(), protocol, requests.clone()))
    });
    let sources: Vec<_> = sources.collect();
    let all_are_there = |gateway: &Gateway| {
        within(DEADLINE * 2, "all are there", || {
            // A client that ends now has failed, which is reported below.
            sources.iter().any(|source| source.is_finished()) || clients(gateway) == SOURCES as f64
        });
    };
    all_are_there(&gateway);
    let writer = Writer::start(&redis, 5, Duration::from_millis(50));
    for crash in [false, true] {
        writer.writes(20);
        if crash {
            gateway.kill();
        } else {
            gateway.signal("TERM");
            assert_eq!(gateway.wait().code(), Some(0));
        }
        let asked = || requests.iter().map(|asked| asked.load(Ordering::Relaxed));
        let before: Vec<_> = asked().collect();
        eventually("all have asked while nobody was there", || {
            sources.iter().any(|source| source.is_finished())
                || asked().zip(&before).all(|(now, &before)| now > before)
        });
        writer.writes(20);
        gateway = restartable(Setup::redis(&redis), Some(&gateway));
        all_are_there(&gateway);
    }
    writer.stop();
    for source in sources {
        let requests = runtime.block_on(soon(source)).unwrap().unwrap();
        assert!(requests > 2);
    }
}

pub fn without_a_gateway_an_event_source_is_told_to_come_back(kind: Kind) {
    const PAGE: &str = "https://app.example";
    let runtime = swarm::runtime();
    let mut gateway = setup().start_ready();
    let (_proxy, front) = start(kind, &gateway, &runtime);
    gateway.kill();
    runtime.block_on(async {
        for &protocol in protocols(kind) {
            let mut connection = front.connect(protocol).await.unwrap();
            let asked = connection.ask(Method::GET, "/events/a", &[("origin", PAGE)]);
            let answer = soon(asked).await.unwrap();
            let head = answer.headers();
            assert_eq!(answer.status(), StatusCode::OK, "{head:?}");
            assert_eq!(header(head, "content-type"), Some("text/event-stream"));
            assert_eq!(header(head, "content-encoding"), None);
            assert_eq!(header(head, "cache-control"), Some("no-store"));
            // Without these a page of another origin would give up, with its cookies or without.
            assert_eq!(header(head, "access-control-allow-origin"), Some(PAGE));
            assert_eq!(header(head, "access-control-allow-credentials"), Some("true"));
            let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
            assert_eq!(body, "retry: 5000\n");
        }
    });
}

/// More than the six that it would have over HTTP/1, in a page of another origin.
pub fn a_real_browser_has_its_streams_and_has_them_again(kind: Kind) {
    let streams: usize = if protocols(kind).contains(&Protocol::Http2) { 12 } else { 6 };
    let runtime = swarm::runtime();
    let page = Setup::memory().start_ready();
    let origins = format!("origins = [\"http://{}\"]", page.admin);
    let setup = || Setup::memory().set("cors", &origins).set("cors", "credentials = true");
    let mut gateway = restartable(setup(), None);
    let (proxy, front) = start(kind, &gateway, &runtime);
    drop(front);

    let browser = Browser::start_resolving(HOST, &proxy.address.ip().to_string());
    browser.open(&format!("http://{}/livez", page.admin));
    let url = format!("https://{HOST}:{}/events/a", proxy.address.port());
    let listen = "window.seen = []; window.streams = [];
        for (let stream = 0; stream < COUNT; stream++) {
            const source = new EventSource(URL, { withCredentials: true });
            source.onmessage = event => window.seen.push(event.data);
            window.streams.push(source);
        }";
    let listen = listen.replace("COUNT", &streams.to_string());
    browser.script(&listen.replace("URL", &Value::from(url).to_string()));
    let all_see = |gateway: &Gateway, text: &str| {
        within(DEADLINE * 2, "all streams are open", || clients(gateway) == streams as f64);
        gateway.publish("events:a", text);
        let count = format!("return window.seen.filter(data => data === {text:?}).length");
        eventually("the page sees it", || browser.script(&count) == streams);
    };
    all_see(&gateway, "first");
    gateway.kill();
    // A stream that is connecting may have been told to come back, or wait at the proxy.
    let gone = "return window.streams.every(stream => stream.readyState !== EventSource.OPEN)";
    eventually("the page has noticed", || browser.script(gone) == true);
    let gateway = restartable(setup(), Some(&gateway));
    all_see(&gateway, "second");
}
