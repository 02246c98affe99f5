//! The parts of a merged stream, polled in the task of their client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};

use super::MergedPart;
use super::composer::Composer;
use crate::fanout::catchup::{LeaveRequest, PartEnd, follow_part};
use crate::fanout::{Body, CatchUp, Fanout, Subscriber};

/// What fills each part's slot, and what was taken from that.
pub(super) struct Parts {
    followed: Vec<Followed>,
    /// The one that has its turn next.
    next: usize,
    leave: LeaveRequest,
}

struct Followed {
    /// `None`: it has ended.
    running: Option<Running>,
    body: Body,
    /// What the composer has not taken yet.
    piece: Bytes,
    /// How it ended; not told before its last piece is.
    end: Option<PartEnd>,
    /// Then: its subscriber, which holds the topic open.
    subscriber: Option<Subscriber>,
}

type Running = Pin<Box<dyn Future<Output = (PartEnd, Subscriber)> + Send>>;

/// What a part has for the composer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// The part has a piece.
    Piece(usize),
    /// The part has ended like this.
    End(usize, PartEnd),
}

impl Parts {
    pub(super) fn new(fanout: &Arc<Fanout>, parts: Vec<MergedPart>) -> Self {
        let leave = LeaveRequest::default();
        let followed = parts.into_iter().map(|MergedPart { subscriber, machine, .. }| {
            Followed::new(fanout, subscriber, machine, &leave)
        });
        Self { followed: followed.collect(), next: 0, leave }
    }

    /// Asks all parts to leave that are level with the tail: the subscriber of each with the item that comes next, if
    /// all of them are. Else they go on.
    pub(super) async fn leave_if_level(
        &mut self,
        fanout: &Arc<Fanout>,
    ) -> Option<Vec<(Subscriber, u64)>> {
        self.leave.set(true);
        std::future::poll_fn(|context| {
            self.poll(context, false);
            Poll::Ready(())
        })
        .await;
        self.leave.set(false);
        if self.followed.iter().all(|part| part.level().is_some()) {
            let left = self.followed.drain(..).filter_map(|part| part.subscriber.zip(part.end));
            let left = left.filter_map(|(subscriber, end)| match end {
                PartEnd::Level(seq, _) => Some((subscriber, seq)),
                _ => None,
            });
            return Some(left.collect());
        }
        for part in &mut self.followed {
            part.go_on(fanout, &self.leave);
        }
        None
    }

    /// Gives each part its turn; while the client takes nothing, none takes a further piece. Their slots keep no
    /// wakers: whoever takes a piece asks again.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, is_blocked: bool) {
        let parts = self.followed.len();
        // The runtime lets a task do so much at once: each part comes first at times.
        self.next = (self.next + 1) % parts.max(1);
        for index in (self.next..parts).chain(0..self.next) {
            self.followed[index].poll(context, is_blocked);
        }
    }

    /// What can be passed on now; while a client has half an event, only the rest of that.
    pub(super) fn ready(&self, amid: Option<usize>) -> Option<Ready> {
        let parts = self.followed.len();
        let mut in_turn = (self.next..parts).chain(0..self.next);
        in_turn.find_map(|index| {
            let part = &self.followed[index];
            let may_pass = amid.is_none_or(|amid| amid == index);
            let piece = (!part.piece.is_empty()).then_some(Ready::Piece(index));
            piece.or(part.end.map(|end| Ready::End(index, end))).filter(|_| may_pass)
        })
    }

    /// Passes on what a part has.
    pub(super) fn pass(
        &mut self,
        index: usize,
        composer: &mut Composer,
        finishes_only: bool,
        out: &mut Vec<u8>,
    ) {
        let piece = &mut self.followed[index].piece;
        let mut bytes = &piece[..];
        composer.take(index, &mut bytes, finishes_only, out);
        let taken = piece.len() - bytes.len();
        piece.advance(taken);
        if piece.is_empty() {
            // It may keep more alive than itself.
            *piece = Bytes::new();
        }
        self.next = (index + 1) % self.followed.len();
    }

    /// The end of a part was told.
    pub(super) fn forget_end(&mut self, index: usize) {
        self.followed[index].end = None;
    }
}

impl Followed {
    fn new(
        fanout: &Arc<Fanout>,
        subscriber: Subscriber,
        machine: CatchUp,
        leave: &LeaveRequest,
    ) -> Self {
        let (running, body) = follow_part(fanout, subscriber, machine, leave.clone());
        let running: Running = Box::pin(running);
        let piece = Bytes::new();
        Self { running: Some(running), body, piece, end: None, subscriber: None }
    }

    /// The item that comes next, where it has left as it was asked to and nothing of it is left to be passed on.
    fn level(&self) -> Option<u64> {
        match self.end {
            Some(PartEnd::Level(seq, _)) if self.piece.is_empty() => Some(seq),
            _ => None,
        }
    }

    /// Goes on where it has left, which is ahead of its client by what was not taken.
    fn go_on(&mut self, fanout: &Arc<Fanout>, leave: &LeaveRequest) {
        let Some(PartEnd::Level(seq, delivery)) = self.end else { return };
        let Some(subscriber) = self.subscriber.take() else { return };
        let machine = CatchUp::goes_on_at(&subscriber, seq, delivery);
        // What was taken of its slot, and what is still in there.
        let pieces = [Some(std::mem::take(&mut self.piece)), self.body.take()];
        let piece = Bytes::from(pieces.into_iter().flatten().collect::<Vec<_>>().concat());
        *self = Self { piece, ..Self::new(fanout, subscriber, machine, leave) };
    }

    fn poll(&mut self, context: &mut Context<'_>, is_blocked: bool) {
        loop {
            if let Some(running) = &mut self.running
                && let Poll::Ready((end, subscriber)) = running.as_mut().poll(context)
            {
                (self.running, self.end) = (None, Some(end));
                self.subscriber = Some(subscriber);
            }
            if is_blocked || !self.piece.is_empty() {
                return;
            }
            match self.body.take() {
                // There is room for the next one.
                Some(piece) => self.piece = piece,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::testing::TestFanout;
    use crate::sse::{Entry, StreamId};
    use crate::stream::Item;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    #[tokio::test]
    async fn a_part_goes_on_after_what_it_has_written_and_its_client_lacks() {
        let test = TestFanout::new();
        let part = |key: &str| {
            let (subscriber, lease) = test.unattached(key);
            lease.topic().start_generation(id(10));
            let machine = CatchUp::level_at(&subscriber, 0, id(10));
            (MergedPart { name: key.into(), subscriber, machine }, lease)
        };
        let (ahead, lease) = part("a");
        let (other, _held) = part("b");
        let mut parts = Parts::new(&test.fanout, vec![ahead, other]);
        let fields = vec![("payload".into(), "new".to_owned().into())];
        lease.topic().push(&[Item::Entry(Entry { id: id(20), fields })], 1000);
        // Nobody takes the piece: twice it is asked to leave, and goes on.
        for _ in 0..2 {
            assert!(parts.leave_if_level(&test.fanout).await.is_none());
            assert!(!parts.followed[0].piece.is_empty());
        }
        parts.leave.set(true);
        std::future::poll_fn(|context| {
            parts.poll(context, false);
            Poll::Ready(())
        })
        .await;
        let Some(PartEnd::Level(seq, delivery)) = parts.followed[0].end else {
            panic!("it has left: {:?}", parts.followed[0].end)
        };
        assert_eq!((seq, delivery.last_id), (1, Some(id(20))));
    }
}
