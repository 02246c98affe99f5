//! Listening sockets, TCP and unix alike, and the loop that accepts from them.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tracing::warn;

use crate::config::Listen;

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;
/// After a failure to accept that will not pass at once, such as having no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A bound listening socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix stream socket, and its path, removed on drop.
    Unix(UnixListener, UnlinkOnDrop),
}

/// A socket file that goes with its listener.
pub struct UnlinkOnDrop(PathBuf);

impl Drop for UnlinkOnDrop {
    fn drop(&mut self) {
        // Somebody else may have removed it; there is nothing left to do then.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection that can leave the runtime's reactor.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The bare socket, still non-blocking.
    fn detach(self) -> io::Result<OwnedFd>;
}

impl Connection for TcpStream {
    fn detach(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

impl Connection for UnixStream {
    fn detach(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }
}

/// Whoever serves accepted connections.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Serves one connection, in a task of its own.
    fn serve<C: Connection>(
        self,
        connection: C,
        peer: Option<IpAddr>,
    ) -> impl Future<Output = ()> + Send;
}

impl Listener {
    /// Binds and listens.
    pub fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let socket =
                    if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Ok(Self::Tcp(socket.listen(BACKLOG)?))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, UnlinkOnDrop(path.clone())))
            }
        }
    }

    /// Where it really listens, for the log: port 0 has become one.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or("?".into(), |address| address.to_string())
            }
            Self::Unix(_, path) => format!("unix:{}", path.0.display()),
        }
    }

    /// Accepts for ever; each connection is served by a task of its own.
    pub async fn accept(self, serve: impl Serve, send_buffer_bytes: Option<usize>) {
        match self {
            Self::Tcp(listener) => loop {
                match listener.accept().await {
                    Ok((connection, peer)) => {
                        prepare_tcp(&connection, send_buffer_bytes);
                        tokio::spawn(serve.clone().serve(connection, Some(peer.ip())));
                    }
                    Err(error) => pause(&error).await,
                }
            },
            Self::Unix(listener, _path) => loop {
                match listener.accept().await {
                    Ok((connection, _)) => {
                        limit_send_buffer(&SockRef::from(&connection), send_buffer_bytes);
                        tokio::spawn(serve.clone().serve(connection, None));
                    }
                    Err(error) => pause(&error).await,
                }
            },
        }
    }
}

fn prepare_tcp(connection: &TcpStream, send_buffer_bytes: Option<usize>) {
    // Failing here means that the client is gone already; reading will tell.
    let _ = connection.set_nodelay(true);
    limit_send_buffer(&SockRef::from(connection), send_buffer_bytes);
}

fn limit_send_buffer(socket: &SockRef<'_>, send_buffer_bytes: Option<usize>) {
    if let Some(bytes) = send_buffer_bytes {
        // As above. (The kernel doubles what it is told, for its own bookkeeping.)
        let _ = socket.set_send_buffer_size(bytes);
    }
}

/// One connection's failure is its own; any other is waited out rather than spun on.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
    {
        return;
    }
    warn!(%error, "cannot accept connections; trying again in {ACCEPT_PAUSE:?} (out of descriptors? raise LimitNOFILE=)");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Removes a socket file that nobody listens on any more; one that is in use stays, and binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let in_use = std::os::unix::net::UnixStream::connect(path).is_ok();
    if found.file_type().is_socket() && !in_use {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
