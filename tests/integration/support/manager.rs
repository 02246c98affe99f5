//! A service manager that only listens: the other end of `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Folder, eventually};

pub struct Manager {
    /// For `NOTIFY_SOCKET`.
    pub name: String,
    heard: Arc<Mutex<Vec<String>>>,
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
        // It ends with the tests.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
                hear(&message);
                all.lock().unwrap().push(message);
            }
        });
        Self { name, heard, _folder: folder }
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
