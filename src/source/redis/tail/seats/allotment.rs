//! How the connections of one server are allotted.

/// A group takes in about so many readers before another one is opened, as long as there are connections for it.
const FIRST_MEMBERS: usize = 16;

/// How many of a server's connections are for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allotment {
    /// Readers that have one of their own.
    pub(super) own: usize,
    /// Groups of readers that share one.
    pub(super) groups: usize,
}

/// Of `connections`, this many read what groups have been told of.
pub(crate) fn reading_links(connections: usize) -> usize {
    (connections / 16).max(1)
}

impl Allotment {
    /// For so many readers, `busy` of which should have a connection of their own. `most_groups`: more are of no use.
    pub(super) fn of(connections: usize, readers: usize, busy: usize, most_groups: usize) -> Self {
        if readers <= connections {
            return Self { own: connections, groups: 0 };
        }
        let room = connections - reading_links(connections);
        let busy = busy.min(most_busy(connections));
        // Each group costs one reader its own connection.
        let wanted = (readers - room).div_ceil(FIRST_MEMBERS - 1);
        let groups = wanted.clamp(1, (room - busy).min(most_groups));
        Self { own: room - groups, groups }
    }
}

/// More readers than this do not count as busy.
pub(super) fn most_busy(connections: usize) -> usize {
    (connections - reading_links(connections)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_has_its_own_connection_until_there_are_too_many() {
        assert_eq!(Allotment::of(64, 64, 0, 64), Allotment { own: 64, groups: 0 });
        assert_eq!(Allotment::of(64, 65, 0, 64), Allotment { own: 59, groups: 1 });
        assert_eq!(Allotment::of(64, 200, 0, 64), Allotment { own: 50, groups: 10 });
        assert_eq!(Allotment::of(64, 10_000, 0, 64), Allotment { own: 0, groups: 60 });
        assert_eq!(Allotment::of(64, 10_000, 20, 64), Allotment { own: 20, groups: 40 });
        assert_eq!(Allotment::of(64, 10_000, 64, 64), Allotment { own: 30, groups: 30 });
        assert_eq!(Allotment::of(64, 10_000, 0, 1), Allotment { own: 59, groups: 1 });
    }

    #[test]
    fn no_allotment_is_of_more_connections_than_there_are_and_each_has_a_group_where_one_is_needed()
    {
        for connections in 2..100 {
            for readers in [1, connections, connections + 1, 10 * connections, 10_000] {
                for busy in [0, 1, connections] {
                    let allotment = Allotment::of(connections, readers, busy, usize::MAX);
                    let reading = if allotment.groups > 0 { reading_links(connections) } else { 0 };
                    assert!(allotment.own + allotment.groups + reading <= connections);
                    assert!(allotment.groups > 0 || readers <= allotment.own);
                }
            }
        }
    }
}
