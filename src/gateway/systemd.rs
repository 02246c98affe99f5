//! What the service manager is told (`sd_notify(3)`): that we are up, how we fare, and that we are alive
//! as long as the fan-out really is.
//!
//! Own code, for it is little: of the crates, sd-notify 0.5 knows no abstract sockets, and waits for ever
//! for a manager that does not read.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::config::SourceLocation;
use crate::fanout::Fanout;
use crate::state::State;
use crate::telemetry::throttle::LogThrottle;

/// A manager that does not read its socket has this long to do so; nothing waits for it longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The status is looked at, and told where it has changed, this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// While a drain goes on it is said so this often,
const EXTEND_EVERY: Duration = Duration::from_secs(1);
/// and each time this much more is asked for: enough for a busy machine to say it again.
const EXTENSION: Duration = Duration::from_secs(10);

/// The service manager that started this process, or none: then nothing is told.
#[derive(Clone)]
pub struct Manager(Option<Arc<Told>>);

struct Told {
    address: SocketAddr,
    /// How often it wants to hear that we are alive, at the latest.
    watchdog: Option<Duration>,
    failures: LogThrottle,
}

impl Manager {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    ///
    /// They stay in the environment: it is no safe place to change, and we start no other process.
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
                Self(Some(Arc::new(Told { address, watchdog, failures: LogThrottle::default() })))
            }
            Err(error) => {
                warn!(name, %error, "NOTIFY_SOCKET names no unix socket; the service manager is told nothing");
                Self(None)
            }
        }
    }

    /// Up, or done with a reload.
    pub async fn ready(&self) {
        self.tell("READY=1").await;
    }

    /// A reload begins; it ends with [`ready`](Self::ready).
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        // Which message an answer is to be newer than: `Type=notify-reload` insists on it.
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")).await;
    }

    /// The drain begins.
    pub async fn stopping(&self) {
        self.tell("STOPPING=1").await;
    }

    async fn tell(&self, message: &str) {
        let Some(told) = &self.0 else { return };
        if let Err(error) = told.send(message).await
            && told.failures.allows("failure")
        {
            warn!(%error, message, "the service manager cannot be told");
        }
    }
}

impl Told {
    /// Over a socket of its own each time: the manager may have opened its end anew.
    async fn send(&self, message: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        timeout(PATIENCE, socket.send(message.as_bytes())).await??;
        Ok(())
    }
}

/// A path, or, behind an `@`, a name in the abstract namespace.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @name")),
    }
}

/// How often we have to say that we are alive, where that is asked of the process `own`.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec.filter(|_| is_ours)?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

/// Tells the manager from now on of the status, of each round of the fan-out in time for its watchdog,
/// and, once a drain has begun, that it goes on.
pub(crate) fn keep_told(manager: &Manager, state: &Arc<State>) {
    let Some(told) = &manager.0 else { return };
    tokio::spawn(tell_status(manager.clone(), state.clone()));
    tokio::spawn(tell_of_drain(manager.clone(), state.fanout.clone(), EXTEND_EVERY));
    if let Some(watchdog) = told.watchdog {
        tokio::spawn(tell_rounds(
            manager.clone(),
            state.fanout.clone(),
            "WATCHDOG=1",
            watchdog / 2,
        ));
    }
}

/// Says `message` every so often, and each time only once the fan-out has gone round: one that hangs
/// says nothing, one that is idle does.
async fn tell_rounds(manager: Manager, fanout: Arc<Fanout>, message: &str, every: Duration) {
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        fanout.round().await;
        manager.tell(message).await;
    }
}

/// The manager kills who takes longer than `TimeoutStopSec=`: it is asked for more time while the drain
/// goes on, though never for longer than a drain may take.
async fn tell_of_drain(manager: Manager, fanout: Arc<Fanout>, every: Duration) {
    fanout.draining.cancelled().await;
    let longest = fanout.settings().longest_drain();
    let message = format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros());
    let telling = tell_rounds(manager, fanout, &message, every);
    // It ends by the time alone.
    let _ = timeout(longest, telling).await;
}

async fn tell_status(manager: Manager, state: Arc<State>) {
    let mut clock = interval(STATUS_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        clock.tick().await;
        let status = status(&state);
        if status != last {
            manager.tell(&format!("STATUS={status}")).await;
            last = status;
        }
    }
}

/// One line for `systemctl status`.
fn status(state: &State) -> String {
    let is = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
    let source = match state.config().source.location {
        SourceLocation::Memory => "embedded source",
        _ if is(&state.source_up) => "Redis up",
        _ if is(&state.source_seen) => "Redis away",
        _ => "Redis not reached yet",
    };
    let (clients, streams) = (state.limits.clients(), state.hub.readers());
    let draining = if state.fanout.draining.is_cancelled() { "draining, " } else { "" };
    let refused =
        if is(&state.reload_refused) { ", the file was refused: a restart would fail" } else { "" };
    format!("{draining}clients: {clients}, streams: {streams}, {source}{refused}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::Settings;
    use crate::fanout::testing::{HungShard, TestFanout};

    /// A manager, and its end of the socket.
    fn manager(watchdog: Option<Duration>) -> (Manager, tokio::net::UnixDatagram) {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let address = address(&format!("@ssegate-unit/{}/{number}", std::process::id())).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let told = Told { address, watchdog, failures: LogThrottle::default() };
        (Manager(Some(Arc::new(told))), tokio::net::UnixDatagram::from_std(socket).unwrap())
    }

    /// The next message, if one comes within `wait`.
    async fn hear(socket: &tokio::net::UnixDatagram, wait: Duration) -> Option<String> {
        let mut buffer = [0; 256];
        let length = timeout(wait, socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    const LONG: Duration = Duration::from_secs(20);
    /// Several of the pings below.
    const A_WHILE: Duration = Duration::from_millis(300);

    /// `message` comes while all is well, not while one of two shards hangs, and again afterwards.
    async fn stops_while_a_pack_hangs(
        test: TestFanout,
        socket: tokio::net::UnixDatagram,
        message: &str,
    ) {
        let clients = ["a", "b"].map(|key| test.subscriber(key));
        assert_eq!(hear(&socket, LONG).await.as_deref(), Some(message));
        let hung = HungShard::shards_of(&clients[1].1);
        assert!(test.stops(A_WHILE).await);
        // What was under way before it hung.
        while hear(&socket, Duration::ZERO).await.is_some() {}
        assert_eq!(hear(&socket, A_WHILE).await, None, "a fan-out that hangs is alive");
        drop(hung);
        assert_eq!(hear(&socket, LONG).await.as_deref(), Some(message));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn the_watchdog_hears_nothing_while_a_pack_hangs() {
        let test = TestFanout::new();
        let (manager, socket) = manager(None);
        let every = Duration::from_millis(20);
        tokio::spawn(tell_rounds(manager, test.fanout.clone(), "WATCHDOG=1", every));
        stops_while_a_pack_hangs(test, socket, "WATCHDOG=1").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_drain_that_hangs_is_given_no_more_time() {
        let test = TestFanout::new();
        let (manager, socket) = manager(None);
        let fanout = test.fanout.clone();
        fanout.draining.cancel();
        let every = Duration::from_millis(20);
        tokio::spawn(async move { tell_of_drain(manager, fanout, every).await });
        stops_while_a_pack_hangs(test, socket, "EXTEND_TIMEOUT_USEC=10000000").await;
    }

    #[tokio::test]
    async fn a_drain_is_given_no_more_time_than_it_may_take() {
        let test = TestFanout::new();
        let (drain, write_stall) = Default::default();
        let settings = Settings { drain, write_stall, ..Settings::clone(&test.fanout.settings()) };
        test.fanout.set_settings(settings.into());
        test.fanout.draining.cancel();
        let (manager, socket) = manager(None);
        timeout(LONG, tell_of_drain(manager, test.fanout.clone(), A_WHILE)).await.unwrap();
        assert!(hear(&socket, Duration::ZERO).await.is_some());
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_is_named() {
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
    fn a_socket_has_a_path_or_a_name() {
        let path = address("/run/systemd/notify").unwrap();
        assert_eq!(path.as_pathname(), Some("/run/systemd/notify".as_ref()));
        let name = address("@systemd/notify").unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"systemd/notify"[..]));
        assert!(address("vsock:2:1234").is_err());
        assert!(address(&format!("/{}", "x".repeat(200))).is_err());
    }
}
