//! When a client is due, and for what: its stream's age, its token's end and the warning of it.

use std::time::Instant;

use super::Subscriber;
use crate::sse::Control;
use crate::telemetry::metrics::DisconnectReason;

/// What a client is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// To be told that its token expires.
    Warning(Control),
    /// To go: with these last words, for this reason.
    End(Option<Control>, DisconnectReason),
}

impl Subscriber {
    /// When there is next something to be done; never, where nothing is. Whoever may not stay has been
    /// due since it came.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.grant.is_revoked() {
            return Some(self.opened);
        }
        let token = self.token.as_deref().map(|token| token.warn.unwrap_or(token.at));
        [self.expires, token].into_iter().flatten().min()
    }

    /// What is to be done now; the end of a token, or of its being good for the stream, comes first.
    pub(super) fn due(&self, now: Instant, draining: bool) -> Option<Deadline> {
        let is_over = |end: Instant| end <= now;
        let token = self.token.as_deref();
        if self.grant.is_revoked() || token.is_some_and(|token| is_over(token.at)) {
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

    /// The warning was given.
    pub(super) fn warned(&mut self) {
        if let Some(token) = &mut self.token {
            token.warn = None;
        }
    }
}
