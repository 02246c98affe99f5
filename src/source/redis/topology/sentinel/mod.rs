//! The server that sentinels name, watched: after a failover the old one may still answer.
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::node::{Node, Purpose, about_no_key, suspicion};
use crate::config::Address;
use crate::source::redis::client::replies::{answered, bytes, garbled, list, text};
use crate::source::redis::client::request::Request;
use crate::source::redis::client::resp::Value;
use crate::source::redis::client::{Link, Login, in_time};
use crate::source::{Error, ErrorClass};

/// Each sentinel is asked this often,
const INTERVAL: Duration = Duration::from_secs(1);
/// this often where something is wrong,
const INTERVAL_IN_TROUBLE: Duration = Duration::from_millis(250);
/// and this long after something went wrong that is taken to be so.
const TROUBLE: Duration = Duration::from_secs(10);
/// A sentinel that takes longer has not answered.
const TIMEOUT: Duration = Duration::from_secs(1);
/// What a sentinel said counts for this long, if most of them have said something meanwhile. They tell one
/// another of a failover every 2 s.
const FRESH: Duration = Duration::from_secs(10);

/// The sentinels of one primary, watched once somebody wants to know.
pub(in crate::source::redis) struct Sentinels {
    shared: Arc<Watcher>,
    /// The watch; it ends with this.
    watching: OnceLock<JoinSet<()>>,
}

struct Watcher {
    addresses: Vec<Address>,
    name: String,
    login: Login,
    replica: bool,
    state: Mutex<SentinelState>,
    /// `None`: nobody has answered, nor failed to.
    chosen: watch::Sender<Option<Result<Chosen, Error>>>,
    trouble: Notify,
}

#[derive(Default)]
struct SentinelState {
    /// What each sentinel said last, and when.
    said: Vec<Option<Result<(Instant, SentinelView), Error>>>,
    in_trouble: Option<Instant>,
    /// Replicas that are not read from until then, if there is another.
    suspects: Vec<(Instant, Address)>,
}

/// What a sentinel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SentinelView {
    /// Counts failovers: the highest is the latest.
    epoch: u64,
    primary: Address,
    /// Those that follow it and are well.
    replicas: Vec<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    primary: Address,
    reading: Address,
}

impl Sentinels {
    pub(in crate::source::redis) fn new(
        addresses: Vec<Address>,
        name: &str,
        login: Login,
        replica: bool,
    ) -> Self {
        let state = SentinelState { said: vec![None; addresses.len()], ..SentinelState::default() };
        let shared = Watcher {
            addresses,
            name: name.to_owned(),
            login,
            replica,
            state: Mutex::new(state),
            chosen: watch::Sender::new(None),
            trouble: Notify::new(),
        };
        Self { shared: Arc::new(shared), watching: OnceLock::new() }
    }

    pub(super) async fn find(&self, purpose: Purpose) -> Result<Node, Error> {
        self.watching.get_or_init(|| self.shared.clone().watch());
        let mut chosen = self.shared.chosen.subscribe();
        let chosen = chosen.wait_for(Option::is_some).await.expect("the sender lives in shared");
        let chosen = chosen.clone().expect("it was waited for")?;
        let address = if purpose == Purpose::Primary { &chosen.primary } else { &chosen.reading };
        Ok(Node { primary: *address == chosen.primary, ..Node::at(address.clone()) })
    }

    /// Returns once the sentinels name another server to read from.
    pub(super) async fn left(&self, node: &Node) {
        let mut chosen = self.shared.chosen.subscribe();
        let is_another = |chosen: &Option<Result<Chosen, Error>>| matches!(chosen, Some(Ok(chosen)) if chosen.reading != node.address);
        let _ = chosen.wait_for(is_another).await;
    }

    /// Returns once the sentinels name other servers than they do now.
    pub(super) async fn moved(&self) {
        let mut chosen = self.shared.chosen.subscribe();
        while chosen.changed().await.is_ok() {
            if matches!(&*chosen.borrow_and_update(), Some(Ok(_))) {
                return;
            }
        }
    }

    /// As if the first sentinel had said so.
    #[cfg(test)]
    pub(in crate::source::redis) fn hear_of(&self, epoch: u64, primary: Address) {
        self.shared.note(0, Ok(SentinelView { epoch, primary, replicas: Vec::new() }));
    }

    pub(super) fn failed(&self, node: &Node, error: &Error) {
        if error.class != ErrorClass::Away {
            return;
        }
        let mut state = self.shared.state();
        state.in_trouble = Some(Instant::now());
        state.suspects.retain(|(_, address)| *address != node.address);
        state.suspects.push((Instant::now() + suspicion(error), node.address.clone()));
        drop(state);
        self.shared.choose();
        self.shared.trouble.notify_waiters();
    }
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, SentinelState> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn watch(self: Arc<Self>) -> JoinSet<()> {
        let mut watching = JoinSet::new();
        for index in 0..self.addresses.len() {
            watching.spawn(self.clone().watch_one(index));
        }
        watching
    }

    /// Asks one sentinel again and again. One alone may be cut off from the others and behind.
    async fn watch_one(self: Arc<Self>, index: usize) {
        let mut link = None;
        loop {
            let said = in_time(TIMEOUT, "SENTINEL", self.ask(index, &mut link)).await;
            if said.is_err() {
                link = None;
            }
            self.note(index, said);
            let in_trouble = self.state().in_trouble.is_some_and(|since| since.elapsed() < TROUBLE);
            let interval = if in_trouble { INTERVAL_IN_TROUBLE } else { INTERVAL };
            tokio::select! {
                () = sleep(interval) => {}
                () = self.trouble.notified(), if !in_trouble => {}
            }
        }
    }

    async fn ask(&self, index: usize, link: &mut Option<Link>) -> Result<SentinelView, Error> {
        let address = &self.addresses[index];
        let link = match link {
            Some(link) => link,
            None => link.insert(Link::open(address, &self.login).await?),
        };
        let name = self.name.as_bytes();
        // What it calls the primary's address is ahead of its table while a failover goes on.
        let request = Request::new(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name])
            .and(&[b"SENTINEL", b"MASTER", name])
            .and(&[b"SENTINEL", b"REPLICAS", name]);
        let answers: Result<[_; 3], _> = link.exchange(&request).await?.try_into();
        let answers = answers.expect("an answer to each command").map(answered);
        let [primary, table, replicas] = answers.map(|answer| answer.map_err(about_no_key));
        let primary = primary?;
        if primary == Value::Nil {
            return Err(self.unknown(address));
        }
        let [host, port] = pair(primary)?;
        let epoch = field(&row(table?)?, "config-epoch")?.parse();
        let epoch = epoch.map_err(|_| garbled("SENTINEL MASTER with an epoch that is none"))?;
        let primary = located(host, &port)?;
        let replicas = list(replicas?)?.into_iter().map(row);
        let replicas = replicas.collect::<Result<Vec<_>, _>>()?;
        let well = replicas.iter().filter(|replica| is_well(replica));
        let well =
            well.map(|replica| located(field(replica, "ip")?.to_owned(), field(replica, "port")?));
        let mut well = well.collect::<Result<Vec<_>, _>>()?;
        well.retain(|replica| *replica != primary);
        Ok(SentinelView { epoch, primary, replicas: well })
    }

    fn unknown(&self, sentinel: &Address) -> Error {
        let message = format!(
            "the sentinel at {sentinel} knows no primary called \"{}\"; correct the path of source.url",
            self.name
        );
        Error { class: ErrorClass::Login, code: "SENTINEL", message }
    }

    fn note(&self, index: usize, said: Result<SentinelView, Error>) {
        let mut state = self.state();
        match (said, &state.said[index]) {
            // What it said before it fell silent is the best that is known of it.
            (Err(_), Some(Ok(_))) => {}
            (said, _) => state.said[index] = Some(said.map(|view| (Instant::now(), view))),
        }
        drop(state);
        self.choose();
    }

    /// Makes up our mind from what the sentinels said.
    fn choose(&self) {
        let state = self.state();
        let Some(view) = latest(&state.said) else {
            let all: Option<Vec<_>> = state.said.iter().cloned().collect();
            let last = all.and_then(|all| all.into_iter().find_map(Result::err));
            if let Some(error) = last {
                self.chosen.send_replace(Some(Err(error)));
            }
            return;
        };
        self.chosen.send_if_modified(|chosen| {
            let now = chosen.as_ref().and_then(|chosen| chosen.as_ref().ok());
            let reading = self.reading(view, now.map(|now| &now.reading), &state.suspects);
            let next = Some(Ok(Chosen { primary: view.primary.clone(), reading }));
            let changed = !same(chosen.as_ref(), next.as_ref());
            if changed {
                tell(next.as_ref());
                *chosen = next;
            }
            changed
        });
    }

    /// The server to read from: one that is well, and the same one for as long as it is.
    fn reading(
        &self,
        view: &SentinelView,
        now: Option<&Address>,
        suspects: &[(Instant, Address)],
    ) -> Address {
        if !self.replica {
            return view.primary.clone();
        }
        let suspected = |address: &&Address| {
            suspects.iter().any(|(until, suspect)| suspect == *address && Instant::now() < *until)
        };
        let well: Vec<_> = view.replicas.iter().filter(|address| !suspected(address)).collect();
        let chosen = now.filter(|now| well.contains(now));
        let chosen = chosen.or_else(|| fastrand::choice(&well).copied());
        chosen.unwrap_or(&view.primary).clone()
    }
}

/// What is to be believed of what the sentinels said: whoever knows of the latest failover.
///
/// One that fell silent is believed on, or its death would undo the failover that it told of first. But
/// not against most of the others, and for ever: they may have been set up anew, where failovers are
/// counted from 0. That leads to no primary of the past: a failover takes the votes of most sentinels, so of
/// any majority one has voted for it, and has been told how it went well before [`FRESH`] is over.
/// Fewer than that, cut off together with an old primary, unseat nobody.
fn latest(said: &[Option<Result<(Instant, SentinelView), Error>>]) -> Option<&SentinelView> {
    let views = || said.iter().flatten().filter_map(|said| said.as_ref().ok());
    let is_fresh = |when: &Instant| when.elapsed() < FRESH;
    let most_are = views().filter(|(when, _)| is_fresh(when)).count() * 2 > said.len();
    let believed = views().filter(|(when, _)| is_fresh(when) || !most_are);
    believed.max_by_key(|(when, view)| (view.epoch, *when)).map(|(_, view)| view)
}

fn same(a: Option<&Result<Chosen, Error>>, b: Option<&Result<Chosen, Error>>) -> bool {
    matches!((a, b), (Some(Ok(a)), Some(Ok(b))) if a == b)
}

fn tell(chosen: Option<&Result<Chosen, Error>>) {
    if let Some(Ok(Chosen { primary, reading })) = chosen {
        tracing::info!(%primary, %reading, "the sentinels name the primary");
    }
}

/// A replica that follows its primary, as the sentinel sees it.
fn is_well(replica: &[(String, String)]) -> bool {
    let is = |name, value: &str| field(replica, name).is_ok_and(|found| found == value);
    is("flags", "slave") && is("master-link-status", "ok")
}

fn located(host: String, port: &str) -> Result<Address, Error> {
    let port = port.parse().map_err(|_| garbled("a sentinel named a port that is none"))?;
    Ok(Address::Tcp(host, port))
}

fn pair(value: Value) -> Result<[String; 2], Error> {
    let words = list(value)?.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    words.try_into().map_err(|_| garbled("a sentinel named no host and port"))
}

/// Names and values in turn. What is no text is none of ours.
fn row(value: Value) -> Result<Vec<(String, String)>, Error> {
    let mut words = list(value)?.into_iter();
    let mut row = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let read = |value| bytes(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        row.push((read(name)?, read(value)?));
    }
    Ok(row)
}

fn field<'a>(row: &'a [(String, String)], name: &str) -> Result<&'a str, Error> {
    let found = row.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    found.ok_or_else(|| garbled("a sentinel left out what was asked for"))
}

#[cfg(test)]
mod tests;
