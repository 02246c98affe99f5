//! Sentinels that say this and that, at any time.

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
    let chosen = sentinels.shared.chosen.borrow().clone();
    chosen.expect("somebody has answered").expect("somebody knows").reading
}

fn away() -> Error {
    Error { class: ErrorClass::Away, code: "IO", message: String::new() }
}

#[test]
fn the_latest_failover_counts_whoever_knows_of_it() {
    let sentinels = watched(false);
    sentinels.shared.note(0, Ok(view(1, "old", &[])));
    assert_eq!(reading(&sentinels), at("old"));
    sentinels.shared.note(1, Ok(view(2, "new", &[])));
    assert_eq!(reading(&sentinels), at("new"));
    sentinels.shared.note(0, Ok(view(1, "old", &[])));
    assert_eq!(reading(&sentinels), at("new"), "the first is cut off from the others");
    sentinels.shared.note(1, Err(away()));
    assert_eq!(reading(&sentinels), at("new"), "what it said is the best that is known");
}

#[test]
fn who_fell_silent_is_believed_until_most_say_otherwise_for_a_while() {
    let sentinels = watched(false);
    let (shared, now) = (&sentinels.shared, Instant::now());
    let say = |index: usize, when: Instant, view: SentinelView| {
        shared.state().said[index] = Some(Ok((when, view)));
        shared.choose();
        reading(&sentinels)
    };
    let ago = now.checked_sub(FRESH).unwrap();
    assert_eq!(say(0, now, view(7, "before", &[])), at("before"));
    assert_eq!(say(1, now, view(0, "anew", &[])), at("before"), "it may be cut off");
    assert_eq!(say(2, now, view(0, "anew", &[])), at("before"), "a moment ago");
    assert_eq!(say(0, ago, view(7, "before", &[])), at("anew"));
    assert_eq!(say(1, ago, view(0, "anew", &[])), at("before"), "one of three is no majority");
}

#[tokio::test]
async fn who_waits_hears_of_another_primary_and_of_nothing_else() {
    let sentinels = watched(false);
    let moved = sentinels.moved();
    tokio::pin!(moved);
    for index in 0..3 {
        sentinels.shared.note(index, Err(away()));
    }
    let soon = Duration::from_millis(1);
    assert!(tokio::time::timeout(soon, &mut moved).await.is_err(), "nobody knows of any");
    sentinels.hear_of(1, at("old"));
    tokio::time::timeout(TIMEOUT, &mut moved).await.expect("there is one");
    let moved = sentinels.moved();
    tokio::pin!(moved);
    assert!(tokio::time::timeout(soon, &mut moved).await.is_err());
    sentinels.hear_of(1, at("old"));
    assert!(tokio::time::timeout(soon, &mut moved).await.is_err(), "it is the same one");
    sentinels.hear_of(2, at("new"));
    tokio::time::timeout(TIMEOUT, &mut moved).await.expect("there is another one");
}

#[test]
fn a_failure_is_told_once_all_have_failed_and_none_has_ever_answered() {
    let sentinels = watched(false);
    sentinels.shared.note(0, Err(away()));
    sentinels.shared.note(1, Err(away()));
    assert!(sentinels.shared.chosen.borrow().is_none());
    sentinels.shared.note(2, Err(away()));
    assert!(matches!(&*sentinels.shared.chosen.borrow(), Some(Err(_))));
    sentinels.shared.note(1, Ok(view(1, "a", &[])));
    assert_eq!(reading(&sentinels), at("a"));
}

#[test]
fn a_replica_is_kept_while_it_is_well_and_left_when_it_fails() {
    let sentinels = watched(true);
    sentinels.shared.note(0, Ok(view(1, "primary", &["a"])));
    assert_eq!(reading(&sentinels), at("a"));
    sentinels.shared.note(0, Ok(view(1, "primary", &["b", "c", "a"])));
    assert_eq!(reading(&sentinels), at("a"));
    sentinels.failed(&Node::at(at("a")), &away());
    let other = reading(&sentinels);
    assert!([at("b"), at("c")].contains(&other), "{other}");
    sentinels.shared.note(0, Ok(view(1, "primary", &[])));
    assert_eq!(reading(&sentinels), at("primary"), "there is no other");
}
