//! What a write to a crowd holds, where a client is that took some of it, and who is written to.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use fastrand::Rng;

use super::hall::Hall;
use super::write::{Composed, Position};
use crate::fanout::merged::{LevelPart, LevelStream};
use crate::fanout::testing::{OtherTask, TestFanout};
use crate::fanout::{Socket, WireFormat, uring};
use crate::sse::parse::{Event, Item as Parsed, Parser};
use crate::sse::{Controls, Entry, Rendering, StreamId};
use crate::stream::{Batch, Item, Lease};

const FORMAT: WireFormat = WireFormat { rendering: 0, controls: Controls::Event, framed: false };

fn positions() -> Vec<Position> {
    let position = |(name, ms): (&str, u64)| Position {
        name: name.into(),
        seq: 0,
        id: StreamId { ms, seq: 0 },
    };
    [("chat", 1), ("alerts", 2)].map(position).into()
}

/// Entries with these ids; one with an odd id is skipped.
fn batch(ids: &[u64]) -> Arc<Batch> {
    let entry = |ms: &u64| {
        let name = if ms.is_multiple_of(2) { "payload" } else { "other" };
        let fields = vec![(name.into(), format!("of {ms}").into())];
        Item::Entry(Entry { id: StreamId { ms: *ms, seq: 0 }, fields })
    };
    let rendering = Rendering { missing: None, ..Rendering::default() };
    Arc::new(Batch::encode(&ids.iter().map(entry).collect::<Vec<_>>(), &[rendering], 1000))
}

fn composed() -> (Composed, Vec<Position>) {
    let (mut composed, mut positions) = (Composed::default(), positions());
    composed.add(&mut positions, 0, &[batch(&[10, 11, 12])], 3, (FORMAT, FORMAT));
    composed.add(&mut positions, 1, &[batch(&[20, 22])], 2, (FORMAT, FORMAT));
    (composed, positions)
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut items = Vec::new();
    Parser::new().feed(bytes, &mut items).unwrap();
    let event = |item| if let Parsed::Event(event) = item { Some(event) } else { None };
    items.into_iter().filter_map(event).collect()
}

#[test]
fn each_event_has_the_positions_after_it() {
    let (composed, positions) = composed();
    let told: Vec<_> = events(&composed.bytes)
        .into_iter()
        .map(|event| (event.last_event_id, event.data))
        .collect();
    let told: Vec<_> = told.iter().map(|(id, data)| (id.as_str(), data.as_str())).collect();
    assert_eq!(
        told,
        [
            ("chat=10-0,alerts=2-0", "of 10"),
            ("chat=12-0,alerts=2-0", "of 12"),
            ("chat=12-0,alerts=20-0", "of 20"),
            ("chat=12-0,alerts=22-0", "of 22"),
        ]
    );
    assert_eq!(composed.events(), 4);
    let at = |position: &Position| (position.seq, position.id.ms);
    assert_eq!(positions.iter().map(at).collect::<Vec<_>>(), [(3, 12), (2, 22)]);
}

/// Wherever its socket stops, what it has and what is left are whole events, and its positions are those of the last.
#[test]
fn a_client_that_took_some_is_after_the_event_that_it_has_begun() {
    let (composed, end) = composed();
    for sent in 0..=composed.bytes.len() {
        let mut at = positions();
        let (count, rest) = composed.advance(&mut at, sent);
        let all = [&composed.bytes[..sent], rest].concat();
        let had = events(&all);
        assert_eq!(had.len() as u64, count, "{sent}");
        if let Some(last) = had.last() {
            let ids: Vec<_> = at.iter().map(|it| format!("{}={}", it.name, it.id)).collect();
            // What is skipped after an event moves a client on as well.
            let ids = ids.join(",").replace("chat=11-0", "chat=10-0");
            assert_eq!(ids, last.last_event_id, "{sent}");
        } else {
            assert_eq!(at, positions(), "{sent}");
        }
        if sent == composed.bytes.len() {
            assert_eq!((at, rest), (end.clone(), &[][..]));
        }
    }
}

const STREAMS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A client of some streams, which are level.
struct Client {
    socket: UnixStream,
    names: Vec<&'static str>,
    /// The ids that it should hear.
    due: Vec<String>,
}

/// How far each stream is.
type Ends = [StreamId; STREAMS.len()];

fn id_of(names: &[&'static str], ends: &Ends) -> String {
    let end = |name: &&str| ends[STREAMS.iter().position(|known| known == name).unwrap()];
    let ids: Vec<_> = names.iter().map(|name| format!("{name}={}", end(name))).collect();
    ids.join(",")
}

impl Client {
    /// Of some streams, in some order.
    fn join(test: &TestFanout, hall: &mut Hall, rng: &mut Rng, ends: &Ends) -> Self {
        let (ours, socket) = UnixStream::pair().unwrap();
        let mut names = STREAMS.to_vec();
        rng.shuffle(&mut names);
        names.truncate(rng.usize(1..4));
        let part = |name: &&'static str| {
            let (subscriber, _) = test.unattached(name);
            let seq = subscriber.topic().state().ring.next_seq();
            let id = ends[STREAMS.iter().position(|known| known == name).unwrap()];
            LevelPart { name: (*name).into(), subscriber, seq, id }
        };
        let parts: Vec<_> = names.iter().map(part).collect();
        let rules = parts[0].subscriber.rules.clone();
        let stream =
            LevelStream { admitted: test.admitted("a"), format: FORMAT, route: 0, rules, parts };
        hall.admit(Socket::new(OwnedFd::from(ours)), stream);
        Self { socket, names, due: Vec::new() }
    }

    fn hears_what_is_due(&mut self) {
        self.socket.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        // It ends with WouldBlock.
        self.socket.read_to_end(&mut heard).unwrap_err();
        let ids: Vec<_> = events(&heard).into_iter().map(|event| event.last_event_id).collect();
        assert_eq!(ids, std::mem::take(&mut self.due), "{:?}", self.names);
    }
}

/// Clients of any streams come and go: each hears every entry of its own streams, once, with its own positions.
#[tokio::test]
async fn each_client_of_a_hall_hears_its_own_streams() {
    const SEED: u64 = 21;
    println!("seed {SEED}");
    let (mut rng, test) = (Rng::with_seed(SEED), TestFanout::new());
    let leases: Vec<Lease> = STREAMS.iter().map(|name| test.unattached(name).1).collect();
    for lease in &leases {
        lease.topic().answered();
    }
    let (mut hall, mut clients) = (Hall::new(&test.fanout, 0), Vec::new());
    let mut ends = [StreamId::ZERO; STREAMS.len()];
    for round in 1..2_000 {
        // Many come, then most of them leave.
        let come = if round < 1_200 { 3 } else { 0 };
        match rng.u8(0..6) {
            dice if dice < come => clients.push(Client::join(&test, &mut hall, &mut rng, &ends)),
            dice if dice < 4 && clients.len() > 10 => {
                let mut gone: Client = clients.swap_remove(rng.usize(0..clients.len()));
                gone.hears_what_is_due();
                drop(gone);
                let slots = hall.members.readable().await.unwrap();
                hall.read_input(&slots);
                hall.close_ranks();
            }
            _ => {
                let stream = rng.usize(0..STREAMS.len());
                let id = StreamId { ms: round, seq: 0 };
                let entry = Entry { id, fields: vec![("payload".into(), "x".into())] };
                leases[stream].topic().push(&[Item::Entry(entry)], 1000);
                ends[stream] = id;
                for client in &mut clients {
                    if client.names.contains(&STREAMS[stream]) {
                        client.due.push(id_of(&client.names, &ends));
                    }
                }
                if let Some(feed) = hall.feeds.of_topic(leases[stream].topic()) {
                    hall.write_news(feed).await;
                }
            }
        }
        assert_eq!(hall.members.len(), clients.len());
        // Before its socket is full.
        clients.iter_mut().filter(|it| it.due.len() == 50).for_each(Client::hears_what_is_due);
    }
    clients.iter_mut().for_each(Client::hears_what_is_due);
    for client in clients.drain(..) {
        drop(client);
        let slots = hall.members.readable().await.unwrap();
        hall.read_input(&slots);
    }
    let is_left = leases.iter().any(|lease| hall.feeds.of_topic(lease.topic()).is_some());
    assert!(hall.members.is_empty() && hall.crowds.is_empty() && !is_left);
    assert!(leases.iter().all(|lease| lease.topic().state().shards.is_empty()));
}

/// A client of one stream, by a name of its own: there is nobody else in its crowd.
fn join_alone(test: &TestFanout, hall: &mut Hall, name: usize) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (subscriber, _) = test.unattached("a");
    let rules = subscriber.rules.clone();
    let seq = subscriber.topic().state().ring.next_seq();
    let parts =
        vec![LevelPart { name: name.to_string().into(), subscriber, seq, id: StreamId::ZERO }];
    let stream =
        LevelStream { admitted: test.admitted("a"), format: FORMAT, route: 0, rules, parts };
    hall.admit(Socket::new(OwnedFd::from(ours)), stream);
    theirs
}

#[tokio::test]
async fn a_round_over_many_small_crowds_lets_other_tasks_have_their_turns() {
    const CROWDS: usize = 2 * uring::MOST;
    let test = TestFanout::new();
    let (_, lease) = test.unattached("a");
    lease.topic().answered();
    let mut hall = Hall::new(&test.fanout, 0);
    let clients: Vec<_> = (0..CROWDS).map(|name| join_alone(&test, &mut hall, name)).collect();
    assert_eq!((hall.members.len(), hall.crowds.len()), (clients.len(), CROWDS));
    let other = OtherTask::start();
    for (_, crowd) in &mut hall.crowds {
        crowd.last_write -= test.fanout.settings().keepalive;
    }
    hall.keep_alive().await;
    assert!(other.turns() >= 2, "signs of life");
    let feed = hall.feeds.of_topic(lease.topic()).unwrap();
    for field in ["payload", "other"] {
        let id = StreamId { ms: 1, seq: lease.topic().state().ring.next_seq() + 1 };
        let entry = Entry { id, fields: vec![(field.into(), "x".into())] };
        lease.topic().push(&[Item::Entry(entry)], 1000);
        hall.write_news(feed).await;
        assert!(other.turns() >= 2, "an entry with {field}");
    }
}
