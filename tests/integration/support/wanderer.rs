//! Clients that join, stall, leave and come back, while something is written.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ssegate::sse::parse::{Event, Item};

use super::client::Client;
use super::gateway::Gateway;
use super::pause_of_the_scenario;

/// A client that hears no event for so long, when nothing is written any more, has all.
const QUIET: Duration = Duration::from_millis(2500);

/// What a client asks for, and what it makes of that.
pub trait Wanderer: Send {
    /// The path, and lines of the head, as it comes or comes back.
    fn asks(&mut self, random: &mut Rng) -> (String, String);

    /// It hears of this.
    fn hears(&mut self, event: &Event);

    /// Asks one of these gateways, through a window that is soon full.
    fn comes(&mut self, gateways: &[Gateway], random: &mut Rng) -> Client {
        let (path, headers) = self.asks(random);
        let address = &random.choice(gateways).unwrap().address;
        Client::with_small_window_and(address, &path, &headers)
    }
}

/// The lines of a head that resume after this id; empty: after none.
pub fn resuming(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") }
}

/// Lets each of these come, and stay for up to `longest`, as often as it can while `write` writes; then each hears all
/// that is left.
pub fn wander<W: Wanderer>(
    mut wanderers: Vec<W>,
    longest: Duration,
    mut random: Rng,
    comes: impl Fn(&mut W, &mut Rng) -> Client + Sync,
    write: impl FnOnce(Rng),
) -> Vec<W> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for wanderer in &mut wanderers {
            let (over, comes, random) = (&over, &comes, random.fork());
            scope.spawn(move || wander_alone(wanderer, longest, over, comes, random));
        }
        let written = catch_unwind(AssertUnwindSafe(|| write(random.fork())));
        over.store(true, Ordering::Relaxed);
        written.unwrap_or_else(|panic| resume_unwind(panic));
    });
    wanderers
}

fn wander_alone<W: Wanderer>(
    wanderer: &mut W,
    longest: Duration,
    over: &AtomicBool,
    comes: impl Fn(&mut W, &mut Rng) -> Client,
    mut random: Rng,
) {
    let mut knows_that_it_is_over = false;
    loop {
        let mut client = comes(wanderer, &mut random);
        let leaves = Instant::now() + longest.mul_f64(random.f64());
        let mut heard = Instant::now();
        loop {
            let is_over = over.load(Ordering::Relaxed);
            if is_over && !std::mem::replace(&mut knows_that_it_is_over, true) {
                // What was quiet before counts for nothing.
                heard = Instant::now();
            }
            if !is_over && Instant::now() > leaves {
                break;
            }
            match client.next_within(Duration::from_millis(20)) {
                Some(Item::Event(event)) => {
                    wanderer.hears(&event);
                    heard = Instant::now();
                }
                _ if is_over && heard.elapsed() > QUIET => return,
                _ if client.has_ended() => break,
                _ => {}
            }
            if random.u8(..200) == 0 {
                pause_of_the_scenario(Duration::from_millis(random.u64(..400)), "it stalls");
            }
        }
    }
}
