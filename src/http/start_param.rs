//! Where a client asks to begin in the stream: at a last event id, or at a beginning that its URL names.
//!
//! The operator of a page writes its URL; the client adds a last event id to that, in the header or, where it
//! cannot, in the query. So an id wins over every beginning, and what is wrong with it is told in the stream.
//! A client that names neither begins where its route says.

use std::borrow::Cow;
use std::time::Duration;

use hyper::Request;
use jiff::Timestamp;

use crate::config::{Replay, RouteStart, duration, is_last_event_id};
use crate::sse::StreamId;
use crate::stream::start::Start;

/// Where the client begins, or what is wrong with the beginning in its query. Of several ids the last counts,
/// and those of the header after those of the query: a browser adds it to the URL that it began with.
pub fn start<B>(
    request: &Request<B>,
    replay: Replay,
    route_start: RouteStart,
) -> Result<Start, String> {
    let Written { query, in_query, in_header } = Written::in_request(request);
    let [in_query, in_header] = [in_query, in_header]
        .map(|written| written.iter().map(|value| position(value)).collect::<Vec<_>>());
    let is_id = |start: &&Start| !matches!(start, Start::Earliest | Start::Live);
    if let Some(id) = in_header.iter().rev().chain(in_query.iter().rev()).find(is_id) {
        return Ok(*id);
    }
    if let Some(word) = in_header.last() {
        return Ok(*word);
    }
    let named = beginning(&query, &in_query, replay)?;
    Ok(named.unwrap_or_else(|| of_route(route_start)))
}

/// What a request says of its beginning.
pub(super) struct Written<'a> {
    /// The parameters of its query.
    pub(super) query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Last event ids in that, and what stands in place of one; no empty one.
    pub(super) in_query: Vec<String>,
    /// The same in the head.
    pub(super) in_header: Vec<String>,
}

impl<'a> Written<'a> {
    pub(super) fn in_request<B>(request: &'a Request<B>) -> Self {
        let query = request.uri().query().unwrap_or("");
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
        let in_query = query.iter().filter(|(name, _)| is_last_event_id(name));
        let in_query = in_query.map(|(_, value)| value.trim().to_owned());
        let headers = request.headers().get_all("last-event-id").iter();
        let in_header =
            headers.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
        let is_there = |value: &String| !value.is_empty();
        let in_query = in_query.filter(is_there).collect();
        let in_header = in_header.filter(is_there).collect();
        Self { query, in_query, in_header }
    }
}

/// Where a client begins that names no beginning.
pub(super) fn of_route(start: RouteStart) -> Start {
    match start {
        RouteStart::Live => Start::Live,
        RouteStart::Earliest => Start::Earliest,
        RouteStart::Newest(count) => Start::Newest(count),
        RouteStart::Back(back) => since_back(back),
    }
}

/// What one last event id, or what stands in its place, means. One that is no id of ours is another server's, unless
/// it is a word that clients of other servers begin with. `0-0` is ours: the id of a stream without entries, after
/// which nothing may be missing.
fn position(value: &str) -> Start {
    let id = || StreamId::parse_short(value).map_or(Start::Unknown, Start::After);
    word(value).unwrap_or_else(id)
}

/// What a word means that stands in the place of an id.
pub(super) fn word(value: &str) -> Option<Start> {
    match value {
        "earliest" | "-1" | "0" => Some(Start::Earliest),
        "$" => Some(Start::Live),
        _ => None,
    }
}

/// The beginning that the URL names, without an id; `words` are those in the place of one.
pub(super) fn beginning(
    query: &[(Cow<'_, str>, Cow<'_, str>)],
    words: &[Start],
    replay: Replay,
) -> Result<Option<Start>, String> {
    let mut named = words.to_vec();
    for (name, value) in query {
        match &**name {
            "last" => named.push(newest(value, replay)?),
            "since" => named.push(since(value)?),
            _ => {}
        }
    }
    if named.iter().any(|start| *start != named[0]) {
        return Err("earliest, $, last and since exclude each other".into());
    }
    Ok(named.first().copied())
}

fn newest(value: &str, replay: Replay) -> Result<Start, String> {
    let allowed = match replay {
        Replay::Newest(allowed) => allowed,
        Replay::All => u64::MAX,
    };
    match value.parse() {
        Ok(count) if (1..=allowed).contains(&count) => Ok(Start::Newest(count)),
        _ if allowed == 0 => Err("last: this route is live only".into()),
        _ => Err(format!("last: expected a whole number from 1 to {allowed}")),
    }
}

fn since(value: &str) -> Result<Start, String> {
    const EXPECTED: &str = "since: expected a time back, as in 90s, 15m or 2h, or RFC 3339, as in 2026-01-31T12:00:00Z";
    if let Some(back) = duration(value) {
        return Ok(since_back(back));
    }
    // In a query "+" is a space; in an offset it means itself.
    let time: Timestamp = value.replace(' ', "+").parse().map_err(|_| EXPECTED)?;
    Ok(since_ms(time.as_millisecond()))
}

fn since_back(back: Duration) -> Start {
    let back_ms = i64::try_from(back.as_millis()).unwrap_or(i64::MAX);
    since_ms(Timestamp::now().as_millisecond().saturating_sub(back_ms))
}

fn since_ms(time_ms: i64) -> Start {
    Start::Since(u64::try_from(time_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str, headers: &[&str]) -> Result<Start, String> {
        asked_of(RouteStart::Live, query, headers)
    }

    fn asked_of(route: RouteStart, query: &str, headers: &[&str]) -> Result<Start, String> {
        let mut request = Request::get(format!("/events/a?{query}"));
        for value in headers {
            request = request.header("last-event-id", *value);
        }
        start(&request.body(()).unwrap(), Replay::Newest(100), route)
    }

    fn after(ms: u64) -> Start {
        Start::After(StreamId { ms, seq: 0 })
    }

    #[test]
    fn the_header_and_the_query_are_read_alike() {
        for (value, meant) in [
            ("5-0", after(5)),
            ("5", after(5)),
            ("0-0", after(0)),
            ("earliest", Start::Earliest),
            ("0", Start::Earliest),
            ("-1", Start::Earliest),
            ("$", Start::Live),
            ("$$", Start::Unknown),
            ("-2", Start::Unknown),
            ("00", Start::Unknown),
            ("garbage", Start::Unknown),
            ("1-2-3", Start::Unknown),
            ("01-0", Start::Unknown),
            ("18446744073709551616-0", Start::Unknown),
            ("", Start::Live),
        ] {
            assert_eq!(asked("", &[value]), Ok(meant), "header {value:?}");
            for name in
                ["last_event_id", "lastEventId", "Last-Event-ID", "LAST_EVENT_ID", "lasteventid"]
            {
                assert_eq!(asked(&format!("{name}={value}"), &[]), Ok(meant), "{name}={value}");
            }
        }
    }

    #[test]
    fn an_id_wins_over_a_beginning_and_the_last_of_several_counts() {
        for (query, headers, meant) in [
            ("last=2&lastEventId=5-0", &[][..], after(5)),
            ("lastEventId=5-0&last=2&since=1h", &[], after(5)),
            ("last=x&lastEventId=5-0", &[], after(5)),
            ("lastEventId=5-0&last_event_id=earliest", &[], after(5)),
            ("last=2&lastEventId=another-servers", &[], Start::Unknown),
            ("last_event_id=5-0&lastEventId=7-0", &[], after(7)),
            ("last_event_id=5-0&lastEventId=", &[], after(5)),
            ("last_event_id=7-0", &["5-0"], after(5)),
            ("last_event_id=7-0", &["5-0", "6-0", ""], after(6)),
            ("last_event_id=7-0", &["earliest"], after(7)),
            ("last=2", &["earliest"], Start::Earliest),
            ("last=2", &["5"], after(5)),
            ("last=2&last=2&lastEventId=", &[], Start::Newest(2)),
            ("last=2", &["$"], Start::Live),
            ("last=2", &["earliest", "$"], Start::Live),
            ("lastEventId=earliest", &["$"], Start::Live),
            ("lastEventId=5-0", &["$"], after(5)),
            ("lastEventId=-1&last_event_id=0", &[], Start::Earliest),
        ] {
            assert_eq!(asked(query, headers), Ok(meant), "{query} {headers:?}");
        }
        for contradiction in [
            "last=2&last=3",
            "last=2&since=1h",
            "last_event_id=earliest&last=2",
            "last_event_id=$&last=2",
            "last_event_id=$&lastEventId=-1",
        ] {
            assert!(asked(contradiction, &[]).is_err(), "{contradiction}");
        }
    }

    #[test]
    fn a_client_that_names_no_beginning_begins_where_its_route_says() {
        let newest = RouteStart::Newest(7);
        for (route, meant) in [
            (RouteStart::Live, Start::Live),
            (RouteStart::Earliest, Start::Earliest),
            (newest, Start::Newest(7)),
        ] {
            for (query, headers) in [("", &[][..]), ("last_event_id=", &[]), ("a=b", &[""])] {
                assert_eq!(asked_of(route, query, headers), Ok(meant), "{query} {headers:?}");
            }
        }
        let back = RouteStart::Back(Duration::from_secs(900));
        let before = Timestamp::now().as_millisecond() - 900_000;
        let Ok(Start::Since(ms)) = asked_of(back, "", &[]) else { panic!("not a time") };
        assert!((before..before + 600_000).contains(&i64::try_from(ms).unwrap()), "{ms}");
        for (query, headers, meant) in [
            ("last=2", &[][..], Start::Newest(2)),
            ("last_event_id=$", &[], Start::Live),
            ("", &["$"], Start::Live),
            ("", &["-1"], Start::Earliest),
            ("", &["5-0"], after(5)),
            ("", &["garbage"], Start::Unknown),
        ] {
            assert_eq!(asked_of(newest, query, headers), Ok(meant), "{query} {headers:?}");
        }
        assert!(asked_of(newest, "last=x", &[]).is_err());
    }
}
