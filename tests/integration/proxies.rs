//! Real proxies from Debian's packages, and Envoy, with the configurations of `deploy/`: each passes on at
//! once, names the client, notices when it leaves, and an `EventSource` survives a restart behind it.

use std::os::unix::fs::PermissionsExt as _;

use hyper::{Method, StatusCode};
use ssegate::sse::parse::Item;
use tokio::runtime::Runtime;

use crate::support::address::own_addresses;
use crate::support::front::{Front, Protocol, header, soon};
use crate::support::gateway::{Gateway, Setup};
use crate::support::proxies::{Kind, Proxy, advised, changed};
use crate::support::{Folder, eventually, swarm};

/// A gateway that goes and comes back.
mod restart;
/// What each adds, printed.
mod table;

macro_rules! behind {
    ($($name:ident: $kind:ident),*) => {$(
        mod $name {
            use crate::support::proxies::Kind::$kind;

            #[test]
            fn a_stream_arrives_at_once_and_bare() {
                super::a_stream_arrives_at_once_and_bare($kind);
            }

            #[test]
            fn a_client_that_leaves_is_noticed() {
                super::a_client_that_leaves_is_noticed($kind);
            }

            #[test]
            fn a_client_is_known_by_its_own_address_whatever_it_says() {
                super::a_client_is_known_by_its_own_address_whatever_it_says($kind);
            }

            #[test]
            fn an_event_source_survives_a_restart_and_a_crash() {
                super::restart::an_event_source_survives_a_restart_and_a_crash($kind);
            }

            #[test]
            fn without_a_gateway_an_event_source_is_told_to_come_back() {
                super::restart::without_a_gateway_an_event_source_is_told_to_come_back($kind);
            }

            #[test]
            fn a_real_browser_has_its_streams_and_has_them_again() {
                super::restart::a_real_browser_has_its_streams_and_has_them_again($kind);
            }
        }
    )*};
}

behind!(nginx: Nginx, caddy: Caddy, haproxy: Haproxy, apache: Apache, envoy: Envoy);

/// Apache has no HTTP/2 for streams (`deploy/apache/ssegate.conf` says why).
fn protocols(kind: Kind) -> &'static [Protocol] {
    match kind {
        Kind::Apache => &[Protocol::Http1],
        _ => &[Protocol::Http1, Protocol::Http2],
    }
}

fn setup() -> Setup {
    Setup::memory().set("proxy", "trusted = [\"127.0.0.1\"]")
}

/// At the address of an earlier one, or at one of its own, which stays free while it is away.
fn restartable(setup: Setup, another: Option<&Gateway>) -> Gateway {
    let [public, admin] = match another {
        Some(another) => [another.address.clone(), another.admin.clone()],
        None => own_addresses().map(|address| address.to_string()),
    };
    setup
        .set("server", &format!("listen = [{public:?}]"))
        .set("admin", &format!("listen = {admin:?}"))
        .set("server", "retry = \"200ms\"")
        // Otherwise some would come back during the drain, which is another scenario.
        .set("server", "drain = \"0s\"")
        .start_ready()
}

/// A proxy that has found its gateway ready.
fn start(kind: Kind, gateway: &Gateway, runtime: &Runtime) -> (Proxy, Front) {
    let proxy = Proxy::start(kind, gateway);
    let front = Front::of(&proxy);
    eventually("it has found the gateway", || {
        let head = runtime.block_on(soon(async {
            let mut connection = front.connect(Protocol::Http1).await.ok()?;
            connection.ask(Method::HEAD, "/events/a", &[]).await.ok()
        }));
        head.is_some_and(|head| header(head.headers(), "cache-control").is_some_and(is_gateways))
    });
    (proxy, front)
}

fn is_gateways(cache_control: &str) -> bool {
    cache_control == "no-cache, no-transform"
}

fn clients(gateway: &Gateway) -> f64 {
    gateway.metric("ssegate_clients")
}

/// While nothing else is sent that could push it: no keepalive, no next event.
fn a_stream_arrives_at_once_and_bare(kind: Kind) {
    let runtime = swarm::runtime();
    let setup = setup().set("server", "keepalive = \"1h\"");
    let gateway = setup.set("cors", "origins = [\"https://app.example\"]").start_ready();
    let (_proxy, front) = start(kind, &gateway, &runtime);
    runtime.block_on(async {
        for &protocol in protocols(kind) {
            let first_id = gateway.publish("events:a", "first");
            // Large enough for those that compress nothing small.
            let second = "x".repeat(5_000);
            let second_id = gateway.publish("events:a", &second);
            // Else a reader of the last turn may not have it yet, and it is live news.
            gateway.has_read("events:a", &second_id);
            let mut connection = front.connect(protocol).await.unwrap();
            let headers = [("last-event-id", &*first_id), ("origin", "https://app.example")];
            let mut stream = soon(connection.get("/events/a", &headers)).await.unwrap();
            assert_eq!(stream.header("content-encoding"), None);
            assert_eq!(stream.header("access-control-allow-origin"), Some("https://app.example"));
            assert!(is_gateways(stream.header("cache-control").unwrap()));
            let first = soon(stream.next()).await.unwrap();
            assert_eq!(first, Some(Item::Comment("ssegate".into())), "before any event");
            assert_eq!(soon(stream.event()).await.data, second);
            assert_eq!(soon(stream.told()).await, "live");
            for number in 0..5 {
                gateway.publish("events:a", &number.to_string());
                assert_eq!(soon(stream.event()).await.data, number.to_string());
            }
            let large = "x".repeat(200_000);
            gateway.publish("events:a", &large);
            assert_eq!(soon(stream.event()).await.data, large);
            an_answer_that_is_no_stream_passes_unchanged(&front, protocol).await;
        }
        if protocols(kind).contains(&Protocol::Http2) {
            more_than_six_streams_share_a_connection(&gateway, &front).await;
        } else {
            assert!(front.connect(Protocol::Http2).await.is_err());
        }
    });
}

async fn an_answer_that_is_no_stream_passes_unchanged(front: &Front, protocol: Protocol) {
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let mut connection = front.connect(protocol).await.unwrap();
        soon(connection.ask(method, path, headers)).await.unwrap()
    };
    let head = ask(Method::HEAD, "/events/a", &[]).await;
    assert_eq!(header(head.headers(), "content-type"), Some("text/event-stream; charset=utf-8"));
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "last-event-id"),
    ];
    let preflight = ask(Method::OPTIONS, "/events/a", &asked).await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    let allowed = header(preflight.headers(), "access-control-allow-headers").unwrap();
    assert!(allowed.contains("last-event-id"), "{allowed}");
    // What the gateway refuses stays refused.
    let refused = ask(Method::GET, "/events/a?last=x", &[]).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
}

async fn more_than_six_streams_share_a_connection(gateway: &Gateway, front: &Front) {
    let mut connection = front.connect(Protocol::Http2).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..30 {
        let mut stream = soon(connection.get("/events/many", &[])).await.unwrap();
        assert_eq!(soon(stream.told()).await, "live");
        streams.push(stream);
    }
    gateway.publish("events:many", "to all");
    for stream in &mut streams {
        assert_eq!(soon(stream.event()).await.data, "to all");
    }
}

/// At once, while nothing is sent to it; but by Apache, which looks at its clients only when it writes.
fn a_client_that_leaves_is_noticed(kind: Kind) {
    let runtime = swarm::runtime();
    let keepalive = if kind == Kind::Apache { "1s" } else { "1h" };
    let gateway = setup().set("server", &format!("keepalive = {keepalive:?}")).start_ready();
    let (_proxy, front) = start(kind, &gateway, &runtime);
    let has =
        |count: f64| eventually("a client that left is noticed", || clients(&gateway) == count);
    runtime.block_on(async {
        for &protocol in protocols(kind) {
            let mut connection = front.connect(protocol).await.unwrap();
            let stream = soon(connection.get("/events/a", &[])).await.unwrap();
            has(1.0);
            if protocol == Protocol::Http2 {
                // A page closes one of its streams: its connection stays.
                let second = soon(connection.get("/events/a", &[])).await.unwrap();
                has(2.0);
                drop(second);
                has(1.0);
            }
            drop((stream, connection));
            has(0.0);
        }
    });
}

fn a_client_is_known_by_its_own_address_whatever_it_says(kind: Kind) {
    const FORGED: [(&str, &str); 3] = [
        ("x-forwarded-for", "192.0.2.66"),
        ("forwarded", "for=192.0.2.67"),
        ("x-real-ip", "192.0.2.68"),
    ];
    let runtime = swarm::runtime();
    for over_socket in [false, true] {
        let folder = Folder::new();
        let path = folder.0.join("http.sock");
        let mut setup = setup()
            .set("limits", "clients_per_ip = 1")
            .set("log", "level = \"info,ssegate=debug\"");
        if over_socket {
            setup = setup.set("server", &format!("listen = [\"unix:{}\"]", path.display()));
            setup = setup.set("proxy", "trusted = [\"unix\"]");
        }
        let gateway = setup.start_ready();
        if over_socket {
            // For every user that the proxy may run as.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        let (_proxy, front) = start(kind, &gateway, &runtime);
        let ask = async |ip: &str| {
            let mut connection = front.connect_from(ip, Protocol::Http1).await.unwrap();
            let mut stream = soon(connection.get("/events/a", &FORGED)).await.unwrap();
            (soon(stream.told()).await, stream)
        };
        runtime.block_on(async {
            let first = ask("127.0.0.21").await;
            let again = ask("127.0.0.21").await;
            let other = ask("127.0.0.22").await;
            let answers = [first.0, again.0, other.0];
            assert_eq!(answers, ["live", "clients_per_ip", "live"], "{}", gateway.log());
        });
        for ip in ["127.0.0.21", "127.0.0.22"] {
            let opened = format!("\"address\":\"{ip}\"");
            eventually("it is in the log", || gateway.log().contains(&opened));
        }
        assert!(!gateway.log().contains("192.0.2."), "{}", gateway.log());
    }
}

/// Envoy would end every response after 15 s.
#[test]
fn envoy_ends_no_stream_for_its_age() {
    let runtime = swarm::runtime();
    let gateway = setup().set("server", "keepalive = \"1s\"").start_ready();
    let (_proxy, front) = start(Kind::Envoy, &gateway, &runtime);
    runtime.block_on(async {
        let mut connection = front.connect(Protocol::Http2).await.unwrap();
        let mut stream = soon(connection.get("/events/a", &[])).await.unwrap();
        let mut keepalives = 0;
        while keepalives < 17 {
            let item = soon(stream.next()).await.unwrap().expect("the stream goes on");
            keepalives += usize::from(item == Item::Comment("keepalive".into()));
        }
    });
}

/// It is shipped without having been run; what its head says of traefik.toml as well.
#[test]
fn the_shipped_traefik_configuration_is_whole() {
    let shipped = include_str!("../../deploy/traefik/ssegate.toml");
    for shipped in [shipped, &changed(shipped, &[("#healthCheck", "healthCheck")])] {
        let dynamic: toml::Table = toml::from_str(shipped).unwrap();
        let http = &dynamic["http"];
        let router = &http["routers"]["ssegate"];
        let wanted = router["middlewares"][0].as_str().unwrap();
        assert!(http["middlewares"][wanted]["retry"]["attempts"].is_integer());
        let service = &http["services"][router["service"].as_str().unwrap()]["loadBalancer"];
        assert_eq!(service["servers"][0]["url"].as_str(), Some("http://127.0.0.1:8080"));
        let head: String = advised(shipped).map(|line| format!("{line}\n")).collect();
        let fixed: toml::Table = toml::from_str(&head).unwrap();
        let entry_point = router["entryPoints"][0].as_str().unwrap();
        assert!(fixed["entryPoints"][entry_point]["address"].is_str());
    }
}
