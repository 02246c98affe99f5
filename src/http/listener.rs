//! Listening sockets, TCP and unix, bound or handed over, and the loop that accepts connections from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::inherited::{InheritError, Inherited, InheritedSocket};
use super::peer::Peer;
use crate::config::Listen;
use crate::limits::{Pending, PendingSlot};

/// Connections that the kernel queues for us while we are busy.
const BACKLOG: u32 = 4096;
/// The wait after a failure to accept that does not pass at once, such as having no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A bound listening socket.
pub struct Listener {
    socket: ListeningSocket,
    holder: Holder,
    /// Whether each connection has to begin with a PROXY header.
    pub behind_proxy: bool,
}

enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who holds a listening socket; it lives as long as its last holder.
enum Holder {
    /// This process alone, with the file of a unix socket.
    Us { _file: Option<UnlinkOnDrop> },
    /// We, and the service manager, which keeps it under this name for the next gateway.
    UsAndManager { name: String },
    /// The service manager, and perhaps the gateway before or after this one.
    Others,
}

/// A socket file that is removed with its listener.
struct UnlinkOnDrop(Option<PathBuf>);

impl Drop for UnlinkOnDrop {
    fn drop(&mut self) {
        // It fails if the file is gone already; then nothing is left to do.
        let _ = self.0.as_ref().map(std::fs::remove_file);
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Address {
        /// As in the configuration.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A socket was to be handed over, and cannot be taken.
    #[error(transparent)]
    Inherited(#[from] InheritError),
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

/// Serves accepted connections.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Serves one connection, in a task of its own, which holds `slot` while the connection is pending.
    fn serve<C: Connection>(
        self,
        connection: C,
        peer: Peer,
        slot: PendingSlot,
    ) -> impl Future<Output = ()> + Send;
}

impl Listener {
    /// Binds and listens, or takes the sockets that were handed over.
    pub fn bind(listen: &Listen, inherited: &mut Inherited) -> Result<Vec<Self>, ListenError> {
        let kept = inherited.kept_name(listen).and_then(|name| inherited.kept(&name));
        if let Some(socket) = kept {
            return Ok(vec![
                Self::inherit(vec![socket], listen)?.remove(0).kept(listen, inherited),
            ]);
        }
        let bound = match listen {
            Listen::Tcp(address) => bind_tcp(*address),
            Listen::Unix(path) => bind_unix(path),
            Listen::Systemd(name) => return Self::inherit(inherited.sockets(name)?, listen),
        };
        let bound = bound.map_err(|error| may_be_handed_over(error, inherited));
        Ok(vec![bound.map_err(failed(listen))?.kept(listen, inherited)])
    }

    /// From now on the service manager keeps it as well, where it keeps any.
    fn kept(mut self, listen: &Listen, inherited: &Inherited) -> Self {
        if let Some(name) = inherited.kept_name(listen) {
            if let Holder::Us { _file: Some(file) } = &mut self.holder {
                file.0 = None;
            }
            self.holder = Holder::UsAndManager { name };
        }
        self
    }

    /// The socket and its name, if the service manager is to keep it.
    pub fn to_keep(&self) -> Option<(&str, BorrowedFd<'_>)> {
        let Holder::UsAndManager { name } = &self.holder else { return None };
        let socket = match &self.socket {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix(socket) => socket.as_fd(),
        };
        Some((name, socket))
    }

    fn new(socket: ListeningSocket, holder: Holder) -> Self {
        Self { socket, holder, behind_proxy: false }
    }

    fn inherit(sockets: Vec<InheritedSocket>, listen: &Listen) -> Result<Vec<Self>, ListenError> {
        let mut listeners = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let socket = match socket {
                InheritedSocket::Tcp(socket) => {
                    TcpListener::from_std(socket).map(ListeningSocket::Tcp)
                }
                InheritedSocket::Unix(socket) => {
                    UnixListener::from_std(socket).map(ListeningSocket::Unix)
                }
            };
            let socket = socket.map_err(failed(listen))?;
            listeners.push(Self::new(socket, Holder::Others));
        }
        Ok(listeners)
    }

    /// Where it listens, for the log: port 0 has become a real one.
    pub fn address(&self) -> String {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                socket.local_addr().map_or("?".into(), |addr| addr.to_string())
            }
            ListeningSocket::Unix(socket) => {
                let address = socket.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or("unix:?".into(), |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// Whether it was handed over: then it goes on without us.
    pub fn is_inherited(&self) -> bool {
        matches!(self.holder, Holder::Others)
    }

    /// Whether other machines can connect.
    pub fn is_reachable(&self) -> bool {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                socket.local_addr().map_or(true, |addr| !addr.ip().to_canonical().is_loopback())
            }
            ListeningSocket::Unix(_) => false,
        }
    }

    /// Accepts connections until `ends`. Each gets a slot among the `pending` ones, and is served by a task of
    /// its own, which `tasks` tracks. No connection that was accepted is dropped, unless its client is gone.
    pub async fn accept(
        self,
        serve: impl Serve,
        send_buffer_bytes: impl Fn() -> Option<usize> + Send,
        pending: Arc<Pending>,
        tasks: TaskTracker,
        ends: CancellationToken,
    ) {
        // Dropped at the end: it unlinks the socket's file.
        let Self { socket, holder: _holder, .. } = self;
        let accepting = AcceptLoop { serve, send_buffer_bytes, pending, tasks, ends };
        match socket {
            ListeningSocket::Tcp(socket) => accepting.run(TcpListenerStream::new(socket)).await,
            ListeningSocket::Unix(socket) => accepting.run(UnixListenerStream::new(socket)).await,
        }
    }
}

/// The accept loop, for either kind of socket.
struct AcceptLoop<S, B> {
    serve: S,
    send_buffer_bytes: B,
    pending: Arc<Pending>,
    tasks: TaskTracker,
    ends: CancellationToken,
}

impl<S: Serve, B: Fn() -> Option<usize>> AcceptLoop<S, B> {
    async fn run<C: Accepted>(self, mut connections: impl Stream<Item = io::Result<C>> + Unpin) {
        while let Some(Some(next)) = self.ends.run_until_cancelled(connections.next()).await {
            let accepted = next.and_then(|connection| Ok((connection.peer()?, connection)));
            match accepted {
                Ok((peer, connection)) => {
                    connection.prepare((self.send_buffer_bytes)());
                    let slot = self.pending.slot(peer.address()).await;
                    self.tasks.spawn(self.serve.clone().serve(connection, peer, slot));
                }
                Err(error) => pause(&error).await,
            }
        }
    }
}

/// A connection as a listener accepts it.
trait Accepted: Connection {
    fn peer(&self) -> io::Result<Peer>;
    fn prepare(&self, send_buffer_bytes: Option<usize>);
}

impl Accepted for TcpStream {
    /// `TcpListenerStream` drops the address that `accept` returns. Asking the socket for it is one more
    /// system call, and fails if the client is gone already.
    fn peer(&self) -> io::Result<Peer> {
        self.peer_addr().map(|address| Peer::at(address.ip()))
    }

    fn prepare(&self, send_buffer_bytes: Option<usize>) {
        // It fails if the client is gone already; its server will notice.
        let _ = self.set_nodelay(true);
        limit_send_buffer(&SockRef::from(self), send_buffer_bytes);
    }
}

impl Accepted for UnixStream {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Unix)
    }

    fn prepare(&self, send_buffer_bytes: Option<usize>) {
        limit_send_buffer(&SockRef::from(self), send_buffer_bytes);
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let socket = ListeningSocket::Tcp(socket.listen(BACKLOG)?);
    Ok(Listener::new(socket, Holder::Us { _file: None }))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path)?;
    let socket = ListeningSocket::Unix(UnixListener::bind(path)?);
    let file = UnlinkOnDrop(Some(path.to_owned()));
    Ok(Listener::new(socket, Holder::Us { _file: Some(file) }))
}

/// The operator may have enabled a .socket unit without naming it in the configuration: then the socket that
/// was handed over occupies the address.
fn may_be_handed_over(error: io::Error, inherited: &Inherited) -> io::Error {
    match inherited.unused().next() {
        Some(name) if error.kind() == io::ErrorKind::AddrInUse => {
            let hint = format!("{error}; a socket was handed over: write \"systemd:{name}\"");
            io::Error::new(io::ErrorKind::AddrInUse, hint)
        }
        _ => error,
    }
}

fn failed(listen: &Listen) -> impl Fn(io::Error) -> ListenError {
    let address = listen.to_string();
    move |error| ListenError::Address { address: address.clone(), error }
}

fn limit_send_buffer(socket: &SockRef<'_>, send_buffer_bytes: Option<usize>) {
    if let Some(bytes) = send_buffer_bytes {
        // As above. (The kernel doubles the number, for its own bookkeeping.)
        let _ = socket.set_send_buffer_size(bytes);
    }
}

/// A connection that failed before it was accepted concerns nobody else; after any other failure we wait
/// instead of spinning.
async fn pause(error: &io::Error) {
    use io::ErrorKind as Kind;
    let is_of_client = matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::NotConnected
    );
    if is_of_client || error.kind() == Kind::Interrupted {
        return;
    }
    warn!(%error, "cannot accept connections; trying again in {ACCEPT_PAUSE:?} (out of descriptors? raise LimitNOFILE=)");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Removes a socket file that no process listens on; one that is in use stays, and binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let in_use = std::os::unix::net::UnixStream::connect(path).is_ok();
    if found.file_type().is_socket() && !in_use {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
