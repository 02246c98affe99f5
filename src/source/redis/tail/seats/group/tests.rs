//! What the readers of a group are told, and when.

use super::*;

const PACE: Duration = Duration::from_secs(5);

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn keys(waiting: &[Waiting]) -> Vec<&str> {
    let mut keys: Vec<&str> = waiting.iter().map(|waiting| &*waiting.key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_reader_is_read_for_while_it_waits_and_told_once() {
    let group = Arc::new(Group::new(1));
    let [a, b] = ["a", "b"].map(|key| group.enter(key.into()));
    assert!(group.reads().is_empty());
    let mut a_told = a.wait(id(3), true, PACE, false);
    let _b_told = b.wait(id(5), true, PACE, false);
    let reads = group.reads();
    assert_eq!(keys(&reads), ["a", "b"]);
    let a_waits = reads.iter().find(|waiting| &*waiting.key == "a").expect("it waits");
    assert_eq!(a_waits.after, id(3));
    group.tell(a_waits, News::Entries);
    assert!(matches!(a_told.try_recv(), Ok(News::Entries)));
    assert_eq!(keys(&group.reads()), ["b"]);
    // What was found after an older id is no news any more.
    let mut a_told = a.wait(id(4), true, PACE, false);
    group.tell(a_waits, News::Entries);
    assert!(a_told.try_recv().is_err());
    drop(b);
    assert_eq!(keys(&group.reads()), ["a"]);
}

#[test]
fn each_stream_has_one_look_in_each_pace() {
    let group = Arc::new(Group::new(1));
    let place = group.enter("a".into());
    let (mut now, step) = (Instant::now(), PACE / 5);
    let end = now + 10 * PACE;
    let (mut looks, mut told) = (0, place.wait(id(1), true, PACE, false));
    while now < end {
        for look in group.looks(now + step) {
            looks += 1;
            group.tell(&look, News::Due);
            assert!(matches!(told.try_recv(), Ok(News::Due)));
            told = place.wait(id(1), true, PACE, false);
        }
        now += step;
    }
    assert!((9..=11).contains(&looks), "{looks}");
}

#[test]
fn who_comes_to_a_closed_group_is_told_to_look_elsewhere() {
    let group = Arc::new(Group::new(1));
    let place = group.enter("a".into());
    let mut told = place.wait(id(1), true, PACE, false);
    group.close();
    assert!(matches!(told.try_recv(), Ok(News::Moved)));
    assert!(matches!(place.wait(id(1), true, PACE, false).try_recv(), Ok(News::Moved)));
}

/// A reader in a group, and what it waits for.
struct Scene {
    group: Arc<Group>,
    place: Place,
    told: oneshot::Receiver<News>,
}

impl Scene {
    fn start() -> Self {
        let group = Arc::new(Group::new(1));
        let place = group.enter("a".into());
        let told = place.wait(id(1), true, PACE, false);
        Self { group, place, told }
    }

    fn armed() -> Self {
        let mut scene = Self::start();
        scene.is_armed_with(News::Due);
        assert!(matches!(scene.told.try_recv(), Ok(News::Due)));
        scene.waits_after(1);
        scene
    }

    fn waits_after(&mut self, ms: u64) {
        self.told = self.place.wait(id(ms), true, PACE, false);
    }

    fn to_arm(&self) -> (usize, usize) {
        let ToArm { stale, newcomers } = self.group.to_arm(Instant::now());
        (stale.len(), newcomers.len())
    }

    /// Redis is asked to tell of the key, and answers.
    #[track_caller]
    fn is_armed_with(&self, news: News) {
        let ToArm { mut stale, newcomers } = self.group.to_arm(Instant::now());
        stale.extend(newcomers);
        assert_eq!(keys(&stale), ["a"]);
        self.group.armed(&stale[0], news);
    }

    #[track_caller]
    fn is_told_to_read(&mut self) {
        assert!(matches!(self.told.try_recv(), Ok(News::Changed)));
    }
}

#[test]
fn a_key_is_armed_once_and_again_when_it_has_changed() {
    let mut scene = Scene::armed();
    assert_eq!(scene.to_arm(), (0, 0), "Redis tells of it");
    assert!(scene.told.try_recv().is_err());
    scene.group.note_change(b"b");
    assert_eq!(scene.to_arm(), (0, 0));
    scene.group.note_change(b"a");
    scene.group.note_change(b"a");
    assert!(scene.told.try_recv().is_err(), "first Redis is asked again, then it reads");
    scene.is_armed_with(News::Changed);
    scene.is_told_to_read();
    scene.waits_after(2);
    assert_eq!(scene.to_arm(), (0, 0));
    scene.group.note_change_of_all();
    assert_eq!(scene.to_arm(), (1, 0));
}

#[test]
fn what_changes_while_its_reader_reads_is_told_when_it_waits_again() {
    let mut scene = Scene::armed();
    scene.group.note_change(b"a");
    scene.is_armed_with(News::Changed);
    scene.is_told_to_read();
    scene.group.note_change(b"a");
    assert_eq!(scene.to_arm(), (0, 0), "a reader that is held up costs nothing");
    scene.waits_after(2);
    assert!(scene.told.try_recv().is_err());
    scene.is_armed_with(News::Changed);
    scene.is_told_to_read();
}

#[test]
fn a_reader_that_reads_while_its_key_is_armed_reads_once_more() {
    let mut scene = Scene::start();
    let asked = scene.group.to_arm(Instant::now()).newcomers;
    scene.group.tell(&asked[0], News::Due);
    assert!(matches!(scene.told.try_recv(), Ok(News::Due)));
    scene.group.armed(&asked[0], News::Entries);
    scene.waits_after(1);
    scene.is_told_to_read();
    // What a look has shown before its reader went on is nothing to go by.
    let mut scene = Scene::start();
    let asked = scene.group.to_arm(Instant::now()).newcomers;
    scene.waits_after(2);
    scene.group.armed(&asked[0], News::Entries);
    scene.is_told_to_read();
}

#[test]
fn nobody_hears_of_news_that_came_too_late_but_they_are_not_lost() {
    let mut scene = Scene::armed();
    let waiting = scene.group.looks(Instant::now() + 3 * PACE);
    drop(scene.told);
    scene.group.tell(&waiting[0], News::Entries);
    scene.told = scene.place.wait(id(1), true, PACE, false);
    scene.is_told_to_read();
}

#[test]
fn a_key_that_cannot_be_armed_is_read_and_tried_again_after_a_pause() {
    let mut scene = Scene::start();
    let asked = scene.group.to_arm(Instant::now()).newcomers;
    scene.group.not_armed(&asked[0]);
    scene.is_told_to_read();
    scene.waits_after(1);
    assert_eq!(scene.to_arm(), (0, 0));
    let later = scene.group.next_arming().expect("it is tried again");
    assert_eq!(keys(&scene.group.to_arm(later).stale), ["a"]);
    assert_eq!(scene.group.next_arming(), None);
}

#[test]
fn a_new_connection_has_nothing_armed() {
    let mut scene = Scene::armed();
    scene.group.disarm_all();
    assert_eq!(scene.to_arm(), (0, 1));
    scene.group.disarm_all();
    scene.group.tell_all(|| News::Moved);
    assert_eq!(scene.to_arm(), (0, 0), "it does not wait");
    scene.waits_after(1);
    scene.is_armed_with(News::Changed);
    scene.is_told_to_read();
}

#[test]
fn an_entry_that_a_look_shows_and_nothing_told_of_counts_once() {
    let scene = Scene::armed();
    let waiting = scene.group.looks(Instant::now() + 3 * PACE).remove(0);
    let seen = |ms| scene.group.note_look(&waiting, Some(id(ms)));
    assert!(!seen(1), "it has read so far");
    assert!(seen(2));
    assert!(!seen(3), "its reader goes on where it was");
    let scene = Scene::armed();
    scene.group.note_change(b"a");
    scene.is_armed_with(News::Changed);
    assert!(!scene.group.note_look(&waiting, Some(id(2))), "it was told");
}

#[test]
fn many_newcomers_are_armed_some_at_a_time_and_who_goes_is_not() {
    let group = Arc::new(Group::new(1));
    let mut places: Vec<_> = (0..150).map(|key| group.enter(format!("k{key}").into())).collect();
    let mut told: Vec<_> =
        places.iter().map(|place| place.wait(id(1), true, PACE, false)).collect();
    places.truncate(140);
    let mut armed = 0;
    loop {
        let newcomers = group.to_arm(Instant::now()).newcomers;
        assert!(newcomers.len() < 100);
        if newcomers.is_empty() {
            break;
        }
        armed += newcomers.len();
    }
    assert_eq!(armed, 140);
    told.clear();
}
