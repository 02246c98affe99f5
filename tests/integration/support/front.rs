//! A client of a proxy's front: HTTP/1.1 or HTTP/2 over TLS, and what a browser's `EventSource` makes of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use ssegate::sse::parse::{Event, Item, Parser};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::DEADLINE;
use super::proxies::{HOST, Proxy};
use super::viewer::Viewer;
use super::waiting::pause_of_the_scenario_in_a_task;

/// As a browser's, if the server has said nothing.
const RECONNECTION_TIME: Duration = Duration::from_secs(3);

/// What a browser sends along: it takes compressed answers.
const USUAL: [(&str, &str); 2] =
    [("accept", "text/event-stream"), ("accept-encoding", "gzip, deflate, br, zstd")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Where to connect, and which authority to trust there.
#[derive(Clone)]
pub struct Front {
    address: SocketAddr,
    roots: Arc<RootCertStore>,
}

/// One connection. It is closed once it and its streams are dropped.
pub enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// One stream; to drop it is to leave.
pub struct Stream {
    pub headers: HeaderMap,
    body: Incoming,
    parser: Parser,
    items: VecDeque<Item>,
}

impl Front {
    pub fn of(proxy: &Proxy) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(proxy.authority.file()).unwrap()).unwrap();
        Self { address: proxy.address, roots: Arc::new(roots) }
    }

    pub async fn connect(&self, protocol: Protocol) -> Result<Connection, String> {
        self.connect_from("127.0.0.1", protocol).await
    }

    /// From another address of this machine.
    pub async fn connect_from(&self, ip: &str, protocol: Protocol) -> Result<Connection, String> {
        let socket = TcpSocket::new_v4().map_err(said)?;
        socket.bind(SocketAddr::new(ip.parse().unwrap(), 0)).map_err(said)?;
        let socket = socket.connect(self.address).await.map_err(said)?;
        socket.set_nodelay(true).map_err(said)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let name: &[u8] = if protocol == Protocol::Http1 { b"http/1.1" } else { b"h2" };
        config.alpn_protocols = vec![name.to_vec()];
        let host = ServerName::try_from(HOST).unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(host, socket).await.map_err(said)?;
        let agreed = tls.get_ref().1.alpn_protocol() == Some(name);
        let io = TokioIo::new(tls);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(said)?;
                tokio::spawn(connection);
                Ok(Connection::Http1(sender))
            }
            Protocol::Http2 if !agreed => Err("it speaks no HTTP/2".into()),
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, io).await.map_err(said)?;
                tokio::spawn(connection);
                Ok(Connection::Http2(sender))
            }
        }
    }
}

impl Connection {
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, String> {
        let version =
            if matches!(self, Self::Http1(_)) { Version::HTTP_11 } else { Version::HTTP_2 };
        // HTTP/2 has no path without them; HTTP/1.1 has no authority in it.
        let uri = match self {
            Self::Http1(_) => path.to_owned(),
            Self::Http2(_) => format!("https://{HOST}{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri).version(version);
        if matches!(self, Self::Http1(_)) {
            request = request.header("host", HOST);
        }
        for (name, value) in USUAL.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        let answer = match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => {
                sender.ready().await.map_err(said)?;
                sender.send_request(request).await
            }
        };
        answer.map_err(said)
    }

    /// Opens a stream, which an `EventSource` would take: whatever else comes is an `Err`.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Stream, Refusal> {
        let answer = self.ask(Method::GET, path, headers).await.map_err(Refusal::Network)?;
        let (head, body) = answer.into_parts();
        let content_type = head.headers.get("content-type");
        let is_stream = |it: &HeaderValue| it.as_bytes().starts_with(b"text/event-stream");
        if head.status != StatusCode::OK || !content_type.is_some_and(is_stream) {
            return Err(Refusal::ForGood(format!("{head:?}")));
        }
        let (parser, items) = (Parser::new(), VecDeque::new());
        Ok(Stream { headers: head.headers, body, parser, items })
    }
}

/// Why there is no stream.
#[derive(Debug)]
pub enum Refusal {
    /// An `EventSource` comes back.
    Network(String),
    /// It gives up.
    ForGood(String),
}

impl Stream {
    /// The next event or comment; `None` at the end, `Err` where the connection broke.
    pub async fn next(&mut self) -> Result<Option<Item>, String> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.map_err(said)?.into_data() {
                let mut items = Vec::new();
                self.parser.feed(&data, &mut items).map_err(|error| error.to_string())?;
                self.items.extend(items);
            }
        }
    }

    /// The next event; an end is a failure.
    pub async fn event(&mut self) -> Event {
        loop {
            match self.next().await {
                Ok(Some(Item::Event(event))) => return event,
                Ok(Some(Item::Comment(_))) => {}
                end => panic!("the stream ended: {end:?}"),
            }
        }
    }

    /// What the next control event says: its type, or why a client is refused.
    pub async fn told(&mut self) -> String {
        let event = self.event().await;
        assert_eq!(event.event_type, "ssegate", "{event:?}");
        let control: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        control["reason"].as_str().or(control["type"].as_str()).unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let name: HeaderName = name.parse().unwrap();
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// Nothing waits longer.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        let outcome = tokio::time::timeout(DEADLINE, future).await;
        outcome.unwrap_or_else(|_| panic!("not in time: {place}"))
    }
}

/// Reads `/events/a` as an `EventSource` does, until a writer's end; how many requests it took.
pub async fn event_source(
    front: Front,
    protocol: Protocol,
    requests: Arc<AtomicUsize>,
) -> Result<usize, String> {
    const MOST: usize = 200;
    let (mut viewer, mut last_id) = (Viewer::default(), String::new());
    let (mut reconnection_time, mut last_failure) = (RECONNECTION_TIME, String::new());
    while requests.fetch_add(1, Ordering::Relaxed) < MOST {
        let resume = [("last-event-id", last_id.as_str())];
        let headers = if last_id.is_empty() { &resume[..0] } else { &resume };
        let opened = match front.connect(protocol).await {
            Ok(mut connection) => connection.get("/events/a", headers).await,
            Err(why) => Err(Refusal::Network(why)),
        };
        match opened {
            Err(Refusal::ForGood(why)) => return Err(format!("it gave up: {why}")),
            Err(Refusal::Network(why)) => last_failure = why,
            Ok(mut stream) => {
                // However it ends, it comes back.
                while let Ok(Some(item)) = stream.next().await {
                    let Item::Event(event) = item else { continue };
                    viewer.see(&event, false)?;
                    if !event.last_event_id.is_empty() {
                        last_id = event.last_event_id;
                    }
                    if viewer.ended {
                        return Ok(requests.load(Ordering::Relaxed));
                    }
                }
                reconnection_time = stream.parser.reconnection_time().unwrap_or(reconnection_time);
            }
        }
        pause_of_the_scenario_in_a_task(reconnection_time, "as the server told it").await;
    }
    Err(format!("too many requests; the last failure: {last_failure}"))
}

fn said(error: impl std::error::Error) -> String {
    error.to_string()
}
