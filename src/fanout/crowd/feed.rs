//! The topics that a hall follows, and how far it has come in each.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{AbortHandle, BoxStream, SelectAll, abortable};
use slab::Slab;
use tokio_stream::wrappers::BroadcastStream;

use crate::fanout::WireFormat;
use crate::fanout::merged::LevelPart;
use crate::fanout::signal::is_up;
use crate::sse::StreamId;
use crate::stream::{Batch, Topic};

/// Batches of a stream are written together up to about this, so that a socket's buffer takes them.
const WRITE_BYTES: usize = 32 << 10;

/// The topics of a hall.
pub(super) struct Feeds {
    /// The hall's number among the shards of each topic.
    number: usize,
    all: Slab<Feed>,
    by_topic: HashMap<u64, usize>,
    /// Tells which of them has news; which may have left meanwhile.
    news: SelectAll<BoxStream<'static, usize>>,
    /// Those that may have more in their rings already.
    behind: Vec<usize>,
}

/// One topic. Everything before `seq` was written to every member that follows it.
pub(super) struct Feed {
    pub(super) topic: Arc<Topic>,
    pub(super) seq: u64,
    /// The id of the last item before that.
    pub(super) id: StreamId,
    /// The crowds that follow it, and as which of their parts.
    pub(super) followers: HashMap<usize, usize>,
    listening: AbortHandle,
}

impl Feeds {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            all: Slab::new(),
            by_topic: HashMap::new(),
            news: SelectAll::new(),
            behind: Vec::new(),
        }
    }

    pub(super) fn get(&self, feed: usize) -> Option<&Feed> {
        self.all.get(feed)
    }

    pub(super) fn of_topic(&self, topic: &Topic) -> Option<usize> {
        self.by_topic.get(&topic.id).copied()
    }

    /// A crowd follows the topic from now on, as a part; at the client's position, where nobody has followed it yet.
    pub(super) fn follow(&mut self, crowd: usize, part: usize, first: &LevelPart) -> usize {
        let topic = first.subscriber.topic();
        let feed = self.of_topic(topic).unwrap_or_else(|| self.open(topic, first));
        self.all[feed].followers.insert(crowd, part);
        feed
    }

    fn open(&mut self, topic: &Arc<Topic>, first: &LevelPart) -> usize {
        let entry = self.all.vacant_entry();
        let feed = entry.key();
        // A lagged channel is news as well.
        let news = BroadcastStream::new(topic.subscribe()).map(move |_| feed);
        let (news, listening) = abortable(news);
        self.news.push(news.boxed());
        topic.state().shards.push((self.number, first.seq));
        let followers = HashMap::new();
        let (topic, seq, id) = (topic.clone(), first.seq, first.id);
        self.by_topic.insert(topic.id, feed);
        entry.insert(Feed { topic, seq, id, followers, listening });
        self.behind.push(feed);
        feed
    }

    /// A crowd follows it no longer.
    pub(super) fn unfollow(&mut self, crowd: usize, feed: usize) {
        self.all[feed].followers.remove(&crowd);
        if self.all[feed].followers.is_empty() {
            let Feed { topic, listening, .. } = self.all.remove(feed);
            listening.abort();
            self.by_topic.remove(&topic.id);
            topic.shard_ended(self.number);
        }
    }

    /// The next topic that has news; `None`: none is followed.
    pub(super) async fn next(&mut self) -> Option<usize> {
        self.news.next().await
    }

    pub(super) fn is_any_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    pub(super) fn take_behind(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.behind)
    }

    /// Every member has the items of these batches.
    pub(super) fn sent(&mut self, feed: usize, batches: &[Arc<Batch>]) {
        // Its followers may have left.
        let (Some(found), Some(last)) = (self.all.get_mut(feed), batches.last()) else { return };
        found.seq = last.end_seq();
        found.id = last.ids().last().copied().unwrap_or(found.id);
        if found.topic.shard_sent(self.number, found.seq) {
            self.behind.push(feed);
        }
    }
}

impl Feed {
    /// What is new, as much as goes in one write; `None`: there is more to tell than entries.
    pub(super) fn pending(&self) -> Option<Vec<Arc<Batch>>> {
        self.batches(self.seq, u64::MAX)
    }

    /// Batches from one item on up to another, as many as go in one write.
    fn batches(&self, from_seq: u64, end_seq: u64) -> Option<Vec<Arc<Batch>>> {
        let state = self.topic.state();
        let more = state.ring.some_from(from_seq, WRITE_BYTES);
        let batches: Vec<_> = more.take_while(|batch| batch.first_seq < end_seq).cloned().collect();
        let is_end = || from_seq >= end_seq.min(state.ring.next_seq());
        let reaches_back = batches.first().map_or_else(is_end, |first| first.first_seq <= from_seq);
        let are_plain = batches.iter().all(|batch| !batch.concerns_all());
        (is_up(&state.reader) && reaches_back && are_plain).then_some(batches)
    }

    /// What a client at this position misses that all others have; `None`: it has to catch up by itself.
    pub(super) fn missing(&self, at_seq: u64, format: WireFormat) -> Option<Vec<Arc<Batch>>> {
        let batches = self.batches(at_seq, self.seq)?;
        let end_seq = batches.last().map_or(at_seq, |last| last.end_seq());
        let is_whole = at_seq == self.seq || at_seq < self.seq && end_seq >= self.seq;
        let are_made = batches.iter().all(|batch| format.is_in(batch));
        (is_whole && are_made).then_some(batches)
    }
}
