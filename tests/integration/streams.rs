//! What a client gets, the same from both sources.

use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::Redis;

#[test]
fn live_entries_arrive_from_both_sources() {
    let redis = Redis::start();
    for setup in [Setup::memory(), Setup::redis(&redis)] {
        let gateway = setup.start_ready();
        let mut client = Client::open(&gateway.address, "/events/a");
        assert_eq!(client.live(), (0, "0-0".into()));
        let id = gateway.publish("events:a", "one");
        let event = client.entry();
        assert_eq!((event.data.as_str(), event.last_event_id), ("one", id));
    }
}
