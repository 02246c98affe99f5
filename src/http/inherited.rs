//! Listening sockets that the service manager hands over by name: `sd_listen_fds(3)`.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// The name of a socket without one.
const UNNAMED: &str = "unknown";

/// The sockets that were handed over; a listener takes them by name.
pub struct Inherited {
    sockets: ListenFd,
    /// In the order of the sockets; `None`: a listener has taken it.
    names: Vec<Option<String>>,
}

/// A listening stream socket.
#[derive(Debug)]
pub enum InheritedSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket; its file belongs to the service manager.
    Unix(UnixListener),
}

/// Why a socket cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// No socket of this name was handed over.
    #[error(
        "systemd:{name}: no socket of that name was handed over (handed over: {passed}); name it by FileDescriptorName={name} in a .socket unit of this service, and start that"
    )]
    Absent {
        /// As in the configuration.
        name: String,
        /// The names of those that were.
        passed: String,
    },
    /// It is no listening stream socket.
    #[error(
        "systemd:{name}: what was handed over is no listening TCP or unix stream socket ({error}); write ListenStream= in its .socket unit, without Accept=yes"
    )]
    Unusable {
        /// As in the configuration.
        name: String,
        /// Why.
        error: io::Error,
    },
}

impl Inherited {
    /// Takes them from the environment (`LISTEN_FDS`, `LISTEN_FDNAMES`), once and before other threads are
    /// started; none if they are meant for another process (`LISTEN_PID`).
    pub fn take() -> Self {
        // Read first: `from_env` removes the variables.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self::named(ListenFd::from_env(), &names)
    }

    /// No sockets.
    pub fn none() -> Self {
        Self::named(ListenFd::empty(), "")
    }

    fn named(sockets: ListenFd, names: &str) -> Self {
        let mut names = names.split(':');
        let mut next = || {
            let name = names.next().filter(|name| !name.is_empty());
            Some(name.unwrap_or(UNNAMED).to_owned())
        };
        let names = (0..sockets.len()).map(|_| next()).collect();
        Self { sockets, names }
    }

    /// Takes every socket of this name: at least one.
    pub fn sockets(&mut self, name: &str) -> Result<Vec<InheritedSocket>, InheritError> {
        let is_named = |&at: &usize| self.names[at].as_deref() == Some(name);
        let wanted: Vec<_> = (0..self.names.len()).filter(is_named).collect();
        if wanted.is_empty() {
            let passed = self.unused().collect::<Vec<_>>().join(", ");
            let passed = if passed.is_empty() { "nothing".into() } else { passed };
            return Err(InheritError::Absent { name: name.to_owned(), passed });
        }
        let mut found = Vec::with_capacity(wanted.len());
        for at in wanted {
            let socket = self.socket(at);
            found.push(
                socket.map_err(|error| InheritError::Unusable { name: name.to_owned(), error })?,
            );
            self.names[at] = None;
        }
        Ok(found)
    }

    /// Names of the sockets that no listener has taken.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().map(String::as_str)
    }

    fn socket(&mut self, at: usize) -> io::Result<InheritedSocket> {
        let taken = || io::Error::other("taken before");
        if let Ok(socket) = self.sockets.take_unix_listener(at) {
            let socket = socket.ok_or_else(taken)?;
            check_listens(&SockRef::from(&socket))?;
            socket.set_nonblocking(true)?;
            return Ok(InheritedSocket::Unix(socket));
        }
        let socket = self.sockets.take_tcp_listener(at)?.ok_or_else(taken)?;
        check_listens(&SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        Ok(InheritedSocket::Tcp(socket))
    }
}

fn check_listens(socket: &SockRef<'_>) -> io::Result<()> {
    if socket.is_listener()? { Ok(()) } else { Err(io::Error::other("it does not listen")) }
}
