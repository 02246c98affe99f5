//! Stream ids. Clients send them back as their last event id, which nobody can trust: only the canonical form
//! parses. Gaps rely on the neighbours of an id.

use proptest::prelude::*;

use super::super::{NotAnId, StreamId};
use super::stream_id;

proptest! {
    #![proptest_config(crate::seed::cases())]

    #[test]
    fn ids_print_and_parse(id in stream_id()) {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(StreamId::parse_short(&id.to_string()), Ok(id));
        prop_assert_eq!(StreamId::parse_short(&id.ms.to_string()), Ok(StreamId { seq: 0, ..id }));
    }

    #[test]
    fn only_printed_ids_parse(text in "[-+ 0-9]{0,6}|\\PC{0,8}") {
        if let Ok(id) = text.parse::<StreamId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn next_and_prev_undo_each_other(id in stream_id()) {
        let last = StreamId { ms: u64::MAX, seq: u64::MAX };
        prop_assert_eq!(id.next().is_none(), id == last);
        prop_assert!(id.next().is_none_or(|next| next > id && next.prev() == id));
        prop_assert!(id == StreamId::ZERO || id.prev().next() == Some(id));
    }
}

#[test]
fn text_that_only_looks_like_an_id_is_refused() {
    for text in [
        "",
        "-",
        "$",
        "+",
        ">",
        "*",
        "0",
        "5",
        "1-",
        "-1",
        "01-0",
        "1-00",
        "+1-0",
        "1-+0",
        "--1",
        "1--0",
        "1-0-0",
        " 1-0",
        "1-0 ",
        "1 -0",
        "1-0\n",
        "1-0\0",
        "0x1-0",
        "1_0-0",
        "١-٠",
        "1-18446744073709551616",
        "18446744073709551616-0",
        "99999999999999999999999-0",
        "1.0-0",
        "1-*",
    ] {
        assert_eq!(text.parse::<StreamId>(), Err(NotAnId), "{text:?}");
    }
    for text in ["", "-1", "05", "5-", "+5", "$", "5 ", "18446744073709551616"] {
        assert_eq!(StreamId::parse_short(text), Err(NotAnId), "{text:?}");
    }
    assert_eq!("0-0".parse(), Ok(StreamId::ZERO));
    assert_eq!(StreamId::ZERO.prev(), StreamId::ZERO);
    assert_eq!(StreamId { ms: 5, seq: 0 }.prev(), StreamId { ms: 4, seq: u64::MAX });
    assert!(StreamId { ms: 2, seq: 0 } > StreamId { ms: 1, seq: u64::MAX });
}
