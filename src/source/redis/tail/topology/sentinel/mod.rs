//! The servers that sentinels name, watched all the time: after a failover, the old primary may still answer.
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::node::{Node, Purpose, suspicion};
use crate::config::Address;
use crate::source::redis::tail::client::{Link, Login, in_time};
use crate::source::{Error, ErrorClass};

mod view;

use view::SentinelView;

/// Each sentinel is asked at this interval,
const INTERVAL: Duration = Duration::from_secs(1);
/// at this one while there is trouble,
const TROUBLE_INTERVAL: Duration = Duration::from_millis(250);
/// which lasts for this long after a server failed.
const TROUBLE: Duration = Duration::from_secs(10);
/// A sentinel has this long to answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// All have this long to be asked anew: a question under way, the pause, and another question.
const CONFIRMATION: Duration = Duration::from_secs(3);
/// A sentinel's answer counts for this long, if most sentinels have answered since. Sentinels tell one another
/// of a failover every 2 s.
const FRESH: Duration = Duration::from_secs(10);

/// The sentinels of one primary, watched from the first question on.
pub(crate) struct Sentinels {
    watcher: Arc<Watcher>,
    /// A task for each sentinel; they end when this is dropped.
    watching: OnceLock<JoinSet<()>>,
}

struct Watcher {
    addresses: Vec<Address>,
    name: String,
    login: Login,
    reads_replicas: bool,
    /// Held for one look at a time, never across an await.
    state: Mutex<SentinelState>,
    /// `None` until a sentinel has answered, or all have failed.
    chosen: watch::Sender<Option<Result<Chosen, Error>>>,
    trouble: Notify,
    /// Notified after each answer or failure.
    asked: Notify,
}

/// A sentinel's last answer, and when it came; or its failure, if it has never answered.
type Answer = Result<(Instant, SentinelView), Error>;

#[derive(Default)]
struct SentinelState {
    /// By sentinel.
    answers: Vec<Option<Answer>>,
    /// By sentinel: when the last question began that it has answered, or failed to.
    asked_at: Vec<Option<Instant>>,
    in_trouble_since: Option<Instant>,
    /// Replicas that are not read from until then, if there is another one.
    suspects: Vec<(Instant, Address)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    primary: Address,
    reading: Address,
}

impl Sentinels {
    pub(super) fn new(
        addresses: Vec<Address>,
        name: &str,
        login: Login,
        reads_replicas: bool,
    ) -> Self {
        let answers = vec![None; addresses.len()];
        let asked_at = vec![None; addresses.len()];
        let watcher = Watcher {
            addresses,
            name: name.to_owned(),
            login,
            reads_replicas,
            state: Mutex::new(SentinelState { answers, asked_at, ..SentinelState::default() }),
            chosen: watch::Sender::new(None),
            trouble: Notify::new(),
            asked: Notify::new(),
        };
        Self { watcher: Arc::new(watcher), watching: OnceLock::new() }
    }

    pub(super) async fn find(&self, purpose: Purpose) -> Result<Node, Error> {
        self.watching.get_or_init(|| self.watcher.clone().watch());
        let mut chosen = self.watcher.chosen.subscribe();
        let chosen = chosen.wait_for(Option::is_some).await.expect("self holds the sender");
        let chosen = chosen.clone().expect("wait_for has seen it")?;
        let address = if purpose == Purpose::Primary { &chosen.primary } else { &chosen.reading };
        let must_be_primary = *address == chosen.primary;
        Ok(Node { must_be_primary, ..Node::at(address.clone()) })
    }

    /// The primary that the sentinels name now; `None`: they were not asked yet, or none has answered.
    pub(super) fn primary(&self) -> Option<Address> {
        let chosen = self.watcher.chosen.borrow();
        chosen.as_ref()?.as_ref().ok().map(|chosen| chosen.primary.clone())
    }

    /// Asks every sentinel anew; fails if they name another server than `node` by now.
    ///
    /// A primary that was replaced while it was down takes itself for the primary at first when it comes back,
    /// and it may come back empty. Where no sentinel answers, the last answer stands.
    pub(super) async fn confirm(&self, node: &Node) -> Result<(), Error> {
        let since = Instant::now();
        self.watcher.look_closer();
        let _ = timeout(CONFIRMATION, self.watcher.all_asked(since)).await;
        let chosen = self.watcher.chosen.borrow().clone();
        match chosen {
            Some(Ok(chosen)) if ![&chosen.primary, &chosen.reading].contains(&&node.address) => {
                Err(replaced(node))
            }
            _ => Ok(()),
        }
    }

    /// Returns once the sentinels name another server than `node` to read from.
    pub(super) async fn replaced(&self, node: &Node) {
        let mut chosen = self.watcher.chosen.subscribe();
        let is_another = |chosen: &Option<Result<Chosen, Error>>| matches!(chosen, Some(Ok(chosen)) if chosen.reading != node.address);
        let _ = chosen.wait_for(is_another).await;
    }

    /// Returns once the sentinels name other servers than they do now.
    pub(super) async fn changed(&self) {
        let mut chosen = self.watcher.chosen.subscribe();
        while chosen.changed().await.is_ok() {
            if matches!(&*chosen.borrow_and_update(), Some(Ok(_))) {
                return;
            }
        }
    }

    /// As if the first sentinel had answered so.
    #[cfg(test)]
    pub(crate) fn hear(&self, epoch: u64, primary: Address) {
        self.watcher.note(
            0,
            Instant::now(),
            Ok(SentinelView { epoch, primary, replicas: Vec::new() }),
        );
    }

    /// Suspects `node`, and asks the sentinels more often for a while.
    pub(super) fn report_failure(&self, node: &Node, error: &Error) {
        if error.class != ErrorClass::Away {
            return;
        }
        let mut state = self.watcher.state();
        state.suspects.retain(|(_, address)| *address != node.address);
        state.suspects.push((Instant::now() + suspicion(error), node.address.clone()));
        drop(state);
        self.watcher.choose();
        self.watcher.look_closer();
    }
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, SentinelState> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn watch(self: Arc<Self>) -> JoinSet<()> {
        (0..self.addresses.len()).map(|index| self.clone().watch_one(index)).collect()
    }

    /// Asks the sentinels now, and more often for a while.
    fn look_closer(&self) {
        self.state().in_trouble_since = Some(Instant::now());
        self.trouble.notify_waiters();
    }

    /// Returns once each sentinel was asked anew after `since`, and has answered or failed.
    async fn all_asked(&self, since: Instant) {
        loop {
            let mut asked = pin!(self.asked.notified());
            asked.as_mut().enable();
            if self.state().asked_at.iter().all(|at| at.is_some_and(|at| at >= since)) {
                return;
            }
            asked.await;
        }
    }

    /// Asks one sentinel again and again. All are asked, for a single one may be cut off and behind.
    async fn watch_one(self: Arc<Self>, index: usize) {
        let mut link = None;
        loop {
            let began = Instant::now();
            let answer = in_time(TIMEOUT, "SENTINEL", self.ask(index, &mut link)).await;
            if answer.is_err() {
                link = None;
            }
            self.note(index, began, answer);
            let since = self.state().in_trouble_since;
            let in_trouble = since.is_some_and(|since| since.elapsed() < TROUBLE);
            let interval = if in_trouble { TROUBLE_INTERVAL } else { INTERVAL };
            tokio::select! {
                () = sleep(interval) => {}
                () = self.trouble.notified(), if !in_trouble => {}
            }
        }
    }

    async fn ask(&self, index: usize, link: &mut Option<Link>) -> Result<SentinelView, Error> {
        let address = &self.addresses[index];
        let link = if let Some(link) = link {
            link
        } else {
            let opened = Link::open(address, &self.login).await;
            link.insert(opened.map_err(|error| view::refused(error, address))?)
        };
        let answer = view::ask(link, address, &self.name).await;
        answer.map_err(|error| view::refused(error, address))
    }

    fn note(&self, index: usize, began: Instant, answer: Result<SentinelView, Error>) {
        let mut state = self.state();
        state.asked_at[index] = Some(began);
        match (answer, &state.answers[index]) {
            // The last answer of a sentinel that fails now is still the best that it gave.
            (Err(_), Some(Ok(_))) => {}
            (answer, _) => state.answers[index] = Some(answer.map(|view| (Instant::now(), view))),
        }
        drop(state);
        self.choose();
        self.asked.notify_waiters();
    }

    /// Chooses the servers by the sentinels' answers.
    fn choose(&self) {
        let state = self.state();
        let Some(view) = latest(&state.answers) else {
            let all: Option<Vec<_>> = state.answers.iter().cloned().collect();
            let failure = all.and_then(|all| all.into_iter().find_map(Result::err));
            if let Some(error) = failure {
                self.chosen.send_replace(Some(Err(error)));
            }
            return;
        };
        self.chosen.send_if_modified(|chosen| {
            let now = chosen.as_ref().and_then(|chosen| chosen.as_ref().ok());
            let reading = self.choose_reading(view, now.map(|now| &now.reading), &state.suspects);
            let next = Chosen { primary: view.primary.clone(), reading };
            if now == Some(&next) {
                return false;
            }
            tracing::info!(primary = %next.primary, reading = %next.reading, "the sentinels name the primary");
            *chosen = Some(Ok(next));
            true
        });
    }

    /// The server to read from: a healthy replica, and the same one for as long as it is healthy.
    fn choose_reading(
        &self,
        view: &SentinelView,
        now: Option<&Address>,
        suspects: &[(Instant, Address)],
    ) -> Address {
        if !self.reads_replicas {
            return view.primary.clone();
        }
        let is_suspect = |address: &&Address| {
            suspects.iter().any(|(until, suspect)| suspect == *address && Instant::now() < *until)
        };
        let healthy: Vec<_> = view.replicas.iter().filter(|address| !is_suspect(address)).collect();
        let chosen = now.filter(|now| healthy.contains(now));
        let chosen = chosen.or_else(|| fastrand::choice(&healthy).copied());
        chosen.unwrap_or(&view.primary).clone()
    }
}

fn replaced(node: &Node) -> Error {
    let message = format!("{} is no longer the server that the sentinels name", node.address);
    Error { class: ErrorClass::Away, code: "FAILOVER", message }
}

/// The answer to believe: that of the sentinel which knows of the latest failover.
///
/// The answer of a sentinel that fell silent still counts, or its death would undo the failover that it was
/// the first to report. It stops counting after [`FRESH`] if most sentinels have answered since: they may
/// have been set up again, and count failovers from 0.
///
/// That never leads back to an old primary. A failover takes the votes of most sentinels, so in any majority
/// at least one has voted, and it hears of the outcome well before [`FRESH`] is over. A minority that is cut
/// off together with an old primary is no majority, and changes nothing.
fn latest(answers: &[Option<Answer>]) -> Option<&SentinelView> {
    let views = || answers.iter().flatten().filter_map(|answer| answer.as_ref().ok());
    let is_fresh = |when: &Instant| when.elapsed() < FRESH;
    let most_are = views().filter(|(when, _)| is_fresh(when)).count() * 2 > answers.len();
    let believed = views().filter(|(when, _)| is_fresh(when) || !most_are);
    believed.max_by_key(|(when, view)| (view.epoch, *when)).map(|(_, view)| view)
}

#[cfg(test)]
mod tests;
