//! Whether the loop of every shard and hall still runs: a probe goes to each and comes back only once the loop has
//! come to it. That a task exists proves nothing.

use tokio::sync::mpsc;

use super::Fanout;
use super::crowd::HallMessage;
use super::shard::ShardMessage;

impl Fanout {
    /// Returns once the loop of every shard has run once more: an idle shard's at once, a hung shard's never.
    pub async fn every_shard_runs(&self) {
        let (probe, mut all_back) = mpsc::channel(1);
        self.tell_shards(|| ShardMessage::Probe(probe.clone()));
        for hall in &self.halls {
            hall.deliver(HallMessage::Probe(probe.clone()));
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
    async fn a_probe_passes_idle_shards_and_no_shards() {
        let test = TestFanout::new();
        assert!(test.goes_round(LONG).await);
        let _clients = ["a", "b", "b"].map(|key| test.subscriber(key));
        assert!(test.goes_round(LONG).await);
        assert_eq!(test.fanout.shards.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_hung_shard_stops_the_probe_until_it_goes_on() {
        let test = TestFanout::new();
        let subscribers = ["a", "b"].map(|key| test.subscriber(key));
        assert!(test.goes_round(LONG).await);
        let hung = HungShard::shards_of(&subscribers[0].1);
        assert!(test.stops(A_WHILE).await, "a shard hangs, and nobody noticed");
        drop(hung);
        assert!(test.goes_round(LONG).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_shard_that_ended_holds_up_no_probe() {
        let test = TestFanout::new();
        let (_socket, lease) = test.subscriber("a");
        assert!(test.goes_round(LONG).await);
        lease.topic().close();
        assert!(test.goes_round(LONG).await);
    }
}
