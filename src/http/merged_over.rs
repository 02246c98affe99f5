//! Whether a client that was admitted to several streams gets them, and where each begins: as `over.rs` says of one.
//! One that cannot be read now holds up no other, and there is no stream only where none of them has one.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::admission::StreamRequest;
use super::merged;
use super::over::{NoStream, Standing, standing, wait_for_tail};
use super::plan::MergedPlan;
use super::start_param::of_route;
use crate::config::{Absent, Ended, Replay, Route, RouteStart};
use crate::state::State;
use crate::stream::Lease;
use crate::stream::start::Start;

/// Where each part begins, once the source has told whether there is anything to follow.
pub(super) async fn find_starts(
    state: &State,
    stream: &StreamRequest,
    merged: &MergedPlan,
    leases: &[Lease],
) -> Result<Vec<Start>, NoStream> {
    let route = stream.route();
    let patience =
        if let Absent::NoContent(patience) = route.absent { patience } else { Duration::ZERO };
    find(state, route, merged, leases, patience).await
}

/// Whether there is anything to follow now, for who does not wait for a key.
pub(super) async fn is_any_there(
    state: &State,
    stream: &StreamRequest,
    parts: &MergedPlan,
) -> Result<(), NoStream> {
    let (_admitted, leases) = merged::admit(state, stream, parts).map_err(NoStream::Refused)?;
    find(state, stream.route(), parts, &leases, Duration::ZERO).await.map(drop)
}

async fn find(
    state: &State,
    route: &Route,
    merged: &MergedPlan,
    leases: &[Lease],
    patience: Duration,
) -> Result<Vec<Start>, NoStream> {
    let parts: Vec<_> =
        leases.iter().map(Lease::topic).zip(merged.parts.iter().map(|part| part.start)).collect();
    let tails = parts.iter().map(|(topic, asked)| wait_for_tail(topic, *asked));
    let tails: Vec<_> = all(tails, |_| false).await.into_iter().flatten().collect();
    if let Some(Err(reason)) = tails.first().filter(|_| tails.iter().all(Result::is_err)) {
        return Err(NoStream::Refused(reason));
    }
    let asked: Vec<Start> =
        parts.iter().zip(&tails).map(|((_, asked), tail)| known(route, *asked, tail)).collect();
    let look = async |patience| {
        let looks = parts.iter().zip(&asked);
        let looks =
            looks.map(|((topic, _), asked)| standing(state, route, topic, *asked, patience));
        all(looks, |found| matches!(found, Ok(Standing::GoesOn))).await
    };
    let mut found = look(Duration::ZERO).await;
    if !patience.is_zero() && !found.iter().copied().any(goes_on) {
        found = look(patience).await;
    }
    if found.contains(&Some(Err(NoStream::Refused("drain")))) {
        return Err(NoStream::Refused("drain"));
    }
    if found.iter().copied().any(goes_on) {
        return Ok(asked);
    }
    let found: Vec<Standing> = found.into_iter().flatten().flatten().collect();
    all_over(route, &asked, &found)
}

/// Whether a part holds the stream open: also one of which nobody can tell.
fn goes_on(found: Option<Result<Standing, NoStream>>) -> bool {
    !matches!(found, Some(Ok(Standing::Absent | Standing::Over(_))))
}

/// Where a part begins whose source could not tell where "now" is: with what comes from this time on.
fn known(route: &Route, asked: Start, tail: &Result<(), &'static str>) -> Start {
    let may_look_back = route.replay != Replay::Newest(0);
    match (asked, tail) {
        (Start::Live, Err(_)) if may_look_back => of_route(RouteStart::Back(Duration::ZERO)),
        (asked, _) => asked,
    }
}

fn all_over(route: &Route, asked: &[Start], found: &[Standing]) -> Result<Vec<Start>, NoStream> {
    let has = |standing: Standing| found.contains(&standing);
    let has_ended = has(Standing::Over(true)) || has(Standing::Over(false));
    match route.ended {
        Ended::Replay if has(Standing::Over(false)) => {}
        Ended::Replay if has_ended => return Err(NoStream::EndAgain),
        Ended::Replay | Ended::NoContent => return Err(NoStream::Over),
    }
    let again = asked.iter().zip(found).map(|(asked, found)| match found {
        Standing::Over(false) => of_route(route.start),
        _ => *asked,
    });
    Ok(again.collect())
}

/// Does all of it at once, and stops where one outcome is enough; the others are `None` then.
async fn all<F: Future>(
    work: impl Iterator<Item = F>,
    is_enough: impl Fn(&F::Output) -> bool,
) -> Vec<Option<F::Output>> {
    let mut work: Vec<Pin<Box<F>>> = work.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_all = true;
        for (work, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(outcome) = work.as_mut().poll(context)
            {
                *done = Some(outcome);
            }
            is_all &= done.is_some();
        }
        let enough = done.iter().flatten().any(&is_enough);
        if is_all || enough { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done
}
