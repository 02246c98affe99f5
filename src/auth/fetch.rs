//! One `GET` of a set of keys. It follows no redirection: where keys are only the configuration says.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Position, Url};

use crate::config::Tls;

/// For all of it.
const TIME_OUT: Duration = Duration::from_secs(10);
/// Many times any set of keys.
const MAX_BYTES: usize = 256 << 10;

/// What is at `url`, an `https:` one if there is `tls`; else in one line why not.
pub(super) async fn get(url: &Url, tls: Option<&Tls>) -> Result<Vec<u8>, String> {
    let asked = tokio::time::timeout(TIME_OUT, connect_and_ask(url, tls)).await;
    asked.unwrap_or_else(|_| Err(format!("no answer within {TIME_OUT:?}")))
}

async fn connect_and_ask(url: &Url, tls: Option<&Tls>) -> Result<Vec<u8>, String> {
    let host = match url.host().ok_or("the address has no host")? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    let port = url.port_or_known_default().ok_or("the address has no port")?;
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let Some(Tls(config)) = tls else { return ask(url, stream).await };
    let name = ServerName::try_from(host).map_err(|error| format!("no name for TLS: {error}"))?;
    let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
    ask(url, stream.map_err(|error| format!("no TLS: {error}"))?).await
}

async fn ask<S>(url: &Url, stream: S) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let no_answer = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("ssegate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("the address cannot be asked for: {error}"))?;
    let response = sender.send_request(request).await.map_err(no_answer)?;
    if response.status() != StatusCode::OK {
        return Err(format!("answered {}, not 200", response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    body.map(|body| body.to_bytes().to_vec()).map_err(|error| format!("no whole answer: {error}"))
}
