//! Notifies the service manager (`sd_notify(3)`): the gateway is ready, its status, and that it is alive
//! for as long as the fan-out is. Gives it the listening sockets to keep over a restart.
//!
//! Our own code, because it is short: the crate sd-notify 0.5 does not know abstract sockets, and waits
//! for ever for a manager that does not read.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::config::SourceLocation;
use crate::fanout::Fanout;
use crate::state::State;
use crate::telemetry::throttle::LogThrottle;

/// A message is given up when the manager does not read it within this time.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);
/// For the manager to read what it was sent; it may be busy as a machine starts.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the status is compared with the one that the manager has.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A drain asks for more time this often,
const EXTEND_EVERY: Duration = Duration::from_secs(1);
/// and for this much: enough for a busy machine to ask again.
const EXTENSION: Duration = Duration::from_secs(10);

/// The service manager that started this process; without one nothing is sent.
#[derive(Clone)]
pub struct Manager(Option<Arc<Endpoint>>);

struct Endpoint {
    address: SocketAddr,
    /// The manager restarts a process that is silent for longer.
    watchdog: Option<Duration>,
    failures: LogThrottle,
}

impl Manager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// They stay in the environment: changing it is unsafe, and the gateway starts no other process.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let watchdog = watchdog(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        match address(&name) {
            Ok(address) => {
                let failures = LogThrottle::default();
                Self(Some(Arc::new(Endpoint { address, watchdog, failures })))
            }
            Err(error) => {
                warn!(name, %error, "NOTIFY_SOCKET is no unix socket; the service manager hears nothing from this gateway");
                Self(None)
            }
        }
    }

    /// The gateway is up, or a reload has ended.
    pub async fn ready(&self) {
        self.send("READY=1").await;
    }

    /// A reload begins; it ends with [`ready`](Self::ready).
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        // `Type=notify-reload` requires the time: the READY=1 that follows has to be newer.
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")).await;
    }

    /// The drain begins.
    pub async fn stopping(&self) {
        self.send("STOPPING=1").await;
    }

    /// The manager is to keep a listening socket under this name, and to hand it to the next gateway.
    pub(super) async fn keep(&self, name: &str, socket: BorrowedFd<'_>) {
        self.send_with(&format!("FDSTORE=1\nFDNAME={name}"), &[socket]).await;
    }

    /// The manager is to close what it keeps under this name.
    pub(super) async fn forget(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}")).await;
    }

    /// Waits until the manager has acted on all that it was sent, or takes too long.
    pub(super) async fn has_read_all(&self) {
        if self.0.is_none() {
            return;
        }
        let Ok((mut ours, theirs)) = UnixStream::pair() else { return };
        self.send_with("BARRIER=1", &[theirs.as_fd()]).await;
        // Ends when the manager closes its copy.
        drop(theirs);
        let _ = timeout(READ_TIMEOUT, ours.read_u8()).await;
    }

    async fn send(&self, message: &str) {
        self.send_with(message, &[]).await;
    }

    async fn send_with(&self, message: &str, descriptors: &[BorrowedFd<'_>]) {
        let Some(endpoint) = &self.0 else { return };
        if let Err(error) = endpoint.send(message, descriptors).await
            && endpoint.failures.allows("failure")
        {
            warn!(%error, message, "a message to the service manager was lost; if more are, it may restart the gateway");
        }
    }
}

impl Endpoint {
    /// Through a new socket each time: the manager may have reopened its end.
    async fn send(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        let send = socket.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let text = [IoSlice::new(message.as_bytes())];
            Ok(sendmsg(&socket, &text, &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        timeout(SEND_TIMEOUT, send).await??;
        Ok(())
    }
}

/// A path, or a name in the abstract namespace after an `@`.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @name")),
    }
}

/// How often the process `own` has to send a sign of life, if the manager wants one from it.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec.filter(|_| is_ours)?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

/// Sends the status, signs of life for the watchdog, and requests for more time during a drain.
pub(super) fn report(manager: &Manager, state: &Arc<State>) {
    let Some(endpoint) = &manager.0 else { return };
    let fanout = &state.fanout;
    tokio::spawn(report_status(manager.clone(), state.clone()));
    tokio::spawn(extend_drain(manager.clone(), fanout.clone(), EXTEND_EVERY));
    if let Some(watchdog) = endpoint.watchdog {
        tokio::spawn(send_rounds(manager.clone(), fanout.clone(), "WATCHDOG=1", watchdog / 2));
    }
}

/// Sends `message` every so often, but only after a round through all shards: a fan-out that hangs sends
/// nothing, an idle one does.
async fn send_rounds(manager: Manager, fanout: Arc<Fanout>, message: &str, every: Duration) {
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        fanout.every_shard_runs().await;
        manager.send(message).await;
    }
}

/// The manager kills a process that takes longer to stop than `TimeoutStopSec=`: the drain asks for more
/// time while it makes progress, but never for more than a drain may take.
async fn extend_drain(manager: Manager, fanout: Arc<Fanout>, every: Duration) {
    fanout.draining.cancelled().await;
    let longest = fanout.settings().longest_drain();
    let message = format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros());
    // Only the time-out ends it.
    let _ = timeout(longest, send_rounds(manager, fanout, &message, every)).await;
}

async fn report_status(manager: Manager, state: Arc<State>) {
    let mut clock = interval(STATUS_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        clock.tick().await;
        let status = status(&state);
        if status != last {
            manager.send(&format!("STATUS={status}")).await;
            last = status;
        }
    }
}

/// One line for `systemctl status`.
fn status(state: &State) -> String {
    let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    let source = match state.config().source.location {
        SourceLocation::Memory => "embedded source",
        _ if is(&state.source_up) => "Redis up",
        _ if is(&state.source_seen) => "Redis away",
        _ => "Redis not reached yet",
    };
    let (clients, streams) = (state.limits.clients(), state.hub.readers());
    let draining = if state.fanout.draining.is_cancelled() { "draining, " } else { "" };
    let rejected = if is(&state.reload_rejected) {
        ", the last reload was rejected: a restart would fail"
    } else {
        ""
    };
    format!("{draining}clients: {clients}, streams: {streams}, {source}{rejected}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::fanout::Settings;
    use crate::fanout::testing::{HungShard, TestFanout};

    /// A manager and its end of the socket.
    fn manager(watchdog: Option<Duration>) -> (Manager, tokio::net::UnixDatagram) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let address = address(&format!("@ssegate-unit/{}/{number}", std::process::id())).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let endpoint = Endpoint { address, watchdog, failures: LogThrottle::default() };
        (Manager(Some(Arc::new(endpoint))), tokio::net::UnixDatagram::from_std(socket).unwrap())
    }

    /// The next message, if one comes within `wait`.
    async fn hear(socket: &tokio::net::UnixDatagram, wait: Duration) -> Option<String> {
        let mut buffer = [0; 256];
        let length = timeout(wait, socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    const LONG: Duration = Duration::from_secs(20);
    /// Long enough for several of the messages below.
    const A_WHILE: Duration = Duration::from_millis(300);

    /// `message` comes while both shards run, stops while one of them hangs, and comes again afterwards.
    async fn stops_while_a_shard_hangs(
        test: TestFanout,
        socket: tokio::net::UnixDatagram,
        message: &str,
    ) {
        let clients = ["a", "b"].map(|key| test.subscriber(key));
        assert_eq!(hear(&socket, LONG).await.as_deref(), Some(message));
        let hung = HungShard::shards_of(&clients[1].1);
        assert!(test.stops(A_WHILE).await);
        // Messages sent before it hung.
        while hear(&socket, Duration::ZERO).await.is_some() {}
        assert_eq!(hear(&socket, A_WHILE).await, None, "a fan-out that hangs was called alive");
        drop(hung);
        assert_eq!(hear(&socket, LONG).await.as_deref(), Some(message));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn the_watchdog_hears_nothing_while_a_shard_hangs() {
        let test = TestFanout::new();
        let (manager, socket) = manager(None);
        let every = Duration::from_millis(20);
        tokio::spawn(send_rounds(manager, test.fanout.clone(), "WATCHDOG=1", every));
        stops_while_a_shard_hangs(test, socket, "WATCHDOG=1").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_drain_that_hangs_asks_for_no_more_time() {
        let test = TestFanout::new();
        let (manager, socket) = manager(None);
        let fanout = test.fanout.clone();
        fanout.draining.cancel();
        tokio::spawn(extend_drain(manager, fanout, Duration::from_millis(20)));
        stops_while_a_shard_hangs(test, socket, "EXTEND_TIMEOUT_USEC=10000000").await;
    }

    #[tokio::test]
    async fn a_drain_asks_for_no_more_time_than_it_may_take() {
        let test = TestFanout::new();
        let (drain, write_stall) = Default::default();
        let settings = Settings { drain, write_stall, ..Settings::clone(&test.fanout.settings()) };
        test.fanout.set_settings(settings.into());
        test.fanout.draining.cancel();
        let (manager, socket) = manager(None);
        timeout(LONG, extend_drain(manager, test.fanout.clone(), A_WHILE)).await.unwrap();
        assert!(hear(&socket, Duration::ZERO).await.is_some());
    }

    #[test]
    fn the_watchdog_is_for_the_named_process() {
        let every = Some(Duration::from_secs(30));
        assert_eq!(watchdog(Some("30000000"), None, 7), every);
        assert_eq!(watchdog(Some("30000000"), Some("7"), 7), every);
        for (usec, pid) in [
            (None, Some("7")),
            (Some("30000000"), Some("8")),
            (Some("30000000"), Some("")),
            (Some("0"), None),
            (Some("-1"), None),
            (Some("soon"), None),
        ] {
            assert_eq!(watchdog(usec, pid, 7), None, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        let path = address("/run/systemd/notify").unwrap();
        assert_eq!(path.as_pathname(), Some("/run/systemd/notify".as_ref()));
        let name = address("@systemd/notify").unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"systemd/notify"[..]));
        assert!(address("vsock:2:1234").is_err());
        assert!(address(&format!("/{}", "x".repeat(200))).is_err());
    }
}
