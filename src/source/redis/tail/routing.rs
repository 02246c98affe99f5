//! [`Tail`]: sends a request to the server that holds the key, and follows redirections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::client::replies::sole;
use super::client::request::Request;
use super::client::resp::Value;
use super::client::{Login, in_time};
use super::cut_looks::CutLooks;
use super::holes::HoleMakers;
use super::login_refusals::LoginRefusals;
use super::orphaned_replicas::OrphanedReplicas;
use super::pool::{Pool, SHARED_LINKS};
use super::seats::{SeatCounts, Seats, reading_links};
use super::topology::{Node, Purpose, Servers};
use crate::config::{self, Address, Config, ReadFrom, SourceLocation};
use crate::source::{Error, PoolStatus};
use crate::telemetry::histogram::{Histogram, WORK_SECONDS};

/// A request follows at most this many redirections, from one node of a cluster to the next.
pub(super) const MAX_REDIRECTIONS: usize = 4;
/// Large replies to readers that may be in memory at once, each up to twice the size that a reader aims at.
pub const LARGE_REPLIES: usize = 4;

/// A Redis server, or several. Cheap to clone.
#[derive(Clone)]
pub(in crate::source) struct Tail {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Servers,
    pool: Pool,
    /// Links over which readers that share connections read what they were told of,
    reading_pool: Pool,
    /// and which readers those are.
    seats: Seats,
    /// How often a connection that streams share had news of some.
    reads_together: AtomicU64,
    read_from: ReadFrom,
    orphaned_replicas: OrphanedReplicas,
    hole_makers: HoleMakers,
    cut_looks: CutLooks,
    /// The one server that is read from was a primary when it was asked,
    was_primary: AtomicBool,
    /// or did not tell: it is not asked again, for a denied command is in Redis' log each time.
    tells_no_role: AtomicBool,
    /// Permits for the large replies of all readers.
    large_replies: Arc<Semaphore>,
    /// Of all commands but the readers'.
    command_durations: Histogram,
}

impl Tail {
    pub(in crate::source) fn new(config: &Config) -> Self {
        let source = &config.source;
        let login = login(source);
        let refusals = Arc::<LoginRefusals>::default();
        Self {
            shared: Arc::new(Shared {
                servers: Servers::new(source, &login),
                pool: Pool::new(login.clone(), SHARED_LINKS, refusals.clone()),
                reading_pool: Pool::new(login, reading_links(source.connections), refusals),
                seats: Seats::new(source.connections, most_groups(source)),
                reads_together: AtomicU64::new(0),
                read_from: source.read_from,
                orphaned_replicas: OrphanedReplicas::default(),
                hole_makers: HoleMakers::default(),
                cut_looks: CutLooks::default(),
                was_primary: AtomicBool::new(false),
                tells_no_role: AtomicBool::new(false),
                large_replies: Arc::new(Semaphore::new(LARGE_REPLIES)),
                command_durations: Histogram::new(WORK_SECONDS),
            }),
        }
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.shared.servers
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(super) fn reading_pool(&self) -> &Pool {
        &self.shared.reading_pool
    }

    /// Uses no link to that server any more that is open now but is no reader's own: what silenced one of them has
    /// silenced them all, and a name may lead to another server by now.
    pub(super) fn retire_links(&self, node: &Node) {
        self.pool().retire(node);
        self.reading_pool().retire(node);
    }

    /// Reports a lag that was found in replies which were no errors, so that another server is read from.
    pub(super) fn report_lagging(&self, node: &Node, error: &Error) {
        if error.code == "LAGGING" {
            self.servers().report_failure(node, error);
        }
    }

    pub(super) fn seats(&self) -> &Seats {
        &self.shared.seats
    }

    pub(super) fn note_shared_read(&self) {
        self.shared.reads_together.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a connection that streams share had news of some.
    pub(in crate::source) fn shared_reads(&self) -> u64 {
        self.shared.reads_together.load(Ordering::Relaxed)
    }

    /// Connections, by what they are used for.
    pub(in crate::source) fn connections(&self) -> [(&'static str, usize); 4] {
        let SeatCounts { own, groups } = self.shared.seats.counts();
        let open = |pool: &Pool| pool.links().iter().map(|links| links.in_use + links.idle).sum();
        let (reading, links) = (open(self.reading_pool()), open(self.pool()));
        [("reader", own), ("shared", groups), ("reading", reading), ("link", links)]
    }

    pub(super) fn read_from(&self) -> ReadFrom {
        self.shared.read_from
    }

    pub(super) fn orphaned_replicas(&self) -> &OrphanedReplicas {
        &self.shared.orphaned_replicas
    }

    pub(super) fn hole_makers(&self) -> &HoleMakers {
        &self.shared.hole_makers
    }

    pub(super) fn tells_no_role(&self) -> &AtomicBool {
        &self.shared.tells_no_role
    }

    pub(super) fn cut_looks(&self) -> &CutLooks {
        &self.shared.cut_looks
    }

    pub(super) fn was_primary(&self) -> &AtomicBool {
        &self.shared.was_primary
    }

    pub(super) fn large_replies(&self) -> &Arc<Semaphore> {
        &self.shared.large_replies
    }

    pub(in crate::source) fn command_durations(&self) -> &Histogram {
        &self.shared.command_durations
    }

    pub(in crate::source) fn links(&self) -> Vec<PoolStatus> {
        self.pool().links()
    }

    /// The primary that sentinels name now, as far as they were asked.
    pub(in crate::source) fn named_primary(&self) -> Option<Address> {
        self.servers().named_primary()
    }

    /// Returns once another server is to be read from than before.
    pub(in crate::source) async fn server_changed(&self) {
        self.servers().changed().await;
    }

    /// Sends one command about `key` to the server where the key is read.
    pub(super) async fn command(
        &self,
        key: &str,
        timeout: Duration,
        words: &[&str],
    ) -> Result<Value, Error> {
        let bytes: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        sole(self.request(key, timeout, words[0], &Request::new(&bytes)).await?)
    }

    /// Sends a request about `key` to the server where the key is read. `doing` names the request in errors.
    pub(super) async fn request(
        &self,
        key: &str,
        timeout: Duration,
        doing: &str,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let find = self.servers().find(key, Purpose::Reading);
        let node = in_time(timeout, "which server", find).await?;
        self.request_at(&node, timeout, doing, request).await
    }

    /// Sends a request to this node, or to the one that it redirects us to.
    pub(super) async fn request_at(
        &self,
        node: &Node,
        timeout: Duration,
        doing: &str,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let mut node = node.clone();
        let mut redirections = 0;
        loop {
            let asked = Instant::now();
            let outcome = self.pool().exchange(&node, timeout, doing, request).await;
            self.command_durations().observe(asked.elapsed(), 1);
            let error = match outcome {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if error.code == "TIMEOUT" {
                self.pool().retire(&node);
            }
            match self.servers().report_failure(&node, &error) {
                Some(next) if redirections < MAX_REDIRECTIONS => node = next,
                _ => return Err(self.servers().explained(error)),
            }
            redirections += 1;
        }
    }
}

/// In a cluster one read cannot wait for keys of several slots: a second group would ask as often as the first one.
fn most_groups(source: &config::Source) -> usize {
    match source.location {
        SourceLocation::Cluster { .. } => 1,
        _ => usize::MAX,
    }
}

fn login(source: &config::Source) -> Login {
    let (database, is_cluster) = match source.location {
        SourceLocation::Server { database, .. } | SourceLocation::Sentinel { database, .. } => {
            (database, false)
        }
        SourceLocation::Cluster { database, .. } => (database, true),
        SourceLocation::Memory => (0, false),
    };
    Login {
        tls: source.tls.clone(),
        username: source.username.clone(),
        password: source.password.clone(),
        database,
        readonly: is_cluster && source.read_from == ReadFrom::Replica,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;

    use super::*;

    /// How long this Redis thinks about a command.
    const THOUGHT: Duration = Duration::from_millis(200);

    fn tail_of(redis: &TcpListener) -> Tail {
        let text = format!(
            "[source]\nurl = \"redis://{}\"\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\n",
            redis.local_addr().unwrap()
        );
        Tail::new(&crate::config::parse(&text, "gateway.toml", &[], false).unwrap().config)
    }

    async fn answer_slowly(mut connection: TcpStream) {
        let mut command = [0; 100];
        while connection.read(&mut command).await.is_ok_and(|count| count > 0) {
            tokio::time::sleep(THOUGHT).await;
            connection.write_all(b"+PONG\r\n").await.unwrap();
        }
    }

    /// The codes of so many commands at once; empty: an answer.
    async fn ask_at_once(tail: &Tail, commands: usize, patience: Duration) -> Vec<&'static str> {
        let mut asking = JoinSet::new();
        for _ in 0..commands {
            let tail = tail.clone();
            asking.spawn(async move { tail.command("a", patience, &["PING"]).await });
        }
        let codes = asking.join_all().await;
        codes.into_iter().map(|outcome| outcome.err().map_or("", |error| error.code)).collect()
    }

    #[tokio::test]
    async fn our_own_queue_is_no_dead_redis() {
        let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tail = tail_of(&redis);
        tokio::spawn(async move {
            while let Ok((connection, _)) = redis.accept().await {
                tokio::spawn(answer_slowly(connection));
            }
        });
        // The last of them waits three times as long as Redis may take for one.
        let codes = ask_at_once(&tail, 60, 5 * THOUGHT).await;
        assert!(codes.iter().all(|code| code.is_empty()), "{codes:?}");
    }

    #[tokio::test]
    async fn a_redis_that_answers_nobody_is_dead_for_those_who_wait_as_well() {
        let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tail, begun, patience) = (tail_of(&redis), Instant::now(), 2 * THOUGHT);
        let codes = ask_at_once(&tail, 60, patience).await;
        assert!(codes.iter().all(|code| *code == "TIMEOUT"), "{codes:?}");
        assert!(begun.elapsed() < 8 * patience, "they waited one after the other");
    }
}
