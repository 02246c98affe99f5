//! Whether the fan-out still goes round: a probe travels to each pack and is back only once the pack's
//! loop has come to it. A task's mere existence proves nothing.

use std::convert::Infallible;

use tokio::sync::mpsc;

use super::Fanout;
use super::shard::Arrival;

/// Nothing is ever sent: it has come back when it is dropped, by a pack that has ended as well.
pub(super) type Probe = mpsc::Sender<Infallible>;

/// What comes into a pack's loop from outside.
pub(super) enum Visitor {
    /// A client that is to stay.
    Client(Arrival),
    /// The question whether the loop goes round.
    Probe(Probe),
    /// That some of its clients may not stay.
    Recall,
}

impl Fanout {
    /// Returns once every pack that there is has gone round once more; an idle one does so at once, one
    /// that hangs never.
    pub async fn round(&self) {
        let (probe, mut all_back) = mpsc::channel(1);
        for packs in &self.packs {
            packs.iter().for_each(|pack| pack.visit(Visitor::Probe(probe.clone())));
        }
        drop(probe);
        let None = all_back.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fanout::testing::{Hung, World};

    /// Longer than a round takes anywhere.
    const LONG: Duration = Duration::from_secs(20);
    /// Long enough for a round where nothing hangs.
    const A_WHILE: Duration = Duration::from_millis(300);

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn idle_packs_and_none_at_all_go_round() {
        let world = World::new();
        assert!(world.goes_round(LONG).await);
        let _clients = ["a", "b", "b"].map(|key| world.client(key));
        assert!(world.goes_round(LONG).await);
        assert_eq!(world.fanout.packs.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn one_pack_that_hangs_stops_the_round_until_it_goes_on() {
        let world = World::new();
        let clients = ["a", "b"].map(|key| world.client(key));
        assert!(world.goes_round(LONG).await);
        let hung = Hung::packs_of(&clients[0].1);
        assert!(world.stops(A_WHILE).await, "a pack hangs, and nobody noticed");
        drop(hung);
        assert!(world.goes_round(LONG).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn a_pack_that_ended_holds_nobody_up() {
        let world = World::new();
        let (_socket, lease) = world.client("a");
        assert!(world.goes_round(LONG).await);
        lease.topic().closed.cancel();
        assert!(world.goes_round(LONG).await);
    }
}
