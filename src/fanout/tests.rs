//! What the parts of the fan-out have in common.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Socket;
use super::catchup::{CatchUp, DeliveryState, Phase, catch_up};
use super::testing::TestFanout;
use super::wire::WritePosition;

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn count(&self, word: &str) -> usize {
        let lines = self.0.lock().unwrap();
        String::from_utf8_lossy(&lines).lines().filter(|line| line.contains(word)).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// No epoll takes this.
fn unwatchable() -> Socket {
    Socket::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()))
}

#[tokio::test]
async fn what_happens_to_many_clients_at_once_is_warned_of_once() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
    let log = log.with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(log);
    let test = TestFanout::new();
    let delivery = || DeliveryState { last_id: None, live: true, source_down: false };
    for _ in 0..5 {
        let (subscriber, _lease) = test.unattached("events:a");
        test.fanout.join(unwatchable(), subscriber, 0, delivery());
        let (subscriber, _lease) = test.unattached("events:a");
        let phase = Phase::Ring(WritePosition::default());
        let machine = CatchUp::at(&subscriber, phase, delivery(), Vec::new());
        catch_up(&test.fanout, unwatchable(), subscriber, machine);
    }
    assert!(test.goes_round(Duration::from_secs(20)).await);
    test.fanout.tasks.close();
    test.fanout.tasks.wait().await;
    assert_eq!(lines.count("stream ended"), 10);
    assert_eq!(lines.count("WARN"), 1);
}
