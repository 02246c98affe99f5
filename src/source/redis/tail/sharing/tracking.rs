//! A group whose server tells of keys that have changed (`CLIENT TRACKING`): nothing is asked of the other keys.
//!
//! To ask for a key is a read of it that finds nothing, a command for each: an error concerns that key alone. The order
//! makes it exact: first Redis is asked to tell of a key, then its reader reads.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::group_read;
use super::watch::{LOOKS, Watch};
use crate::source::Error;
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::seats::{Group, News, ToArm, Waiting};

/// So many keys are asked for in one exchange.
const ARMS: usize = 256;
/// So many streams in a row held entries that Redis did not tell of: it does not tell, or something in between does not
/// pass it on.
const SWALLOWED: u32 = 3;

/// The connection of a group, over which Redis tells of keys.
pub(super) struct Tracked<'a, 'b> {
    pub(super) watch: &'a mut Watch<'b>,
    group: &'a Group,
    /// Streams that held entries of which nothing was told, since something was.
    untold: u32,
}

impl<'a, 'b> Tracked<'a, 'b> {
    pub(super) fn new(watch: &'a mut Watch<'b>, group: &'a Group) -> Self {
        Self { watch, group, untold: 0 }
    }

    /// Whether what Redis should tell does not arrive.
    pub(super) fn is_swallowed(&self) -> bool {
        self.untold >= SWALLOWED
    }

    /// Looks at the streams that are due by then.
    pub(super) async fn look(&mut self, by: Instant) -> Result<(), Error> {
        let (light, heavy) = by_weight(self.group.looks(by));
        // It shows that the connection is alive, where no look does.
        self.ask_for(&heavy).await?;
        for waiting in &heavy {
            self.group.tell(waiting, News::Due);
        }
        for some in light.chunks(LOOKS) {
            let answers = self.watch.connection.ask(&group_read::looks(some)).await?;
            self.note_pushes();
            for (waiting, answer) in some.iter().zip(answers) {
                let last = group_read::last_entry(&answer);
                self.untold += u32::from(self.group.note_look(waiting, last));
                self.group.tell_look(waiting, News::Look(answer, self.watch.opened));
            }
            self.watch.connection.release_permit();
            // Looks at thousands of streams take long, and news do not wait for that.
            self.arm().await?;
        }
        Ok(())
    }

    /// Tells readers what Redis tells, for so long.
    pub(super) async fn wait(&mut self, length: Duration) -> Result<(), Error> {
        let end = Instant::now() + length;
        loop {
            self.arm().await?;
            if Instant::now() >= end || self.group.is_closed() {
                return Ok(());
            }
            if self.note_pushes() {
                continue;
            }
            let next = self.group.next_arming().map_or(end, |next| next.min(end));
            tokio::select! {
                pushed = self.watch.connection.pushed() => pushed?,
                () = self.group.has_newcomers() => {}
                () = sleep_until(next.into()) => {}
            }
            self.note_pushes();
        }
    }

    /// Whether Redis has told something.
    fn note_pushes(&mut self) -> bool {
        let pushes = self.watch.connection.take_pushes();
        for push in &pushes {
            match group_read::changed(push) {
                Some(group_read::Changed::Keys(keys)) => {
                    keys.for_each(|key| self.group.note_change(key));
                }
                Some(group_read::Changed::All) => self.group.note_change_of_all(),
                None => continue,
            }
            self.untold = 0;
        }
        !pushes.is_empty()
    }

    /// Asks Redis to tell of the keys that it does not tell of, and has their readers read what came before.
    async fn arm(&mut self) -> Result<(), Error> {
        let ToArm { stale, newcomers } = self.group.to_arm(Instant::now());
        if !stale.is_empty() {
            self.watch.tail.note_shared_read();
        }
        let (light, heavy) = by_weight(newcomers);
        for some in stale.chunks(ARMS).chain(heavy.chunks(ARMS)) {
            let answers = self.ask_for(some).await?;
            self.note_armed(some, answers, |_| News::Changed);
        }
        for some in light.chunks(LOOKS) {
            // A look is a read as well, and shows whether there is something to read.
            let answers = self.watch.connection.ask(&group_read::looks(some)).await?;
            let opened = self.watch.opened;
            self.note_armed(some, answers, |look| News::Look(look, opened));
            self.watch.connection.release_permit();
        }
        Ok(())
    }

    async fn ask_for(&mut self, keys: &[Waiting]) -> Result<Vec<Value>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.watch.connection.ask(&group_read::ends(keys)).await?;
        self.watch.connection.release_permit();
        Ok(answers)
    }

    fn note_armed(&self, asked_for: &[Waiting], answers: Vec<Value>, news: impl Fn(Value) -> News) {
        for (waiting, answer) in asked_for.iter().zip(answers) {
            if group_read::is_refused(&answer) {
                self.group.not_armed(waiting);
            } else {
                self.group.armed(waiting, news(answer));
            }
        }
    }
}

/// The streams at which a look is cheap, and the others.
fn by_weight(streams: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
    streams.into_iter().partition(|waiting| waiting.is_light)
}
