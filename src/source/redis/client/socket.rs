//! The socket below a link: TCP, TLS over it, or a unix socket; and what its failures mean.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::{Address, Tls};
use crate::source::{Error, ErrorClass};

/// A server that speaks no TLS waits for the end of a line that never comes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// An address of several is tried alone for this long, then the next one as well: where packets to it
/// are dropped, nothing else would tell before whoever asks has given up.
const HEAD_START: Duration = Duration::from_millis(400);

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
    let socket = connect_to_any(lookup_host((host.as_str(), port)).await?).await?;
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

/// To the first of a host's addresses that answers.
async fn connect_to_any(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut trying = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        let next = addresses.next();
        let alone = if next.is_some() { HEAD_START } else { Duration::MAX };
        if let Some(address) = next {
            trying.spawn(TcpStream::connect(address));
        }
        let Ok(outcome) = timeout(alone, trying.join_next()).await else { continue };
        match outcome.map(|joined| joined.unwrap_or_else(|error| Err(io::Error::other(error)))) {
            Some(Ok(socket)) => return Ok(socket),
            Some(Err(error)) => failure = error,
            None => return Err(failure),
        }
    }
}

/// What the failure of a socket means: where TLS says why, nothing but the operator helps.
pub(super) fn lost(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(why) = inner {
        let message = format!(
            "no TLS with this server: {why} (source.ca_file says whom to trust, source.client_certificate who we are)"
        );
        return Error { class: ErrorClass::Login, code: "TLS", message };
    }
    let message = format!("the connection was lost or cannot be had: {error}");
    Error { class: ErrorClass::Away, code: "IO", message }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// An address whose packets are dropped, for its queue is full, as long as the sockets live.
    fn silent() -> (SocketAddr, Socket, Vec<TcpStream>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        let queued: Vec<_> = std::iter::from_fn(|| connect().ok()).take(100).collect();
        assert!(queued.len() < 100, "the queue is never full");
        (address, socket, queued)
    }

    #[tokio::test]
    async fn the_next_address_is_tried_where_the_first_is_silent_or_refuses() {
        let (silent, _socket, _queued) = silent();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = good.local_addr().map(|address| (address, good)).unwrap();
        let refusing = {
            let closed = TcpListener::bind("127.0.0.1:0").unwrap();
            closed.local_addr().unwrap()
        };
        for addresses in [vec![good.0], vec![silent, good.0], vec![refusing, silent, good.0]] {
            let connecting = connect_to_any(addresses.clone().into_iter());
            let socket = timeout(Duration::from_secs(2), connecting).await;
            let socket = socket.unwrap_or_else(|_| panic!("not in time: {addresses:?}")).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), good.0);
        }
        let refused = connect_to_any([refusing].into_iter()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_to_any(std::iter::empty()).await.is_err());
    }
}
