//! Whether the fan-out still goes round: a probe travels to each shard and is back only once the shard's
//! loop has come to it. A task's mere existence proves nothing.

use std::convert::Infallible;

use tokio::sync::mpsc;

use super::Fanout;
use super::shard::Joining;

/// Nothing is ever sent: it has come back when it is dropped, by a shard that has ended as well.
pub(super) type Probe = mpsc::Sender<Infallible>;

/// What comes into a shard's loop from outside.
pub(super) enum ShardMessage {
    /// A client that is to stay.
    Subscriber(Joining),
    /// The question whether the loop goes round.
    Probe(Probe),
    /// That some of its clients may not stay.
    RecheckGrants,
}

impl Fanout {
    /// Returns once every shard that there is has gone round once more; an idle one does so at once, one
    /// that hangs never.
    pub async fn round(&self) {
        let (probe, mut all_back) = mpsc::channel(1);
        for shards in &self.shards {
            shards.iter().for_each(|shard| shard.deliver(ShardMessage::Probe(probe.clone())));
        }
        drop(probe);
        let None = all_back.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fanout::testing::{HungShard, TestFanout};

    /// Longer than a round takes anywhere.
    const LONG: Duration = Duration::from_secs(20);
    /// Long enough for a round where nothing hangs.
    const A_WHILE: Duration = Duration::from_millis(300);

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn idle_packs_and_none_at_all_go_round() {
        let test = TestFanout::new();
        assert!(test.goes_round(LONG).await);
        let _clients = ["a", "b", "b"].map(|key| test.subscriber(key));
        assert!(test.goes_round(LONG).await);
        assert_eq!(test.fanout.shards.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn one_pack_that_hangs_stops_the_round_until_it_goes_on() {
        let test = TestFanout::new();
        let subscribers = ["a", "b"].map(|key| test.subscriber(key));
        assert!(test.goes_round(LONG).await);
        let hung = HungShard::shards_of(&subscribers[0].1);
        assert!(test.stops(A_WHILE).await, "a pack hangs, and nobody noticed");
        drop(hung);
        assert!(test.goes_round(LONG).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_pack_that_ended_holds_nobody_up() {
        let test = TestFanout::new();
        let (_socket, lease) = test.subscriber("a");
        assert!(test.goes_round(LONG).await);
        lease.topic().closed.cancel();
        assert!(test.goes_round(LONG).await);
    }
}
