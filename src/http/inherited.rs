//! Listening sockets that the service manager hands over by name: those of a `.socket` unit, and those that
//! it kept for us since the gateway before this one (`sd_listen_fds(3)`).

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::config::Listen;

/// The name of a socket without one.
const UNNAMED: &str = "unknown";
/// How the name of a socket begins that a gateway has bound and the service manager keeps.
const KEPT: &str = "ssegate-kept-";

/// The sockets that were handed over; a listener takes them by name.
pub struct Inherited {
    sockets: ListenFd,
    /// In the order of the sockets; `None`: a listener has taken it.
    names: Vec<Option<String>>,
    keeping: Keeping,
}

/// Which listening sockets the service manager keeps for the next gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// There is no manager, or it keeps none.
    Nothing,
    /// Perhaps: systemd before 254 does not say. One that it does not keep ends with us, as it always did.
    PerhapsTcp,
    /// For certain, so those too whose file we must not remove then.
    All,
}

impl Keeping {
    fn of(manager: Option<&str>, room: Option<&str>) -> Self {
        match (manager.filter(|name| !name.is_empty()), room) {
            (None, _) | (_, Some("0")) => Self::Nothing,
            (_, None) => Self::PerhapsTcp,
            _ => Self::All,
        }
    }
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
        let variable = |name| std::env::var(name).ok();
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let keeping =
            Keeping::of(variable("NOTIFY_SOCKET").as_deref(), variable("FDSTORE").as_deref());
        Self { keeping, ..Self::named(ListenFd::from_env(), &names) }
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
        Self { sockets, names, keeping: Keeping::Nothing }
    }

    /// The name under which the service manager keeps the socket of this address; for a unix socket it is that of
    /// the file that is there now. `None`: it keeps none.
    pub fn kept_name(&self, listen: &Listen) -> Option<String> {
        let place = match listen {
            Listen::Tcp(address) if address.port() > 0 && self.keeping != Keeping::Nothing => {
                // No colon may be in a name.
                address.to_string().replace(':', "_")
            }
            Listen::Unix(path) if self.keeping == Keeping::All => {
                let file = std::fs::symlink_metadata(path).ok()?;
                format!("unix-{}-{}", file.dev(), file.ino())
            }
            _ => return None,
        };
        Some(format!("{KEPT}{place}"))
    }

    /// The socket of this name that was kept for us.
    pub fn kept(&mut self, name: &str) -> Option<InheritedSocket> {
        self.sockets(name).ok()?.pop()
    }

    /// Closes the kept sockets that none of these addresses is for; their names.
    pub fn close_unwanted(&mut self, listens: &[&Listen]) -> Vec<String> {
        let wanted: Vec<_> = listens.iter().filter_map(|listen| self.kept_name(listen)).collect();
        let names = self.names.iter().flatten();
        let unwanted = names.filter(|name| name.starts_with(KEPT) && !wanted.contains(name));
        let unwanted: Vec<_> = unwanted.cloned().collect();
        for name in &unwanted {
            drop(self.sockets(name));
        }
        unwanted
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

    /// Names of the sockets of `.socket` units that no listener has taken.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().map(String::as_str).filter(|name| !name.starts_with(KEPT))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_kept_as_far_as_the_manager_says() {
        let notify = Some("/run/systemd/notify");
        for (manager, room, expected) in [
            (None, None, Keeping::Nothing),
            (None, Some("8"), Keeping::Nothing),
            (Some(""), None, Keeping::Nothing),
            (notify, Some("0"), Keeping::Nothing),
            (notify, None, Keeping::PerhapsTcp),
            (notify, Some("8"), Keeping::All),
        ] {
            assert_eq!(Keeping::of(manager, room), expected, "{manager:?} {room:?}");
        }
    }

    #[test]
    fn a_kept_name_is_one_that_systemd_takes_and_belongs_to_one_address() {
        let name = |keeping, listen| Inherited { keeping, ..Inherited::none() }.kept_name(&listen);
        let tcp = |address: &str| Listen::Tcp(address.parse().unwrap());
        let addresses = ["127.0.0.1:8080", "0.0.0.0:8080", "[::1]:8080", "[::]:8080"];
        let names = addresses.map(|address| name(Keeping::PerhapsTcp, tcp(address)).unwrap());
        assert_eq!(names[0], "ssegate-kept-127.0.0.1_8080");
        for (at, one) in names.iter().enumerate() {
            assert!(!one.contains(':') && one.len() < 256, "{one}");
            assert!(names[at + 1..].iter().all(|other| other != one), "{names:?}");
        }
        assert_eq!(name(Keeping::All, tcp("127.0.0.1:0")), None);
        assert_eq!(name(Keeping::Nothing, tcp("127.0.0.1:8080")), None);
        assert_eq!(name(Keeping::All, Listen::Systemd("public".into())), None);
        let file = || Listen::Unix("Cargo.toml".into());
        assert_eq!(name(Keeping::PerhapsTcp, file()), None);
        assert!(name(Keeping::All, file()).unwrap().starts_with("ssegate-kept-unix-"));
    }
}
