//! A fan-out for tests, with subscribers in its shards.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::catchup::DeliveryState;
use super::{Admitted, Fanout, LogId, Settings, Socket, Subscriber, WireFormat};
use crate::auth::grant::{AuthContext, Grants};
use crate::config::{self, Config};
use crate::limits::{ClientIdentity, Limits};
use crate::source::Source;
use crate::stream::replay::Replays;
use crate::stream::{Hub, Lease};
use crate::telemetry::metrics::Metrics;

pub(crate) struct TestFanout {
    config: Config,
    pub(crate) source: Source,
    pub(crate) fanout: Arc<Fanout>,
    hub: Hub,
    limits: Arc<Limits>,
    pub(crate) grants: Arc<Grants>,
}

impl TestFanout {
    pub(crate) fn new() -> Self {
        Self::of("")
    }

    /// With these settings; the rest is the demo's.
    pub(crate) fn of(toml: &str) -> Self {
        let config = config::parse(toml, "", &[], true).unwrap().config;
        let metrics = Arc::new(Metrics::new(&config.routes));
        let source = Source::open(&config);
        let replays = Replays::new(source.clone(), metrics.clone(), &config);
        let settings = Settings::new(&config, true, false);
        let fanout = Arc::new(Fanout::new(settings.into(), metrics, replays));
        let hub = Hub::new(config.ring.clone(), config.limits.readers);
        let limits = Limits::new(&config, 10_000).unwrap();
        Self { config, source, fanout, hub, limits, grants: Arc::default() }
    }

    /// The client's end of a subscriber in a shard of `key`, and a lease of the topic.
    pub(crate) fn subscriber(&self, key: &str) -> (UnixStream, Lease) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (subscriber, lease) = self.unattached(key);
        let delivery = DeliveryState { last_id: None, live: true, source_down: false };
        self.fanout.join(Socket::new(OwnedFd::from(ours)), subscriber, 0, delivery);
        (theirs, lease)
    }

    /// A subscriber of `key` that is neither in a shard nor in catch-up, and a lease of the topic.
    pub(crate) fn unattached(&self, key: &str) -> (Subscriber, Lease) {
        let lease = || self.hub.open(key, |_| {}).unwrap();
        let mut routes = self.config.routes.iter();
        let route = routes.find(|route| route.rules.snapshot.is_none()).expect("one has none");
        let mut held = lease();
        let rendering = held.render(&route.rules.rendering);
        let subscriber = Subscriber {
            lease: held,
            admitted: self.admitted(key),
            format: WireFormat {
                rendering: rendering.try_into().unwrap(),
                controls: route.rules.controls(),
                framed: true,
            },
            route: 0,
            rules: route.rules.clone(),
            state: None,
        };
        (subscriber, lease())
    }

    /// A client that was admitted to `key`.
    pub(crate) fn admitted(&self, key: &str) -> Admitted {
        let permit = self.limits.admit(&self.limits.bounds(), &ClientIdentity::default());
        let (record, expires, token) = Default::default();
        Admitted {
            permit: Some(permit.unwrap()),
            grant: Some(self.grants.enter(&context(key))),
            id: LogId { connection: 1, stream: None },
            record,
            opened: Instant::now(),
            expires,
            token,
        }
    }

    pub(crate) async fn goes_round(&self, within: Duration) -> bool {
        timeout(within, self.fanout.every_shard_runs()).await.is_ok()
    }

    /// Whether a shard stops answering, for so long at least: it may still come to a probe before it
    /// comes to what it hangs on.
    pub(crate) async fn stops(&self, for_so_long: Duration) -> bool {
        for _ in 0..100 {
            if !self.goes_round(for_so_long).await {
                return true;
            }
        }
        false
    }
}

fn context(key: &str) -> AuthContext {
    let (host, origin, site, credential, rows) = Default::default();
    AuthContext {
        path: key.into(),
        key: key.into(),
        host,
        origin,
        site,
        cookies: false,
        credential,
        rows,
    }
}

/// Another task of the same runtime, which counts how often it has its turn.
#[derive(Default)]
pub(crate) struct OtherTask(Arc<AtomicUsize>);

impl OtherTask {
    pub(crate) fn start() -> Self {
        let other = Self::default();
        let counter = other.0.clone();
        tokio::spawn(async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        other
    }

    /// Its turns since this was asked last.
    pub(crate) fn turns(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A shard that hangs, on a lock that is not given back before this is dropped.
pub(crate) struct HungShard {
    let_go: Option<mpsc::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl HungShard {
    /// Hangs the shards of a topic.
    pub(crate) fn shards_of(lease: &Lease) -> Self {
        let topic = lease.topic().clone();
        let (let_go, held) = mpsc::channel::<()>();
        let (holds, is_held) = mpsc::channel();
        let holder = std::thread::spawn(move || {
            let state = topic.state();
            // The shards look at the state for what is new.
            topic.announce();
            holds.send(()).unwrap();
            let _ = held.recv();
            drop(state);
        });
        is_held.recv().unwrap();
        Self { let_go: Some(let_go), holder: Some(holder) }
    }
}

impl Drop for HungShard {
    fn drop(&mut self) {
        drop(self.let_go.take());
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}
