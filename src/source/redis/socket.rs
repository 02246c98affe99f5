//! The socket below a link: TCP, TLS over it, or a unix socket; and what its failures mean.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::{Address, Tls};
use crate::source::{Class, Error};

/// A server that speaks no TLS waits for the end of a line that never comes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes both ways.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// Connects, and shakes hands where `tls` is spoken.
pub(super) async fn dial(address: &Address, tls: Option<&Tls>) -> Result<Box<dyn Socket>, Error> {
    connect(address, tls).await.map_err(|error| {
        let error = lost(&error);
        Error { message: format!("{address}: {}", error.message), ..error }
    })
}

async fn connect(address: &Address, tls: Option<&Tls>) -> io::Result<Box<dyn Socket>> {
    let (host, port) = match address {
        Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(host, port) => (host, *port),
    };
    let socket = TcpStream::connect((host.as_str(), port)).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let handshake = TlsConnector::from(tls.0.clone()).connect(name, socket);
    let Ok(outcome) = timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no TLS in time; does this port speak it?",
        ));
    };
    Ok(Box::new(outcome?))
}

/// What the failure of a socket means: where TLS says why, nothing but the operator helps.
pub(super) fn lost(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(why) = inner {
        let message = format!(
            "no TLS with this server: {why} (source.ca_file says whom to trust, source.client_certificate who we are)"
        );
        return Error { class: Class::Login, code: "TLS", message };
    }
    let message = format!("the connection was lost or cannot be had: {error}");
    Error { class: Class::Away, code: "IO", message }
}
