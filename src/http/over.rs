//! Whether a client that was admitted gets a stream: the stream may be over, or its key may not be there.

use std::time::Duration;

use tokio::time::timeout;

use super::admission::StreamRequest;
use super::start_param;
use crate::config::{Absent, Ended, Route};
use crate::sse::StreamId;
use crate::state::State;
use crate::stream::start::Start;
use crate::stream::{Lease, ReaderState, StreamEnd, Topic};

/// A live start on a key whose tail is not known waits this long for the source.
const TAIL_WAIT: Duration = Duration::from_secs(2);
/// Whether a key has come is looked at this often, besides when its reader has news.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Why a client that was admitted gets no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    /// It cannot be served now.
    Refused(&'static str),
    /// The stream is over, or there is none.
    Over,
    /// The same, and the client is to hear of the end again.
    EndAgain,
}

/// Where the client's stream begins, once the source has told whether there is one.
pub(super) async fn find_start(
    state: &State,
    stream: &StreamRequest,
    lease: &Lease,
) -> Result<Start, NoStream> {
    let absent = stream.route().absent;
    let patience = if let Absent::NoContent(patience) = absent { patience } else { Duration::ZERO };
    find(state, stream, lease, patience).await
}

/// What the source says of a stream that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is one, or nobody can tell: the stream will.
    GoesOn,
    /// There is no key.
    Absent,
    /// It is over for this client; and whether its key is gone.
    Over(bool),
}

/// Whether there is one now, for who does not wait for the key.
pub(super) async fn is_there(
    state: &State,
    stream: &StreamRequest,
    lease: &Lease,
) -> Result<(), NoStream> {
    find(state, stream, lease, Duration::ZERO).await.map(drop)
}

async fn find(
    state: &State,
    stream: &StreamRequest,
    lease: &Lease,
    patience: Duration,
) -> Result<Start, NoStream> {
    let (asked, route, topic) = (stream.plan.start, stream.route(), lease.topic());
    wait_for_tail(topic, asked).await.map_err(NoStream::Refused)?;
    match (standing(state, route, topic, asked, patience).await?, route.ended) {
        (Standing::GoesOn, _) => Ok(asked),
        (Standing::Absent, _) | (_, Ended::NoContent) => Err(NoStream::Over),
        (Standing::Over(true), Ended::Replay) => Err(NoStream::EndAgain),
        (Standing::Over(false), Ended::Replay) => Ok(start_param::of_route(route.start)),
    }
}

/// How the stream of `topic` is for a client that asks to begin there; its key is waited for no longer than this.
pub(super) async fn standing(
    state: &State,
    route: &Route,
    topic: &Topic,
    asked: Start,
    patience: Duration,
) -> Result<Standing, NoStream> {
    if topic.state().reader != ReaderState::Up {
        return Ok(Standing::GoesOn);
    }
    let has_heard = matches!(asked, Start::After(id) if id != StreamId::ZERO);
    let end = route.rules.end();
    if route.absent != Absent::Wait && !(has_heard && end.is_some()) {
        match wait_for_key(state, topic, patience).await {
            // Its reader may be behind.
            Err(NoStream::Over) if !is_absent(state, topic).await => {}
            Err(NoStream::Over) => return Ok(Standing::Absent),
            outcome => outcome?,
        }
    }
    let at = match asked {
        Start::After(id) => Some(id),
        Start::Live => None,
        _ => return Ok(Standing::GoesOn),
    };
    let Some(marker) = end else { return Ok(Standing::GoesOn) };
    let end = timeout(TAIL_WAIT, state.fanout.replays.end(topic, marker, at)).await;
    let (is_over, is_gone) = match end {
        Ok(Ok(StreamEnd::Ended(end))) => (at.is_none_or(|at| at >= end), false),
        Ok(Ok(StreamEnd::Absent | StreamEnd::Gone)) => (has_heard, has_heard),
        Ok(Ok(StreamEnd::Open) | Err(_)) | Err(_) => (false, false),
    };
    Ok(if is_over { Standing::Over(is_gone) } else { Standing::GoesOn })
}

/// Waits until the topic knows its tail; an error's code where the key cannot be read.
pub(super) async fn wait_for_tail(topic: &Topic, start: Start) -> Result<(), &'static str> {
    let is_start_known = matches!(start, Start::After(_) | Start::Since(_) | Start::Earliest);
    let mut news = topic.subscribe();
    let known = async {
        loop {
            if let Some(outcome) = tail_known(topic, is_start_known) {
                return outcome;
            }
            // An error says that news was missed, which is news as well.
            let _ = news.recv().await;
        }
    };
    match timeout(TAIL_WAIT, known).await {
        Ok(outcome) => outcome,
        Err(_) if is_start_known => Ok(()),
        Err(_) => Err("source"),
    }
}

fn tail_known(topic: &Topic, is_start_known: bool) -> Option<Result<(), &'static str>> {
    let state = topic.state();
    match state.reader {
        ReaderState::Refused(code) => Some(Err(code)),
        // Only now: the source may soon say that the key cannot be read, so a known start waits, too.
        ReaderState::Away(_) if is_start_known => Some(Ok(())),
        _ if state.ring.generation() > 0 => Some(Ok(())),
        _ => None,
    }
}

async fn is_absent(state: &State, topic: &Topic) -> bool {
    matches!(timeout(TAIL_WAIT, state.fanout.replays.is_absent(topic)).await, Ok(Ok(true)))
}

/// Waits until the key is there, but no longer than this, and not while the gateway drains.
async fn wait_for_key(state: &State, topic: &Topic, patience: Duration) -> Result<(), NoStream> {
    let mut news = topic.subscribe();
    let here = async {
        loop {
            {
                let topic = topic.state();
                match topic.reader {
                    ReaderState::Refused(code) => return Err(NoStream::Refused(code)),
                    ReaderState::Up if !topic.exists() => {}
                    // If the source is away, the stream will tell.
                    _ => return Ok(()),
                }
            }
            // A lagged channel is news as well.
            let _ = timeout(LOOK_INTERVAL, news.recv()).await;
        }
    };
    tokio::select! {
        here = timeout(patience, here) => here.unwrap_or(Err(NoStream::Over)),
        () = state.fanout.draining.cancelled() => Err(NoStream::Refused("drain")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::testing::TestFanout;

    /// Else its client would get a stream where there is none: nobody asks for the end of one that may be away.
    #[test]
    fn a_reader_is_up_where_its_tail_is_known() {
        let test = TestFanout::new();
        for round in 0..500 {
            let (_held, lease) = test.unattached(&round.to_string());
            let topic = lease.topic();
            std::thread::scope(|scope| {
                scope.spawn(|| topic.begin(StreamId::ZERO));
                while tail_known(topic, true).is_none() {
                    std::hint::spin_loop();
                }
                let reader = topic.state().reader.clone();
                assert_eq!(reader, ReaderState::Up, "round {round}");
            });
        }
    }
}
