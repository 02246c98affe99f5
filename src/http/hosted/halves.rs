//! Both halves of a stream, run in one task.

use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use crate::fanout::{BodyEnd, CatchUpHalf};

/// Which half ended first.
enum First<T> {
    CatchUp(BodyEnd),
    Hyper(T),
}

/// Runs the hyper half, and the catch-up half once `opened` returns one, to the end of both. A client is cut
/// by dropping the hyper half; otherwise the client has `write_stall` to take the end of the body. Once the head is
/// written, `begun` tells hyper what comes after the body.
pub(super) async fn run_both<H: Future>(
    hyper: H,
    mut opened: impl FnMut() -> Option<CatchUpHalf>,
    mut begun: impl FnMut(Pin<&mut H>),
    write_stall: Duration,
) -> Option<H::Output> {
    let mut hyper = pin!(Some(hyper));
    let mut catch_up: Option<CatchUpHalf> = None;
    // By hand, not with `select!`: the halves share a slot without wakers, so where hyper has taken the
    // piece, the catch-up half is polled again at once.
    let first = std::future::poll_fn(|context| {
        loop {
            if let Some(half) = &mut catch_up
                && let Poll::Ready(end) = Pin::new(half).poll(context)
            {
                return Poll::Ready(First::CatchUp(end));
            }
            let running = hyper.as_mut().as_pin_mut();
            let mut running = running.expect("it is dropped below, not before");
            if let Poll::Ready(output) = running.as_mut().poll(context) {
                return Poll::Ready(First::Hyper(output));
            }
            let is_new = catch_up.is_none();
            catch_up = catch_up.take().or_else(&mut opened);
            if is_new && catch_up.is_some() {
                begun(running);
            }
            if !catch_up.as_ref().is_some_and(|half| is_new || half.can_go_on()) {
                return Poll::Pending;
            }
            // Else this would go on for ever: without it each half, asked again, puts its turn off.
            if !has_budget_remaining() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    });
    match first.await {
        First::CatchUp(BodyEnd::Part) => None,
        First::CatchUp(BodyEnd::All) => {
            let running = hyper.as_mut().as_pin_mut()?;
            timeout(write_stall, running).await.ok()
        }
        First::Hyper(output) => {
            // The body goes with it: so the catch-up half learns that the client has left.
            hyper.set(None);
            if let Some(half) = catch_up.or_else(opened) {
                half.await;
            }
            Some(output)
        }
    }
}
