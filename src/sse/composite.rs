//! The last event id of a client that follows several streams: the position in each, by the stream's name.

use super::StreamId;

/// The longest composite id.
pub const COMPOSITE_BYTES: usize = 4 << 10;
/// The longest name of a stream that a client may come back with.
const NAME_BYTES: usize = 128;
/// The longest id of one stream.
const ID_BYTES: usize = 41;

/// How long the composite id of streams with these names can become.
pub fn longest_composite_bytes<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let parts: usize = names.map(|name| name.len() + "=,".len() + ID_BYTES).sum();
    parts.saturating_sub(",".len())
}

/// The composite id of these positions; `None` where there is none.
pub fn composite_id<'a>(positions: impl Iterator<Item = (&'a str, StreamId)>) -> Option<String> {
    let parts: Vec<String> = positions.map(|(name, id)| format!("{name}={id}")).collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The positions in a composite id, by the names of their streams; `None`: it is none of ours.
pub fn parse_composite(text: &str) -> Option<Vec<(&str, StreamId)>> {
    if text.len() > COMPOSITE_BYTES {
        return None;
    }
    let mut positions: Vec<(&str, StreamId)> = Vec::new();
    for part in text.split(',') {
        let (name, id) = part.split_once('=')?;
        let is_known = positions.iter().any(|(known, _)| *known == name);
        if name.is_empty() || name.len() > NAME_BYTES || is_known {
            return None;
        }
        positions.push((name, StreamId::parse_short(id).ok()?));
    }
    Some(positions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    #[test]
    fn positions_stand_in_the_order_of_the_streams() {
        let positions = [("chat", id(1_700_000_000_000, 0)), ("alerts", id(1_690_000_000_000, 3))];
        let written = "chat=1700000000000-0,alerts=1690000000000-3";
        assert_eq!(composite_id(positions.into_iter()).as_deref(), Some(written));
        assert_eq!(parse_composite(written), Some(positions.to_vec()));
        assert_eq!(composite_id([].into_iter()), None);
        assert_eq!(parse_composite("a=5"), Some(vec![("a", id(5, 0))]), "an id may be short");
    }

    #[test]
    fn what_is_none_of_ours_is_no_composite() {
        let long = format!("{}=1-0", "x".repeat(129));
        let many = vec!["a=1-0"; 1000].join(",");
        for text in [
            "",
            ",",
            "=",
            "a",
            "a=",
            "=1-0",
            "1-0",
            "a=1-0,",
            ",a=1-0",
            "a=1-0,a=1-0",
            "a=x",
            "a=1-0 ",
            "a=01-0",
            "a=b=1-0",
            "a=1-0;b=1-0",
            "a=-1",
            &long,
            &many,
        ] {
            assert_eq!(parse_composite(text), None, "{text}");
        }
    }

    #[test]
    fn the_longest_is_known_beforehand() {
        let names = ["a", "chat.room-1"];
        let most = StreamId { ms: u64::MAX, seq: u64::MAX };
        let longest = composite_id(names.into_iter().map(|name| (name, most))).unwrap();
        assert_eq!(longest_composite_bytes(names.into_iter()), longest.len());
        assert_eq!(longest_composite_bytes([].into_iter()), 0);
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn what_is_written_is_read_again(
            parts in prop::collection::btree_map("[A-Za-z0-9_.-]{1,64}", any::<(u64, u64)>(), 1..30)
        ) {
            let positions: Vec<_> =
                parts.iter().map(|(name, (ms, seq))| (name.as_str(), id(*ms, *seq))).collect();
            let written = composite_id(positions.iter().copied()).unwrap();
            prop_assert_eq!(parse_composite(&written), Some(positions));
        }

        #[test]
        fn hostile_text_is_read_or_refused(text in "[a=,0-9\\-\\PC]{0,60}") {
            if let Some(positions) = parse_composite(&text) {
                let again = composite_id(positions.iter().copied()).unwrap();
                prop_assert_eq!(parse_composite(&again), Some(positions));
            }
        }
    }
}
