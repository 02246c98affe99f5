//! Pages that were read just now: after a restart, and in a crowd that fell behind together, clients
//! are near one another.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Opened, Page, PageKey};

/// A page is kept until nobody has wanted it for this long. What was trimmed meanwhile is still told.
const KEPT: Duration = Duration::from_secs(2);

/// Pages that were read just now.
#[derive(Default)]
pub(super) struct Recent {
    /// Held for one lookup at a time; few, for there is room for few.
    pages: Mutex<Vec<RecentPage>>,
}

struct RecentPage {
    page_key: PageKey,
    last_wanted: Instant,
    page: Arc<Page>,
}

impl RecentPage {
    fn is_wanted(&self) -> bool {
        self.last_wanted.elapsed() < KEPT
    }
}

impl Recent {
    /// Where the first item that is `wanted` stands in one of them.
    pub(super) fn find(&self, page_key: &PageKey) -> Option<Opened> {
        let mut pages = self.pages();
        pages.retain(RecentPage::is_wanted);
        let mut of_it = pages.iter_mut().filter(|kept| kept.page_key.is_beside(page_key));
        of_it.find_map(|RecentPage { page, last_wanted, .. }| {
            let seq = page.first_after(page_key.from.cursor())?;
            *last_wanted = Instant::now();
            Some(Opened { page: page.clone(), seq })
        })
    }

    /// Keeps what was read for `wanted`, unless it is "nothing more": that is true of one moment only. Nor a
    /// page that tells of a gap and ends where it begins: whoever goes on from there would find it again.
    pub(super) fn keep(&self, page_key: PageKey, page: &Arc<Page>) {
        let goes_on = page.next.cursor() != page_key.from.cursor();
        if goes_on && !page.is_empty() {
            self.pages().push(RecentPage {
                page_key,
                last_wanted: Instant::now(),
                page: page.clone(),
            });
        }
    }

    /// Gives back what nobody will share any more.
    pub(super) fn forget_old(&self) {
        self.pages().retain(RecentPage::is_wanted);
    }

    /// Gives back everything.
    pub(super) fn clear(&self) {
        self.pages().clear();
    }

    fn pages(&self) -> MutexGuard<'_, Vec<RecentPage>> {
        self.pages.lock().expect("no holder of the lock panics")
    }
}
