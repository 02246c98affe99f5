//! One `GET` of a key set. It follows no redirection: only the configuration says where keys are.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;
use url::{Position, Url};

use crate::config::Tls;
use crate::net::dial::{DialedSocket, address_of, dial};

/// From connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Many times the size of any key set.
const MAX_BYTES: usize = 256 << 10;

/// The key set at `url`, which is `https:` where there is `tls`; or one line that says why there is none.
pub(super) async fn get(url: &Url, tls: Option<&Tls>) -> Result<Vec<u8>, String> {
    let fetched = tokio::time::timeout(TIMEOUT, fetch(url, tls)).await;
    fetched.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}

async fn fetch(url: &Url, tls: Option<&Tls>) -> Result<Vec<u8>, String> {
    let address = address_of(url).ok_or("the address has no host or port")?;
    let socket = dial(&address, tls, TIMEOUT).await.map_err(|error| error.to_string())?;
    request(url, socket).await
}

async fn request(url: &Url, socket: Box<dyn DialedSocket>) -> Result<Vec<u8>, String> {
    let no_answer = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(no_answer)?;
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
