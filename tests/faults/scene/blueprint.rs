//! How a scene's gateway is to run: the same each time it is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{PASSWORD, Plan, Stage, USER};
use crate::support::Folder;
use crate::support::address::own_addresses;
use crate::support::gateway::Setup;

/// `block`, where runs are short.
const SHORT_BLOCK: Duration = Duration::from_secs(1);
/// And where they are long: the default.
const LONG_BLOCK: Duration = Duration::from_secs(5);
/// Entries that are kept in memory.
const RINGS: [usize; 3] = [20, 200, 10_000];
const SEND_BUFFERS_KIB: [usize; 2] = [16, 128];
/// What a client may take nothing for, or be behind, where such are cut.
const PATIENCE: &str = "1s";
/// So few connections that most keys share one.
const SHARED: &str = "connections = 2";
const ROUTES: &str = r#"
[[route]]
path = "/events"
key = "events:a"
filter = ["tenant"]
access = "public"
replay = "all"
[[route]]
path = "/told"
key = "events:a"
filter = ["tenant"]
access = "public"
replay = "all"
signals = "event"
[[route]]
path = "/answer"
key = "events:a"
filter = ["tenant"]
access = "public"
replay = "all"
end = { field = "type", equals = ["done"] }
[[route]]
path = "/answer-told"
key = "events:a"
filter = ["tenant"]
access = "public"
replay = "all"
signals = "event"
end = { field = "type", equals = ["done"] }
[[route]]
path = "/merged"
merge = [{ name = "a", key = "events:a" }, { name = "b0", key = "events:b0" }]
event = { stream = true }
filter = ["tenant"]
access = "public"
replay = "all"
[[route]]
path = "/chosen"
merge_query = { name = "stream", key = "events:{stream}", most = 3 }
event = { stream = true }
access = "public"
replay = "all"
signals = "event"
[[route]]
path = "/merged-answer"
merge = [{ name = "a", key = "events:a" }, { name = "b0", key = "events:b0" }]
event = { stream = true }
filter = ["tenant"]
access = "public"
replay = "all"
end = { field = "type", equals = ["done"] }
[[route]]
path = "/chosen-answer"
merge_query = { name = "stream", key = "events:{stream}", most = 3 }
event = { stream = true }
access = "public"
replay = "all"
signals = "event"
end = { field = "type", equals = ["done"] }
[[route]]
path = "/beside/{name}"
key = "events:b{name}"
access = "public"
replay = "all"
"#;

/// How a gateway is configured.
pub(super) struct Blueprint {
    stage: Stage,
    plan: Plan,
    url: String,
    public: SocketAddr,
    admin: SocketAddr,
    ring_entries: usize,
    send_buffer_kib: usize,
    password_file: PathBuf,
    clock_file: PathBuf,
}

impl Blueprint {
    /// What the seed decides is decided here.
    pub(super) fn new(
        stage: Stage,
        plan: Plan,
        rng: &mut fastrand::Rng,
        url: String,
        folder: &Folder,
    ) -> Self {
        let (password_file, clock_file) = (folder.0.join("password"), clock_file(folder));
        std::fs::write(&password_file, PASSWORD).unwrap();
        std::fs::write(&clock_file, "+0").unwrap();
        // A small ring sends clients that come back to Redis, a small send buffer makes half-written
        // events common; neither is too small for correctness.
        let small = match stage {
            // These faults concern clients that are past all that.
            Stage::BothBehindProxies | Stage::CutsStalled | Stage::CutsLate => true,
            Stage::GatewayBehindProxy => plan.seed % 2 == 1,
            _ => false,
        };
        let (rings, buffers) = if small { (1, 1) } else { (RINGS.len(), SEND_BUFFERS_KIB.len()) };
        let ring_entries = RINGS[rng.usize(0..rings)];
        let send_buffer_kib = SEND_BUFFERS_KIB[rng.usize(0..buffers)];
        let [public, admin] = own_addresses();
        Self {
            stage,
            plan,
            url,
            public,
            admin,
            ring_entries,
            send_buffer_kib,
            password_file,
            clock_file,
        }
    }

    pub(super) fn setup(&self) -> Setup {
        let (public, admin) = (self.public, self.admin);
        let setup = Setup::with_url(&self.url)
            .set("server", &format!("listen = [\"{public}\"]"))
            .set("admin", &format!("listen = \"{admin}\""))
            .set("server", "keepalive = \"1s\"")
            .set("server", "retry = \"100ms\"")
            .set("source", &format!("block = \"{}ms\"", block(self.plan).as_millis()))
            .set("ring", &format!("entries = {}", self.ring_entries))
            .set("limits", &format!("send_buffer = \"{}KiB\"", self.send_buffer_kib))
            .routes(ROUTES);
        let setup = if self.plan.shared { setup.set("source", SHARED) } else { setup };
        match self.stage {
            Stage::Acl => setup
                .set("source", &format!("username = \"{USER}\""))
                .set("source", &format!("password_file = {:?}", self.password_file)),
            Stage::OwnClock => setup
                .env("LD_PRELOAD", &libfaketime())
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file.to_str().unwrap())
                .env("FAKETIME_NO_CACHE", "1")
                .env("DONT_FAKE_MONOTONIC", "1"),
            Stage::CutsStalled => setup.set("limits", &format!("write_stall = \"{PATIENCE}\"")),
            Stage::CutsLate => setup.set("limits", &format!("max_lag = \"{PATIENCE}\"")),
            Stage::FewDescriptors => setup.descriptors(few_descriptors(self.plan)),
            _ => setup,
        }
    }
}

/// `source.block`.
pub(super) fn block(plan: Plan) -> Duration {
    if plan.long { LONG_BLOCK } else { SHORT_BLOCK }
}

/// Enough for a few clients more than there are.
pub fn few_descriptors(plan: Plan) -> usize {
    192 + 2 * (plan.followers() + plan.neighbours())
}

/// How far the gateway's clock is off is written here.
pub fn clock_file(folder: &Folder) -> PathBuf {
    folder.0.join("clock")
}

/// Where Debian's package `libfaketime` has it, on whatever architecture.
fn libfaketime() -> String {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut files = libraries.map(|at| at.path().join("faketime/libfaketimeMT.so.1"));
    let file = files.find(|file| file.exists());
    file.expect("libfaketime (apt: faketime) must be installed").to_str().unwrap().to_owned()
}
