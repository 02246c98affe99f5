//! The renderings that a topic's batches are encoded for. A client knows its own by number; a rendering that a
//! reload has replaced is retired with its last client, and its number is never used again.

use std::sync::Arc;

use crate::sse::Rendering;

/// The renderings of one topic.
#[derive(Clone, Default)]
pub struct Renderings {
    /// By number.
    made: Vec<Made>,
    /// How many there have been: the next one's number.
    registered: usize,
}

#[derive(Clone)]
struct Made {
    number: usize,
    rendering: Arc<Rendering>,
    clients: usize,
    /// No route has it any more.
    replaced: bool,
}

impl Renderings {
    /// The number of a rendering, for one more client. A new one is registered: all batches from now on have it.
    pub fn enter(&mut self, rendering: &Arc<Rendering>) -> usize {
        let known = self.made.iter().position(|made| made.rendering == *rendering);
        let index = known.unwrap_or_else(|| {
            let (number, rendering) = (self.registered, rendering.clone());
            self.registered += 1;
            // Most topics have one.
            self.made.reserve_exact(1);
            self.made.push(Made { number, rendering, clients: 0, replaced: false });
            self.made.len() - 1
        });
        self.made[index].clients += 1;
        self.made[index].number
    }

    /// The same for one of these, or else for any that is made: preferably for one that costs nothing more.
    pub fn enter_any(&mut self, wanted: &[Arc<Rendering>]) -> Option<usize> {
        let made = || self.made.iter().map(|made| &made.rendering);
        let wanted_and_made = made().find(|made| wanted.contains(made));
        let chosen = wanted_and_made.or(wanted.first()).or(made().next())?.clone();
        Some(self.enter(&chosen))
    }

    /// A client has left.
    pub(super) fn leave(&mut self, number: usize) {
        for made in self.made.iter_mut().filter(|made| made.number == number) {
            made.clients -= 1;
        }
        self.retire();
    }

    /// From now on the routes have other renderings: those that are not `wanted` are made for the clients that have
    /// them, and no longer.
    pub fn replace(&mut self, wanted: impl Fn(&Rendering) -> bool) {
        for made in &mut self.made {
            made.replaced = !wanted(&made.rendering);
        }
        self.retire();
    }

    /// The rendering with this number, while a client has it.
    pub fn get(&self, number: usize) -> Option<&Rendering> {
        self.iter().find(|(made, _)| *made == number).map(|(_, rendering)| rendering)
    }

    /// Each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Rendering)> {
        self.made.iter().map(|made| (made.number, &*made.rendering))
    }

    /// Whether one was registered since `earlier`.
    pub(super) fn has_more_than(&self, earlier: &Self) -> bool {
        self.registered > earlier.registered
    }

    fn retire(&mut self) {
        self.made.retain(|made| made.clients > 0 || !made.replaced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Data, Entry, EventName, StreamId};
    use crate::stream::{Hub, Item, Lease};

    fn rendering(event: &str) -> Rendering {
        Rendering {
            event: EventName::Fixed(event.into()),
            data: Data::Field("payload".into()),
            missing: None,
            ..Rendering::default()
        }
    }

    /// The numbers of the renderings that the topic's next batch has.
    fn made_next(lease: &Lease) -> Vec<usize> {
        let topic = lease.topic();
        let seq = topic.state().ring.next_seq();
        let id = StreamId { ms: seq + 1, seq: 0 };
        topic.push(&[Item::Entry(Entry { id, fields: Vec::new() })], 1000);
        let state = topic.state();
        let batch = state.ring.at(seq).unwrap();
        (0..9).filter(|number| batch.has(*number)).collect()
    }

    #[test]
    fn a_replaced_rendering_is_made_for_its_clients_and_goes_with_the_last_of_them() {
        let config = crate::config::parse("", "", &[], true).unwrap().config;
        let hub = Hub::new(config.ring, 10);
        let open = |event| {
            let mut lease = hub.open("events:a", |_| ()).unwrap();
            let number = lease.render(&Arc::new(rendering(event)));
            (lease, number)
        };
        let (old, other) = (open("old"), open("old"));
        assert_eq!((old.1, other.1, made_next(&old.0)), (0, 0, vec![0]));
        let reload = |event| {
            let wanted = rendering(event);
            old.0.topic().state().renderings.replace(|rendering| *rendering == wanted);
        };
        reload("new");
        let new = open("new");
        assert_eq!((new.1, made_next(&new.0)), (1, vec![0, 1]));
        drop(other);
        assert_eq!(made_next(&new.0), [0, 1]);
        // The operator looks on as one of them does.
        let mut onlooker = hub.open("events:a", |_| ()).unwrap();
        assert_eq!(onlooker.render_any(&[Arc::new(rendering("new"))]), Some(1));
        drop((old, onlooker));
        assert_eq!(made_next(&new.0), [1]);
        // Without clients it is still made: they come back, and find what they missed in the ring.
        let watcher = hub.open("events:a", |_| ()).unwrap();
        drop(new);
        assert_eq!(made_next(&watcher), [1]);
        watcher.topic().state().renderings.replace(|_| false);
        assert_eq!(made_next(&watcher), [0; 0]);
        assert_eq!(open("old").1, 2, "what the ring has under the old number has a hole");
    }
}
