//! Pages that were read just now: after a restart, or when a crowd falls behind together, subscribers are
//! near one another.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::page::{Opened, Page, PageKey};

/// A page is kept until nobody has wanted it for this long. It still tells what was trimmed meanwhile.
const KEPT: Duration = Duration::from_secs(2);

/// Pages that were read just now.
#[derive(Default)]
pub(super) struct RecentPages {
    /// Locked for one look at a time. There are few: there is memory for few.
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

impl RecentPages {
    /// A page that holds what follows `page_key.from`, and where in it.
    pub(super) fn find(&self, page_key: &PageKey) -> Option<Opened> {
        let mut pages = self.pages();
        pages.retain(RecentPage::is_wanted);
        let mut beside = pages.iter_mut().filter(|recent| recent.page_key.is_beside(page_key));
        beside.find_map(|RecentPage { page, last_wanted, .. }| {
            let seq = page.first_after(page_key.from.cursor())?;
            *last_wanted = Instant::now();
            Some(Opened { page: page.clone(), seq })
        })
    }

    /// Keeps a page. Not an empty one, which is true for a moment only; nor one whose gap ends where it
    /// begins: a subscriber that goes on from there would find it again.
    pub(super) fn keep(&self, page_key: PageKey, page: &Arc<Page>) {
        let goes_on = page.next.cursor() != page_key.from.cursor();
        if goes_on && !page.is_empty() {
            let (last_wanted, page) = (Instant::now(), page.clone());
            self.pages().push(RecentPage { page_key, last_wanted, page });
        }
    }

    /// Drops the pages that nobody wants any more.
    pub(super) fn forget_old(&self) {
        self.pages().retain(RecentPage::is_wanted);
    }

    /// Drops all pages.
    pub(super) fn clear(&self) {
        self.pages().clear();
    }

    fn pages(&self) -> MutexGuard<'_, Vec<RecentPage>> {
        self.pages.lock().expect("no holder of the lock panics")
    }
}
