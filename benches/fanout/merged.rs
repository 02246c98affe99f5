//! Clients that follow several streams on one connection: which, and the row.

use anyhow::Result;

use crate::entry::leading_number;
use crate::measure::Server;
use crate::rows::{Stage, cpu_beside_floor};
use crate::scenario::{Follows, Scenario};
use crate::table::{Figure, Goal};

/// So many streams on one connection.
pub(crate) const PARTS: u64 = 3;

/// The gateway's route of them.
pub(crate) const ROUTE: &str = r#"
[[route]]
path = "/merged"
merge_query = { name = "stream", key = "events:{stream}", most = 32 }
event = { stream = true }
access = "public"
"#;

/// The streams of a client, of so many: with three all have the same, with more hardly two.
pub(crate) fn streams_of(client: u64, keys: u64) -> [u64; 3] {
    let third = keys / PARTS;
    let (first, rest) = (client % third, client / third);
    [first, third + rest % third, 2 * third + rest / third % third]
}

/// How a client asks for its streams.
pub(crate) fn request(streams: &[u64]) -> String {
    let streams: Vec<_> = streams.iter().map(|stream| format!("stream={stream}")).collect();
    format!(
        "GET /merged?{} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        streams.join("&")
    )
}

/// The streams of such a request.
pub(crate) fn requested(request: &[u8]) -> Option<Vec<usize>> {
    let query = request.strip_prefix(b"GET /merged?")?;
    let query = query.split(|byte| *byte == b' ').next()?;
    let stream = |pair: &[u8]| leading_number(pair.strip_prefix(b"stream=")?).map(|found| found.0);
    let streams = query.split(|byte| *byte == b'&').map(stream);
    streams.map(|stream| usize::try_from(stream?).ok()).collect()
}

/// A thousand clients with the same streams, and a thousand with others each.
pub(crate) fn merged(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let same =
        Scenario { follows: Follows::Several, keys: PARTS, rate: 99.0, ..Scenario::default() };
    let gateway = stage.measure_on_time(same, Server::Gateway)?;
    let floor = stage.measure_on_time(same, Server::Floor(1))?;
    let mut figures = cpu_beside_floor(&gateway, &floor, Goal::RatioAtMost(1.15));
    figures.push(Figure::new("p99 ms", 2, gateway.p99_ms()).beside("floor", floor.p99_ms()));
    let own = Scenario { keys: 10 * PARTS, rate: 300.0, ..same };
    let gateway = stage.measure_on_time(own, Server::Gateway)?;
    let floor = stage.measure_on_time(own, Server::Floor(1))?;
    figures.extend([
        Figure::new("CPU us/delivery, sets of their own", 2, gateway.cpu_us_per_delivery())
            .beside("floor", floor.cpu_us_per_delivery())
            .goal(Goal::RatioAtMost(2.0)),
        Figure::new("their p99 ms", 2, gateway.p99_ms()).beside("floor", floor.p99_ms()),
    ]);
    Ok(figures)
}
