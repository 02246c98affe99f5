//! Where the parts of a merged stream begin: each as the composite last event id says, or as the request says of all.

use hyper::Request;

use super::start_param::{Written, beginning, of_route, word};
use crate::config::{Replay, RouteStart};
use crate::sse::{StreamId, parse_composite};
use crate::stream::start::Start;

/// Where a client of several streams begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MergedStart {
    /// Each of the parts, in their order.
    pub(super) parts: Vec<Start>,
    /// Positions of the client in streams that are no parts.
    pub(super) strangers: Vec<(String, StreamId)>,
}

/// So many streams that are no parts are told of by name.
const MOST_STRANGERS: usize = 64;

/// Where the parts with these names begin, or what is wrong with the beginning in the query. Which of several ids
/// counts, and what it is to an id that there is a beginning, is as for one stream.
pub(super) fn merged_start<B>(
    request: &Request<B>,
    replay: Replay,
    route_start: RouteStart,
    names: &[&str],
) -> Result<MergedStart, String> {
    let written = Written::in_request(request);
    let is_id = |value: &&String| word(value).is_none();
    let id = written.in_header.iter().rev().chain(written.in_query.iter().rev()).find(is_id);
    let in_query: Vec<Start> = written.in_query.iter().filter_map(|value| word(value)).collect();
    let of_url = || beginning(&written.query, &in_query, replay);
    let Some(id) = id else {
        let word = written.in_header.iter().filter_map(|value| word(value)).next_back();
        let start = match word {
            Some(start) => start,
            None => of_url()?.unwrap_or_else(|| of_route(route_start)),
        };
        return Ok(MergedStart { parts: vec![start; names.len()], strangers: Vec::new() });
    };
    let Some(positions) = parse_composite(id.trim()) else {
        return Ok(MergedStart { parts: vec![Start::Unknown; names.len()], strangers: Vec::new() });
    };
    // A part without a position has given its client nothing: it begins as it did.
    let start = of_url().ok().flatten().unwrap_or_else(|| of_route(route_start));
    let of_part = |name: &&str| {
        let position = positions.iter().find(|(known, _)| known == name);
        position.map_or(start, |(_, id)| Start::After(*id))
    };
    let parts = names.iter().map(of_part).collect();
    let strangers = positions.iter().filter(|(name, _)| !names.contains(name));
    let strangers = strangers.take(MOST_STRANGERS).map(|(name, id)| ((*name).to_owned(), *id));
    Ok(MergedStart { parts, strangers: strangers.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str, headers: &[&str]) -> Result<MergedStart, String> {
        let mut request = Request::get(format!("/all?{query}"));
        for value in headers {
            request = request.header("last-event-id", *value);
        }
        let request = request.body(()).unwrap();
        merged_start(&request, Replay::Newest(100), RouteStart::Newest(3), &["chat", "alerts"])
    }

    fn after(ms: u64) -> Start {
        Start::After(StreamId { ms, seq: 0 })
    }

    #[test]
    fn each_part_begins_after_its_own_id() {
        let of_route = Start::Newest(3);
        for (query, headers, parts) in [
            ("", &["chat=5-0,alerts=7-0"][..], [after(5), after(7)]),
            ("", &["alerts=7-0,chat=5-0"], [after(5), after(7)]),
            ("last_event_id=chat%3D5-0,alerts%3D7-0", &[], [after(5), after(7)]),
            ("last_event_id=chat%3D5-0", &["chat=6-0"], [after(6), of_route]),
            ("", &["alerts=0-0"], [of_route, after(0)]),
            ("last=2", &["alerts=7-0"], [Start::Newest(2), after(7)]),
            ("last=2", &[], [Start::Newest(2); 2]),
            ("", &[], [of_route; 2]),
            ("", &[""], [of_route; 2]),
            ("", &["$"], [Start::Live; 2]),
            ("last_event_id=earliest", &[], [Start::Earliest; 2]),
            ("", &["chat=5-0", "earliest"], [after(5), of_route]),
        ] {
            let found = asked(query, headers).unwrap();
            assert_eq!(
                (&found.parts[..], &found.strangers[..]),
                (&parts[..], &[][..]),
                "{query} {headers:?}"
            );
        }
        assert!(asked("last=x", &[]).is_err());
        assert!(asked("last=x", &["chat=5-0"]).is_ok(), "an id wins");
    }

    #[test]
    fn an_id_that_is_none_of_ours_is_unknown_to_every_part() {
        for id in ["5-0", "garbage", "chat=5-0,", "chat=x", "chat=5-0,chat=6-0"] {
            assert_eq!(asked("", &[id]).unwrap().parts, [Start::Unknown; 2], "{id}");
        }
    }

    #[test]
    fn a_name_that_is_no_part_is_a_stranger_to_no_other() {
        let found = asked("", &["chat=5-0,news=9-0"]).unwrap();
        assert_eq!(found.parts, [after(5), Start::Newest(3)]);
        assert_eq!(found.strangers, [("news".to_owned(), StreamId { ms: 9, seq: 0 })]);
        let many: Vec<String> = (0..300).map(|n| format!("{n}=1-0")).collect();
        assert_eq!(asked("", &[&many.join(",")]).unwrap().strangers.len(), 64);
    }
}
