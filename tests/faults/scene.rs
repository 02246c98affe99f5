//! Where a fault happens: Redis, the gateway, a writer and the clients, and what lies between them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ssegate::sse::StreamId;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::client::{Client, Speaks};
use crate::following::Following;
use crate::history::Fate;
use crate::merged::MERGED;
use crate::neighbours::{FEW_NEIGHBOURS, NEIGHBOURS, Neighbours};
use crate::proxy::{Proxy, Upstream};
use crate::record::Record;
use crate::selection::Selection;
use crate::support::address::own_ip;
use crate::support::gateway::Gateway;
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::sentinel::{Sentinel, Trio};
use crate::support::{Folder, eventually, pause_of_the_scenario};
use crate::writer::{KEY, Writer, Writing};

mod blueprint;

pub use blueprint::{clock_file, few_descriptors};

use blueprint::Blueprint;

/// What Redis asks of the gateway where the stage is [`Stage::Acl`].
pub const USER: &str = "gateway";
/// The same.
pub const PASSWORD: &str = "in the beginning";
/// The key that this user may read.
pub const MAY_READ: &str = "%R~events:a";
/// And the keys beside it.
pub const MAY_READ_BESIDE: &str = "%R~events:b*";
/// And how: the README says that a gateway needs no more.
const COMMANDS: [&str; 6] =
    ["+xread", "+xrange", "+xrevrange", "+xinfo|stream", "+ping", "+select"];

/// What a fault needs to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A gateway and a Redis that keeps nothing on disk.
    Plain,
    /// Redis has each entry on disk before it acknowledges it.
    Durable,
    /// A proxy between the gateway and Redis.
    RedisBehindProxy,
    /// A proxy between the clients and the gateway.
    GatewayBehindProxy,
    /// Both, and next to nothing is kept in memory.
    BothBehindProxies,
    /// A proxy between the clients and the gateway, which soon cuts a client that takes nothing.
    CutsStalled,
    /// The same, and it cuts a client that is late.
    CutsLate,
    /// The gateway logs in to Redis as a user who may do what it needs.
    Acl,
    /// A second Redis is the replica of the first.
    Replicated,
    /// Two are, and three sentinels watch all of them.
    Watched,
    /// The gateway's wall clock can be stepped.
    OwnClock,
    /// The gateway has been given few descriptors.
    FewDescriptors,
}

impl Stage {
    fn has_redis_side(self) -> bool {
        matches!(self, Self::RedisBehindProxy | Self::BothBehindProxies)
    }

    pub const fn has_client_side(self) -> bool {
        let both = matches!(self, Self::BothBehindProxies);
        both || matches!(self, Self::GatewayBehindProxy | Self::CutsStalled | Self::CutsLate)
    }
}

/// How a run goes, beside its fault.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub clients: usize,
    /// Keys share connections to Redis.
    pub shared: bool,
    /// Faults last as long as they do in earnest.
    pub long: bool,
}

impl Plan {
    /// Keys beside the one that faults are about, each with a client.
    pub fn neighbours(&self) -> usize {
        if self.shared { NEIGHBOURS } else { FEW_NEIGHBOURS }
    }

    /// Clients that follow the key that faults are about, also with others.
    pub fn followers(&self) -> usize {
        self.clients + MERGED
    }
}

/// Where a client comes, and what it follows there.
pub struct Place {
    pub path: String,
    pub follows: Following,
}

impl Place {
    /// Of one stream, of which it asks for this.
    pub fn one(began: Instant, path: &str, selection: Selection) -> Self {
        Self { path: selection.at(path), follows: Following::one(began, selection) }
    }
}

/// What a fault can lay hands on.
pub struct Scene {
    pub plan: Plan,
    pub rng: fastrand::Rng,
    pub began: Instant,
    pub writing: Writing,
    pub beside: Neighbours,
    pub gateway: Option<Gateway>,
    /// What earlier gateways of this run logged.
    pub logged: String,
    pub servers: Vec<Redis>,
    /// Which of them holds the stream.
    pub primary: usize,
    /// The sentinels that watch them.
    pub sentinels: Vec<Sentinel>,
    pub folder: Folder,
    /// This scene's own loopback address.
    pub host: String,
    /// Numbers that were deleted one by one, and when that began.
    pub deleted: HashMap<u64, Duration>,
    /// When the key of the ended stream was about to go.
    pub gone: Option<Duration>,
    /// When Redis was about to go away after the stream's end.
    pub away: Option<Duration>,
    /// What each client has heard so far.
    pub records: Vec<Arc<Record>>,
    removals: Mutex<Vec<Duration>>,
    blueprint: Blueprint,
    redis_side: Option<Proxy>,
    client_side: Option<Proxy>,
    /// Dropped with the scene, and so are they.
    clients: JoinSet<()>,
    runtime: Handle,
}

impl Scene {
    /// Everything in place, and no client there yet.
    pub fn set(stage: Stage, plan: Plan, mut rng: fastrand::Rng, runtime: &Handle) -> Self {
        let (began, folder, host) = (Instant::now(), Folder::new(), own_ip());
        let (servers, sentinels, url) = servers(stage);
        let redis = &servers[0];
        let redis_side = stage
            .has_redis_side()
            .then(|| Proxy::start(runtime, &host, Upstream::Unix(redis.socket()), rng.fork()));
        let url = match &redis_side {
            Some(proxy) => format!("redis://{}", proxy.address),
            None => url,
        };
        let blueprint = Blueprint::new(stage, plan, &mut rng, url, &folder);
        if stage == Stage::Acl {
            let password = format!(">{PASSWORD}");
            let user = ["ACL", "SETUSER", USER, "on", &password, "-@all", "resetkeys"];
            let user = [&user[..], &[MAY_READ, MAY_READ_BESIDE], &COMMANDS].concat();
            assert_eq!(redis.run(&user), Answer::Text("OK".into()));
        }
        let writer = Writer::new(began, rng.fork(), KEY, redis.socket());
        let beside = Neighbours::new(plan, began, &mut rng, redis);
        let mut scene = Self {
            plan,
            rng,
            began,
            writing: Writing::new(writer),
            beside,
            gateway: None,
            logged: String::new(),
            servers,
            primary: 0,
            sentinels,
            folder,
            host,
            deleted: HashMap::new(),
            gone: None,
            away: None,
            records: Vec::new(),
            removals: Mutex::default(),
            blueprint,
            redis_side,
            client_side: None,
            clients: JoinSet::new(),
            runtime: runtime.clone(),
        };
        scene.start_gateway();
        if stage.has_client_side() {
            let upstream = Upstream::Tcp(scene.gateway_address());
            let rng = scene.rng.fork();
            scene.client_side = Some(Proxy::start(runtime, &scene.host, upstream, rng));
        }
        scene
    }

    /// Starts the gateway, where there was one, on the same port.
    pub fn start_gateway(&mut self) {
        assert!(self.gateway.is_none(), "it runs already");
        self.gateway = Some(self.blueprint.setup().start_ready());
    }

    /// The server that holds the stream now.
    pub fn redis(&self) -> &Redis {
        &self.servers[self.primary]
    }

    /// The same, to be killed and started.
    pub fn redis_mut(&mut self) -> &mut Redis {
        &mut self.servers[self.primary]
    }

    /// The gateway; its absence is the fault's own doing.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs")
    }

    /// Lets go of the gateway: the fault ends it.
    pub fn lose_gateway(&mut self) -> Gateway {
        let gateway = self.gateway.take().expect("it runs");
        self.logged += &gateway.log();
        gateway
    }

    /// Waits until the gateway has read what is written so far.
    pub fn gateway_has_read_all(&self) {
        let newest = |fate: &Fate| if let Fate::Added(id, _) = fate { Some(*id) } else { None };
        let newest = self.writing.lock().written().iter().rev().find_map(newest);
        eventually("the gateway has read what was written", || {
            let streams = self.gateway().streams();
            let streams = streams.as_array().unwrap();
            let stream = streams.iter().find(|stream| stream["key"] == KEY).unwrap();
            let read = stream["last_id"].as_str().and_then(|id| id.parse::<StreamId>().ok());
            read >= newest
        });
    }

    /// Everything that a gateway of this run logged.
    pub fn log(&self) -> String {
        self.logged.clone() + &self.gateway.as_ref().map(Gateway::log).unwrap_or_default()
    }

    fn gateway_address(&self) -> SocketAddr {
        self.gateway().address.parse().unwrap()
    }

    /// The proxy in front of Redis, on a stage that has one.
    pub fn redis_side(&self) -> &Proxy {
        self.redis_side.as_ref().expect("the stage has one")
    }

    /// The proxy in front of the gateway, on a stage that has one.
    pub fn client_side(&self) -> &Proxy {
        self.client_side.as_ref().expect("the stage has one")
    }

    /// Clients come, of every kind, to one or the other of these paths; each one's record.
    pub fn let_clients_in(&mut self, paths: [&str; 2]) -> Vec<Arc<Record>> {
        let began = self.began;
        let place = |index: usize| {
            Place::one(began, paths[usize::from(index % 3 == 2)], Selection::of_client(index))
        };
        let records = self.clients_at((0..self.plan.clients).map(place).collect());
        self.records = records.into_iter().flatten().collect();
        self.records.clone()
    }

    /// A client at each of these places, and its record of each stream there.
    pub fn clients_at(&mut self, places: Vec<Place>) -> Vec<Vec<Arc<Record>>> {
        let address =
            self.client_side.as_ref().map_or(self.gateway_address(), |proxy| proxy.address);
        let mut records = Vec::new();
        for (index, Place { path, follows }) in places.into_iter().enumerate() {
            let speaks = match index % 5 {
                3 if self.plan.long => Speaks::Http2,
                4 => Speaks::Old,
                _ => Speaks::Http1,
            };
            let rng = self.rng.fork();
            records.push(follows.records.clone());
            let client = Client { address, path, speaks, follows, rng };
            self.clients.spawn_on(client.run(), &self.runtime);
        }
        let is_live = |records: &Vec<Arc<Record>>| records.iter().all(|record| record.is_live());
        eventually("every client is live", || records.iter().all(is_live));
        records
    }

    /// Entries have been removed just now.
    pub fn removed(&self) {
        self.removals.lock().unwrap().push(self.began.elapsed());
    }

    /// When that was, where no client was kept away meanwhile.
    pub fn removals(&self) -> Vec<Duration> {
        match self.client_side {
            None => self.removals.lock().unwrap().clone(),
            Some(_) => Vec::new(),
        }
    }

    /// Another connection to Redis.
    pub fn operator(&self) -> Connection {
        Connection::open(self.redis()).expect("Redis is there")
    }

    /// A time in between, as the seed wants it.
    pub fn some_time(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least_ms..=most_ms))
    }

    /// Lets it pass.
    pub fn wait(&mut self, least_ms: u64, most_ms: u64) {
        let time = self.some_time(least_ms, most_ms);
        pause_of_the_scenario(time, "between two steps, as the seed wants it");
    }

    /// How long the fault lasts: the one or the other.
    pub fn lasting(&self, quick_ms: u64, long_ms: u64) -> Duration {
        Duration::from_millis(if self.plan.long { long_ms } else { quick_ms })
    }

    /// `source.block`.
    pub fn block(&self) -> Duration {
        blueprint::block(self.plan)
    }

    /// What the stream of this key holds, as it was written.
    pub fn kept(&self, key: &str) -> Vec<(String, String)> {
        let Answer::List(entries) = self.redis().run(&["XRANGE", key, "-", "+"]) else {
            panic!("no list of what is kept")
        };
        entries.into_iter().map(id_and_payload).collect()
    }
}

fn id_and_payload(entry: Answer) -> (String, String) {
    let Answer::List(mut parts) = entry else { panic!("{entry:?}") };
    let (Some(Answer::List(mut fields)), Some(Answer::Text(id))) = (parts.pop(), parts.pop())
    else {
        panic!("an entry without fields")
    };
    let Some(Answer::Text(payload)) = fields.pop() else { panic!("{id} has no payload") };
    (id, payload)
}

/// The servers of a stage, the first of them the primary; their sentinels; the `[source] url`.
fn servers(stage: Stage) -> (Vec<Redis>, Vec<Sentinel>, String) {
    if stage == Stage::Watched {
        let trio = Trio::start();
        let url = trio.url();
        return (trio.servers, trio.sentinels, url);
    }
    let redis = match stage {
        Stage::Durable => Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]),
        Stage::Replicated => Redis::on_tcp(&[]),
        _ => Redis::start(),
    };
    let (url, mut servers) = (redis.url(), vec![redis]);
    if stage == Stage::Replicated {
        let replica = Redis::on_tcp(&[]);
        replica.follow(&servers[0]);
        servers.push(replica);
    }
    (servers, Vec::new(), url)
}
