//! Subscribers in the past, as they meet new generations, gaps and the ring.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hyper::body::Body as _;

use super::super::backfill::Backfill;
use super::super::driver::Driver;
use super::super::machine::{DeliveryState, TopicView};
use super::*;
use crate::fanout::Subscriber;
use crate::fanout::body::{Body, body};
use crate::fanout::testing::TestFanout;
use crate::fanout::writer::SubscriberWriter;
use crate::source::StreamInfo;
use crate::sse::parse::{self, Event, Parser};
use crate::sse::{CONTROL_EVENT, Entry, Rendering};
use crate::stream::{Item, Lease, Topic};

/// What a client has got in its body by now.
pub(super) fn hear(body: &mut Body, parser: &mut Parser) -> Vec<Event> {
    let (mut items, context) = (Vec::new(), &mut Context::from_waker(Waker::noop()));
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(context) {
        parser.feed(&frame.into_data().unwrap(), &mut items).unwrap();
    }
    let event = |item| match item {
        parse::Item::Event(event) => event,
        parse::Item::Comment(text) => panic!("nothing comments {text}"),
    };
    items.into_iter().map(event).collect()
}

/// A step; whether it did not wait.
pub(super) async fn step(driver: &mut Driver) -> bool {
    tokio::task::yield_now().await;
    let mut step = pin!(driver.step());
    let done = poll_fn(|context| Poll::Ready(step.as_mut().poll(context))).await;
    assert!(!matches!(done, Poll::Ready(Err(_))), "it is disconnected");
    done.is_ready()
}

/// What the machine wants next, the topic being as it is.
fn next(machine: &mut CatchUp, topic: &Topic) -> Action {
    let rules = machine.rules.clone();
    machine.next(&TopicView::of(&topic.state(), &rules, usize::MAX))
}

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn entry(ms: u64) -> Item {
    Item::Entry(Entry { id: id(ms), fields: Vec::new() })
}

/// The client read up to 20 before that was trimmed; the reader came too late and has a gap there.
#[tokio::test]
async fn a_client_ahead_of_the_reader_does_not_go_back_when_the_ring_moves_on() {
    let test = TestFanout::of("[ring]\nentries = 2");
    let (subscriber, lease) = test.unattached("a");
    let topic = lease.topic();
    topic.start_generation(id(10));
    let (after, first) = (Some(id(10)), Some(id(40)));
    let gap = Gap { after, next: first, lost: None, reason: Reason::Trimmed };
    topic.push(&[Item::Gap(gap, id(40).prev()), entry(40)], 1000);
    let generation = topic.state().ring.generation();
    let phase = Phase::Source(Backfill::new(Continuity::after(id(20)), generation));
    let delivery = DeliveryState { last_id: Some(id(20)), ..DeliveryState::default() };
    let mut machine = CatchUp::at(&subscriber, phase, delivery, Vec::new());
    // Of that gap it has a part: its own page tells how much it lacks.
    let read = next(&mut machine, topic);
    assert!(matches!(read, Action::ReadPage { after, .. } if after.cursor() == id(20)));
    machine.phase = Phase::Ring(WritePosition { seq: 0, offset: 0 });
    topic.push(&[entry(50), entry(60)], 1000);
    assert!(matches!(next(&mut machine, topic), Action::Again));
    let Phase::Source(backfill) = &machine.phase else { panic!("it waits in the ring") };
    assert_eq!(backfill.from.cursor(), id(20));
}

/// What the machine tells, of a client that had all up to `had` and reads the source past all that the reader tells.
fn told_past_the_reader(had: u64, items: &[&[Item]]) -> String {
    let test = TestFanout::of("[ring]\nentries = 2");
    let (subscriber, lease) = test.unattached("a");
    let topic = lease.topic();
    topic.start_generation(id(10));
    let generation = topic.state().ring.generation();
    let phase = Phase::Source(Backfill::new(Continuity::after(id(had)), generation));
    let delivery = DeliveryState { last_id: Some(id(had)), ..DeliveryState::default() };
    let mut machine = CatchUp::at(&subscriber, phase, delivery, Vec::new());
    for items in items {
        topic.push(items, 1000);
    }
    let Phase::Source(backfill) = &mut machine.phase else { panic!("it begins there") };
    backfill.from = Continuity::after(topic.state().ring.tail());
    assert!(matches!(next(&mut machine, topic), Action::Again));
    assert!(matches!(machine.phase, Phase::Ring(_)));
    String::from_utf8(machine.unsent).unwrap()
}

/// A deletion is told late, in front of entries that came long after it.
#[tokio::test]
async fn a_client_in_the_past_is_told_of_a_deletion_that_the_reader_told_of_meanwhile() {
    let deleted = |after: u64, next: StreamId| {
        let reason = Reason::Deleted;
        let gap = Gap { after: Some(id(after)), next: Some(next), lost: Some(1), reason };
        Item::Gap(gap, next.prev())
    };
    let late: [&[Item]; 3] = [&[entry(20)], &[deleted(20, id(30)), entry(30)], &[entry(40)]];
    let told = told_past_the_reader(20, &late);
    assert!(
        told.contains(r#""after":"40-0","next":null,"lost":null,"reason":"deleted""#),
        "{told}"
    );
    let evicted: [&[Item]; 3] = [late[0], late[1], &[entry(40), entry(50)]];
    assert_ne!(told_past_the_reader(20, &evicted), "", "the ring has forgotten the gap");
    assert_eq!(told_past_the_reader(30, &evicted), "", "it was told before it left");
    let next = StreamId { ms: 20, seq: 1 };
    assert_ne!(told_past_the_reader(20, &[&[deleted(20, next)]]), "", "the gap has the entry's id");
    let trimmed =
        Gap { after: Some(id(20)), next: Some(id(30)), lost: Some(1), reason: Reason::Trimmed };
    let trimmed = [Item::Gap(trimmed, id(30).prev()), entry(30)];
    assert_eq!(told_past_the_reader(20, &[&trimmed]), "", "its pages tell of that");
}

fn filled(ms: u64) -> Entry {
    Entry { id: id(ms), fields: vec![("payload".into(), "x".into())] }
}

/// A catch-up subscriber in the past, after 10 of a stream that the reader has read up to 30. The stream is then
/// one of these, which nobody has told of.
fn behind_in(test: &TestFanout, ids: &[u64]) -> (Driver, Body, Lease) {
    let (mut subscriber, lease) = test.unattached("a");
    subscriber.format.framed = false;
    lease.topic().start_generation(id(30));
    let generation = lease.topic().state().ring.generation();
    let phase = Phase::Source(Backfill::new(Continuity::after(id(10)), generation));
    let delivery = DeliveryState { last_id: Some(id(10)), ..DeliveryState::default() };
    let machine = CatchUp::at(&subscriber, phase, delivery, Vec::new());
    let entries: Vec<_> = ids.iter().copied().map(filled).collect();
    let (first, last) = (entries[0].id, entries[entries.len() - 1].id);
    let length = entries.len() as u64;
    let info =
        StreamInfo { length, last_generated: last, first: Some(first), ..StreamInfo::default() };
    test.source.leave_to("a", Box::new(move || Some((entries.clone(), info))));
    let (sink, body) = body();
    let writer = SubscriberWriter::Body(sink);
    (Driver::new(test.fanout.clone(), writer, subscriber, machine), body, lease)
}

/// The reader finds that the stream was recreated and begins with 5.
fn tell_reset(topic: &Topic, ids: &[u64]) {
    let (after, next) = (Some(id(30)), Some(id(5)));
    let gap = Gap { after, next, lost: None, reason: Reason::Reset };
    topic.start_generation(id(5).prev());
    let entries = ids.iter().map(|ms| Item::Entry(filled(*ms)));
    let items = std::iter::once(Item::Gap(gap, id(5).prev())).chain(entries);
    topic.push(&items.collect::<Vec<_>>(), 1000);
}

/// The client is told of the reset, gets all of the new generation from 5 on, and is live then.
async fn is_sent_all(driver: &mut Driver, body: &mut Body, ids: &[u64]) {
    let (mut heard, mut parser) = (Vec::new(), Parser::new());
    // Level, it goes to a shard.
    for _ in 0..20 {
        if driver.step().await.is_err() {
            break;
        }
        heard.extend(hear(body, &mut parser));
    }
    let gap = r#""after":"10-0","next":"5-0","lost":null,"reason":"reset""#;
    assert!(heard[0].data.contains(gap), "{heard:?}");
    let told: Vec<_> = heard.iter().map(|event| event.last_event_id.clone()).collect();
    let ids = ids.iter().chain(ids.last()).copied().map(id);
    let all = std::iter::once(id(5).prev()).chain(ids);
    assert_eq!(told, all.map(|id| id.to_string()).collect::<Vec<_>>());
    let is_control = |event: &Event| event.event_type == CONTROL_EVENT;
    assert_eq!(heard.iter().filter(|event| is_control(event)).count(), 2);
    assert!(is_control(&heard[heard.len() - 1]));
}

/// The new generation has ids beyond the client's, and the ring has all of it.
#[tokio::test]
async fn a_client_in_the_past_of_a_recreated_stream_gets_all_of_the_new_one() {
    let (test, ids) = (TestFanout::new(), [5, 15, 25]);
    let (mut driver, mut body, lease) = behind_in(&test, &ids);
    tell_reset(lease.topic(), &ids);
    is_sent_all(&mut driver, &mut body, &ids).await;
}

/// How it goes on after a page that shows a reset is for the reader to tell.
#[tokio::test]
async fn a_client_that_sees_a_new_generation_before_the_reader_waits_for_it() {
    let (test, ids) = (TestFanout::new(), [5]);
    let (mut driver, mut body, lease) = behind_in(&test, &ids);
    for _ in 0..10 {
        assert!(!step(&mut driver).await, "it goes on by itself");
    }
    assert_eq!(hear(&mut body, &mut Parser::new()), []);
    tell_reset(lease.topic(), &ids);
    is_sent_all(&mut driver, &mut body, &ids).await;
}

/// A live subscriber in this phase whose client has everything up to `last`.
fn live(subscriber: &Subscriber, phase: Phase, last: u64) -> CatchUp {
    let delivery = DeliveryState { last_id: Some(id(last)), live: true, source_down: false };
    CatchUp::at(subscriber, phase, delivery, Vec::new())
}

#[tokio::test]
async fn a_client_in_the_new_generation_before_the_reader_stays_there() {
    for (read_up_to, stays) in [(20, true), (50, false)] {
        let test = TestFanout::new();
        let (subscriber, lease) = test.unattached("a");
        let topic = lease.topic();
        topic.start_generation(id(10));
        topic.push(&[entry(20)], 1000);
        let began = id(50).prev();
        let backfill = Backfill::new(Continuity::after(began), 1).begun_at(id(read_up_to));
        let mut machine = live(&subscriber, Phase::Source(backfill), 20);
        topic.start_generation(began);
        assert!(matches!(next(&mut machine, topic), Action::Again));
        assert_eq!(matches!(machine.phase, Phase::Ring(_)), stays);
        assert_eq!(matches!(machine.phase, Phase::NewGeneration), !stays);
    }
}

#[tokio::test]
async fn a_client_without_the_reset_of_a_new_generation_asks_for_its_beginning() {
    let test = TestFanout::new();
    let (mut subscriber, lease) = test.unattached("a");
    let topic = lease.topic();
    topic.start_generation(id(10));
    topic.push(&[entry(20)], 1000);
    // What is in the ring already is not rendered for it.
    let rendering = topic.state().renderings.get(0).cloned().unwrap();
    let other = Rendering { missing: Some("other".into()), ..rendering };
    subscriber.format.rendering = subscriber.lease.render(&other.into()).try_into().unwrap();
    let mut machine = live(&subscriber, Phase::Ring(WritePosition::default()), 10);
    topic.start_generation(id(30));
    assert!(matches!(next(&mut machine, topic), Action::Again));
    assert!(matches!(machine.phase, Phase::NewGeneration));
}

#[tokio::test]
async fn a_gap_with_the_id_of_a_half_written_entry_does_not_finish_it() {
    let test = TestFanout::new();
    let (subscriber, lease) = test.unattached("a");
    let half = id(40).prev();
    let backfill = Backfill::new(Continuity::after(id(30)), 1);
    let mut machine = live(&subscriber, Phase::Source(backfill), 30).amid(Some(half));
    let gap = Gap { after: Some(id(30)), next: Some(id(40)), lost: None, reason: Reason::Trimmed };
    let rendering = lease.topic().state().renderings.get(0).cloned().unwrap();
    let page = Page::of(&[Item::Gap(gap, half), entry(40)], rendering);
    let opened = Opened { page: Arc::new(page), seq: 0 };
    let then = machine.page_read(opened, Continuity::after(id(30)));
    assert!(matches!(then, Action::End(End::Cut(DisconnectReason::Slow))));
}

/// A client that is level is not late by what the gateway has just got.
#[tokio::test]
async fn old_entries_that_are_new_cut_no_level_client() {
    let test = TestFanout::of("[limits]\nmax_lag = \"1s\"");
    let (subscriber, lease) = test.unattached("a");
    let topic = lease.topic();
    let old = crate::fanout::wire::now_ms() - 60_000;
    topic.start_generation(id(old - 1));
    topic.push(&[entry(old)], 1000);
    let driver = |subscriber, phase: Phase| {
        let machine = live(&subscriber, phase, old - 1);
        let (sink, body) = body();
        let writer = SubscriberWriter::Body(sink);
        (Driver::new(test.fanout.clone(), writer, subscriber, machine), body)
    };
    let (mut level, _body) = driver(subscriber, Phase::Ring(WritePosition::default()));
    assert!(level.step().await.is_ok());
    assert!(level.machine.delivery.last_id == Some(id(old)), "it was written");
    // But a client that reads it from the source is.
    let (subscriber, _lease) = test.unattached("a");
    let batch = topic.state().ring.at(0).unwrap().clone();
    let backfill = Backfill::new(Continuity::after(id(old - 1)), 1);
    let format = subscriber.format;
    let (late, _body) = driver(subscriber, Phase::Source(backfill));
    let run = late.machine.run(vec![batch], format, WritePosition::default());
    assert!(late.is_late(&run));
}
