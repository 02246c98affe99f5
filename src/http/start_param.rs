//! Where a client asks to begin in the stream: `Last-Event-ID`, or a query.

use hyper::Request;
use jiff::Timestamp;

use crate::config::{Replay, duration};
use crate::sse::StreamId;
use crate::stream::start::Start;

/// Where the client asks to begin, or what is wrong with its query. The header wins, for a browser that
/// reconnects adds it to the query it began with. A header that is no id of ours is another server's.
pub fn start<B>(request: &Request<B>, replay: Replay) -> Result<Start, String> {
    if let Some(header) = request.headers().get("last-event-id").filter(|value| !value.is_empty()) {
        let id = header.to_str().ok().and_then(|text| text.parse().ok());
        return Ok(id.map_or(Start::Unknown, Start::After));
    }
    let mut start = None;
    let query = request.uri().query().unwrap_or("");
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let wanted = match &*name {
            "last_event_id" | "lastEventId" | "lastEventID" if value.is_empty() => continue,
            "last_event_id" | "lastEventId" | "lastEventID" => last_event_id(&value)?,
            "last" => newest(&value, replay)?,
            "since" => since(&value)?,
            _ => continue,
        };
        if start.replace(wanted).is_some_and(|before| before != wanted) {
            return Err("last_event_id, last and since exclude each other".into());
        }
    }
    Ok(start.unwrap_or(Start::Live))
}

fn last_event_id(value: &str) -> Result<Start, String> {
    if value == "earliest" {
        return Ok(Start::Earliest);
    }
    let id = StreamId::parse_short(value);
    id.map(Start::After).map_err(|error| format!("last_event_id: {error}"))
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
    let now_ms = Timestamp::now().as_millisecond();
    let since_ms = match duration(value) {
        Some(back) => now_ms.saturating_sub(i64::try_from(back.as_millis()).unwrap_or(i64::MAX)),
        // In a query "+" is a space; in an offset it means itself.
        None => {
            value.replace(' ', "+").parse::<Timestamp>().map_err(|_| EXPECTED)?.as_millisecond()
        }
    };
    Ok(Start::Since(u64::try_from(since_ms).unwrap_or(0)))
}
