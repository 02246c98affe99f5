//! What is chosen when sentinels give different answers at different times.

use super::*;

fn at(host: &str) -> Address {
    Address::Tcp(host.into(), 6379)
}

fn watched(replica: bool) -> Sentinels {
    Sentinels::new(vec![at("s1"), at("s2"), at("s3")], "mine", Login::default(), replica)
}

fn view(epoch: u64, primary: &str, replicas: &[&str]) -> SentinelView {
    let replicas = replicas.iter().map(|host| at(host)).collect();
    SentinelView { epoch, primary: at(primary), replicas }
}

fn reading(sentinels: &Sentinels) -> Address {
    let chosen = sentinels.watcher.chosen.borrow().clone();
    chosen.expect("a sentinel has answered").expect("a sentinel knows").reading
}

fn away() -> Error {
    Error { class: ErrorClass::Away, code: "IO", message: String::new() }
}

#[test]
fn the_latest_failover_counts_whichever_sentinel_knows_of_it() {
    let sentinels = watched(false);
    sentinels.watcher.note(0, Instant::now(), Ok(view(1, "old", &[])));
    assert_eq!(reading(&sentinels), at("old"));
    sentinels.watcher.note(1, Instant::now(), Ok(view(2, "new", &[])));
    assert_eq!(reading(&sentinels), at("new"));
    sentinels.watcher.note(0, Instant::now(), Ok(view(1, "old", &[])));
    assert_eq!(reading(&sentinels), at("new"), "the first is cut off from the others");
    sentinels.watcher.note(1, Instant::now(), Err(away()));
    assert_eq!(reading(&sentinels), at("new"), "what it said is the best that is known");
}

#[test]
fn a_silent_sentinel_counts_until_most_others_have_disagreed_for_a_while() {
    let sentinels = watched(false);
    let (watcher, now) = (&sentinels.watcher, Instant::now());
    let answer = |index: usize, when: Instant, view: SentinelView| {
        watcher.state().answers[index] = Some(Ok((when, view)));
        watcher.choose();
        reading(&sentinels)
    };
    let ago = now.checked_sub(FRESH).unwrap();
    assert_eq!(answer(0, now, view(7, "before", &[])), at("before"));
    assert_eq!(answer(1, now, view(0, "anew", &[])), at("before"), "it may be cut off");
    assert_eq!(answer(2, now, view(0, "anew", &[])), at("before"), "a moment ago");
    assert_eq!(answer(0, ago, view(7, "before", &[])), at("anew"));
    assert_eq!(answer(1, ago, view(0, "anew", &[])), at("before"), "one of three is no majority");
}

#[tokio::test]
async fn a_change_is_another_primary_and_nothing_else() {
    let sentinels = watched(false);
    let changed = sentinels.changed();
    tokio::pin!(changed);
    for index in 0..3 {
        sentinels.watcher.note(index, Instant::now(), Err(away()));
    }
    let soon = Duration::from_millis(1);
    assert!(tokio::time::timeout(soon, &mut changed).await.is_err(), "no sentinel knows a primary");
    sentinels.hear(1, at("old"));
    tokio::time::timeout(TIMEOUT, &mut changed).await.expect("there is one");
    let changed = sentinels.changed();
    tokio::pin!(changed);
    assert!(tokio::time::timeout(soon, &mut changed).await.is_err());
    sentinels.hear(1, at("old"));
    assert!(tokio::time::timeout(soon, &mut changed).await.is_err(), "it is the same one");
    sentinels.hear(2, at("new"));
    tokio::time::timeout(TIMEOUT, &mut changed).await.expect("there is another one");
}

#[tokio::test]
async fn a_primary_is_confirmed_by_answers_to_later_questions_alone() {
    let sentinels = watched(false);
    let note = |index, began, answer| sentinels.watcher.note(index, began, answer);
    let before = Instant::now();
    (0..3).for_each(|index| note(index, before, Ok(view(1, "old", &[]))));
    let old = Node::at(at("old"));
    let confirming = sentinels.confirm(&old);
    tokio::pin!(confirming);
    let soon = Duration::from_millis(1);
    assert!(timeout(soon, &mut confirming).await.is_err(), "nobody was asked anew");
    (0..3).for_each(|index| note(index, before, Ok(view(1, "old", &[]))));
    note(0, Instant::now(), Ok(view(1, "old", &[])));
    note(1, Instant::now(), Err(away()));
    assert!(timeout(soon, &mut confirming).await.is_err(), "the third was not asked anew");
    note(2, Instant::now(), Ok(view(2, "new", &[])));
    assert_eq!(timeout(TIMEOUT, confirming).await.unwrap().unwrap_err().code, "FAILOVER");

    let new = Node::at(at("new"));
    let confirming = sentinels.confirm(&new);
    tokio::pin!(confirming);
    assert!(timeout(soon, &mut confirming).await.is_err());
    (0..3).for_each(|index| note(index, Instant::now(), Err(away())));
    assert!(timeout(TIMEOUT, confirming).await.unwrap().is_ok(), "the last answer stands");
}

#[test]
fn a_failure_is_reported_once_all_have_failed_and_none_has_ever_answered() {
    let sentinels = watched(false);
    sentinels.watcher.note(0, Instant::now(), Err(away()));
    sentinels.watcher.note(1, Instant::now(), Err(away()));
    assert!(sentinels.watcher.chosen.borrow().is_none());
    sentinels.watcher.note(2, Instant::now(), Err(away()));
    assert!(matches!(&*sentinels.watcher.chosen.borrow(), Some(Err(_))));
    sentinels.watcher.note(1, Instant::now(), Ok(view(1, "a", &[])));
    assert_eq!(reading(&sentinels), at("a"));
}

#[test]
fn a_replica_is_kept_while_it_is_healthy_and_replaced_when_it_fails() {
    let sentinels = watched(true);
    sentinels.watcher.note(0, Instant::now(), Ok(view(1, "primary", &["a"])));
    assert_eq!(reading(&sentinels), at("a"));
    sentinels.watcher.note(0, Instant::now(), Ok(view(1, "primary", &["b", "c", "a"])));
    assert_eq!(reading(&sentinels), at("a"));
    sentinels.report_failure(&Node::at(at("a")), &away());
    let other = reading(&sentinels);
    assert!([at("b"), at("c")].contains(&other), "{other}");
    sentinels.watcher.note(0, Instant::now(), Ok(view(1, "primary", &[])));
    assert_eq!(reading(&sentinels), at("primary"), "there is no other");
}
