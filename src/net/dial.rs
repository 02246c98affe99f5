//! Outgoing connections, for Redis, key sets and `ssegate tail` alike: TCP to the first of a host's
//! addresses that answers, TLS over it if wanted, or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::config::{Address, Tls};

/// Each address of a host is tried alone for this long, then the next one as well. Where packets to it are
/// dropped, no error would come before the caller gives up.
const HEAD_START: Duration = Duration::from_millis(400);
/// A peer that vanished sends no end of the connection: the kernel starts to probe it after this silence,
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// and again at this interval.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection of any kind.
pub trait DialedSocket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> DialedSocket for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host has no address, or none of them accepts.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The host cannot stand in a certificate.
    #[error("no name for TLS: {0}")]
    ServerName(InvalidDnsNameError),
    /// The handshake failed, or took too long.
    #[error("no TLS: {0}")]
    Tls(io::Error),
}

impl DialError {
    /// The cause, for a caller with words of its own.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Connect(error) | Self::Tls(error) => error,
            Self::ServerName(error) => io::Error::other(error),
        }
    }
}

/// Where a URL leads; `None`: it names no host, or no port.
pub fn address_of(url: &Url) -> Option<Address> {
    let host = match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    Some(Address::Tcp(host, url.port_or_known_default()?))
}

/// Connects. With `tls`, the handshake has to end within `handshake_timeout`; a Unix socket needs none.
pub async fn dial(
    address: &Address,
    tls: Option<&Tls>,
    handshake_timeout: Duration,
) -> Result<Box<dyn DialedSocket>, DialError> {
    let (host, port) = match address {
        Address::Unix(path) => {
            return Ok(Box::new(UnixStream::connect(path).await.map_err(DialError::Connect)?));
        }
        Address::Tcp(host, port) => (host, *port),
    };
    let socket = connect(host, port).await.map_err(DialError::Connect)?;
    let Some(tls) = tls else { return Ok(Box::new(socket)) };
    let name = ServerName::try_from(host.clone()).map_err(DialError::ServerName)?;
    let handshake = TlsConnector::from(tls.0.clone()).connect(name, socket);
    match timeout(handshake_timeout, handshake).await {
        Ok(outcome) => Ok(Box::new(outcome.map_err(DialError::Tls)?)),
        // A server that speaks no TLS waits for the end of a line that never comes.
        Err(_) => Err(DialError::Tls(io::Error::new(
            io::ErrorKind::TimedOut,
            "no TLS in time; does this port speak it?",
        ))),
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let socket = connect_to_any(lookup_host((host, port)).await?).await?;
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(socket)
}

/// Connects to the first of these addresses that answers.
async fn connect_to_any(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        let next = addresses.next();
        let head_start = if next.is_some() { HEAD_START } else { Duration::MAX };
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        let Ok(outcome) = timeout(head_start, attempts.join_next()).await else { continue };
        match outcome.map(|joined| joined.unwrap_or_else(|error| Err(io::Error::other(error)))) {
            Some(Ok(socket)) => return Ok(socket),
            Some(Err(error)) => failure = error,
            None => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// An address that drops packets: its accept queue is full for as long as these sockets live.
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

    #[test]
    fn the_host_of_a_url_is_an_address_without_brackets() {
        let address = |url: &str| address_of(&Url::parse(url).unwrap());
        assert_eq!(address("https://[::1]/keys"), Some(Address::Tcp("::1".into(), 443)));
        assert_eq!(address("http://name:8080/"), Some(Address::Tcp("name".into(), 8080)));
        assert_eq!(address("data:x"), None);
    }
}
