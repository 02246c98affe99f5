//! A service manager that listens, and keeps descriptors: the other end of `NOTIFY_SOCKET`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{Folder, eventually};

/// What the manager keeps, by name.
type Kept = Vec<(String, OwnedFd)>;

pub struct Manager {
    /// For `NOTIFY_SOCKET`.
    pub name: String,
    heard: Arc<Mutex<Vec<String>>>,
    kept: Arc<Mutex<Kept>>,
    _folder: Folder,
}

impl Manager {
    /// At a path.
    pub fn start() -> Self {
        Self::hearing(|_| {})
    }

    /// At a path; `hear` is called with each message as it comes.
    pub fn hearing(hear: impl Fn(&str) + Send + 'static) -> Self {
        let folder = Folder::new();
        let path = folder.0.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // As systemd's own: services run as many users.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        Self::at(socket, path.to_str().unwrap().to_owned(), folder, hear)
    }

    /// At a name in the abstract namespace.
    pub fn abstract_one() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ssegate-test/{}/{count}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
        Self::at(socket.unwrap(), format!("@{name}"), Folder::new(), |_| {})
    }

    fn at(
        socket: UnixDatagram,
        name: String,
        folder: Folder,
        hear: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let keeping = kept.clone();
        // It ends with the tests.
        std::thread::spawn(move || {
            while let Some((message, descriptors)) = receive(&socket) {
                keep(&mut keeping.lock().unwrap(), &message, descriptors);
                hear(&message);
                all.lock().unwrap().push(message);
            }
        });
        Self { name, heard, kept, _folder: folder }
    }

    /// The names of what it keeps, sorted.
    pub fn kept(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.kept.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// What it keeps, for the next process; it goes on keeping it.
    pub fn copies(&self) -> Kept {
        let kept = self.kept.lock().unwrap();
        kept.iter().map(|(name, socket)| (name.clone(), socket.try_clone().unwrap())).collect()
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// How many messages there were so far that begin so.
    pub fn count(&self, begin: &str) -> usize {
        self.heard().iter().filter(|message| message.starts_with(begin)).count()
    }

    /// Waits until this is the newest status.
    #[track_caller]
    pub fn has_status(&self, status: &str) {
        eventually(&format!("the status is: {status}"), || {
            let heard = self.heard();
            let newest = heard.iter().rev().find_map(|message| message.strip_prefix("STATUS="));
            newest == Some(status)
        });
    }

    /// Waits for a message that begins so, and for all before it; where it is among them.
    #[track_caller]
    pub fn has_heard(&self, begin: &str) -> usize {
        let mut at = None;
        eventually(&format!("{begin} is heard"), || {
            at = self.heard().iter().position(|message| message.starts_with(begin));
            at.is_some()
        });
        at.unwrap()
    }
}

/// The next message, and the descriptors that came with it.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut buffer = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [IoSliceMut::new(&mut buffer)];
    let length = recvmsg(socket, &mut text, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    Some((String::from_utf8(buffer[..length].to_vec()).unwrap(), descriptors))
}

/// As systemd does: the same socket is kept once, and what is no FDSTORE=1 is closed.
fn keep(kept: &mut Kept, message: &str, descriptors: Vec<OwnedFd>) {
    let Some(name) = message.lines().find_map(|line| line.strip_prefix("FDNAME=")) else { return };
    if message.contains("FDSTOREREMOVE=1") {
        kept.retain(|(known, _)| known != name);
    } else if message.contains("FDSTORE=1") {
        let inode = |socket: &OwnedFd| rustix::fs::fstat(socket).unwrap().st_ino;
        for socket in descriptors {
            if kept.iter().all(|(_, known)| inode(known) != inode(&socket)) {
                kept.push((name.to_owned(), socket));
            }
        }
    }
}
