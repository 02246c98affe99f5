//! When something is due for a subscriber, and what: its age, the end of its token, and the warning of it.

use std::time::{Duration, Instant};

use super::{Admitted, Subscriber};
use crate::auth::grant::GrantHandle;
use crate::sse::{Control, EndReason};
use crate::telemetry::metrics::DisconnectReason;

/// Whether a stream has stalled is looked at this often, once its time has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// To tell the client that its token expires.
    Warning(Control),
    /// To end the stream: with this in its closing frame, for this reason.
    End(Option<Control>, DisconnectReason),
}

impl Admitted {
    /// When the next deadline is; `None`: never. A subscriber whose grant was revoked has been due since it came.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.is_revoked() {
            return Some(self.opened);
        }
        let token = self.token.as_deref().map(|token| token.warn.unwrap_or(token.at));
        [self.expires, token].into_iter().flatten().min()
    }

    /// What is due now; a revoked grant or the end of a token comes first.
    pub(super) fn deadline(&self, now: Instant, draining: bool) -> Option<Deadline> {
        let is_over = |end: Instant| end <= now;
        let token = self.token.as_deref();
        if self.is_revoked() || token.is_some_and(|token| is_over(token.at)) {
            return Some(Deadline::End(Some(Control::Expired), DisconnectReason::Expired));
        }
        if self.expires.is_some_and(is_over) {
            let drain = Deadline::End(Some(Control::Drain), DisconnectReason::Drain);
            return Some(if draining {
                drain
            } else {
                Deadline::End(None, DisconnectReason::Rotated)
            });
        }
        let token = token.filter(|token| token.warn.is_some_and(is_over))?;
        let seconds = (token.at - now).as_secs_f64().ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a day at most"
        )]
        Some(Deadline::Warning(Control::Expiring { seconds: seconds as u64 }))
    }

    fn is_revoked(&self) -> bool {
        self.grant.as_ref().is_some_and(GrantHandle::is_revoked)
    }

    /// The warning was given.
    pub(super) fn warned(&mut self) {
        if let Some(token) = &mut self.token {
            token.warn = None;
        }
    }
}

impl Subscriber {
    /// When to look next whether the stream of a subscriber that is level with the tail has to end.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let stalled = self.stalled_at().map(|at| {
            let now = Instant::now();
            if at <= now { now + LOOK_INTERVAL } else { at }
        });
        [self.admitted.next_deadline(), stalled].into_iter().flatten().min()
    }

    /// The end of a stream that is level with the tail, and to which no entry came for its route's `stalled`. Only
    /// an answer after that time shows that none came: the source may be away without anybody knowing yet.
    pub(super) fn stalled_end(&self) -> Option<Deadline> {
        let at = self.stalled_at()?;
        let is_stalled = self.topic().state().delivered.is_some_and(|delivered| delivered >= at);
        let reason = EndReason::Stalled;
        let over = Deadline::End(Some(Control::End { reason }), DisconnectReason::Ended(reason));
        is_stalled.then_some(over)
    }

    fn stalled_at(&self) -> Option<Instant> {
        let stalled = Some(self.rules.stalled).filter(|stalled| !stalled.is_zero())?;
        let state = self.topic().state();
        let since = Some(self.admitted.opened).max(state.last_entry).max(state.reader_changed);
        since.map(|since| since + stalled)
    }
}
