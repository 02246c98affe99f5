//! The parts of a merged stream, polled in the task of their client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};

use super::MergedPart;
use super::composer::Composer;
use crate::fanout::catchup::{PartEnd, follow_part};
use crate::fanout::{Body, Fanout};

/// What fills each part's slot, and what was taken from that.
pub(super) struct Parts {
    followed: Vec<Followed>,
    /// The one that has its turn next.
    next: usize,
}

struct Followed {
    /// `None`: it has ended.
    running: Option<Pin<Box<dyn Future<Output = PartEnd> + Send>>>,
    body: Body,
    /// What the composer has not taken yet.
    piece: Bytes,
    /// How it ended; not told before its last piece is.
    end: Option<PartEnd>,
}

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
        let followed = parts.into_iter().map(|MergedPart { subscriber, machine, .. }| {
            let (running, body) = follow_part(fanout, subscriber, machine);
            let running: Pin<Box<dyn Future<Output = PartEnd> + Send>> = Box::pin(running);
            Followed { running: Some(running), body, piece: Bytes::new(), end: None }
        });
        Self { followed: followed.collect(), next: 0 }
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
    fn poll(&mut self, context: &mut Context<'_>, is_blocked: bool) {
        loop {
            if let Some(running) = &mut self.running
                && let Poll::Ready(end) = running.as_mut().poll(context)
            {
                (self.running, self.end) = (None, Some(end));
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
