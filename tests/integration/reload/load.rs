//! Many reloads, one after the other, while a crowd listens.

use super::*;
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address, Stream};
use crate::support::viewer::{Ends, Viewers, Writer};

const VIEWERS: usize = 500;
const RELOADS: usize = 40;

#[test]
fn no_event_is_lost_however_often_the_file_is_read() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let runtime = swarm::crowd();
    let viewers =
        Viewers::start(&runtime, &Address::Tcp(gateway.address.clone()), VIEWERS, Ends::Well);
    let writer = Writer::start(&redis, 1, Duration::from_millis(10));
    let other = |keepalive: &str, more: &str| {
        let routes = route(more, "more") + &route("/events/{name}", "events:{name}");
        Setup::redis(&redis).routes(&routes).set("server", &format!("keepalive = {keepalive:?}"))
    };
    for round in 0..RELOADS {
        // Every third one is refused.
        match round % 3 {
            0 => gateway.write(&other("1s", "/more")),
            1 => gateway.write(&Setup::redis(&redis)),
            _ => gateway.write(&other("0s", "/more")),
        }
        gateway.reload();
        // And several at once.
        (0..5).for_each(|_| gateway.signal("HUP"));
        writer.writes(1);
    }
    let entries = writer.stop();
    assert!(entries >= RELOADS);
    for journey in viewers.join(&runtime) {
        assert_eq!((journey.connections, journey.drains), (1, 0), "a stream was cut");
    }
    gateway.has_logged("the reload was rejected");
    let kept = format!("\"kept\":{VIEWERS},\"ended\":0");
    assert!(gateway.log().matches(&kept).count() >= RELOADS / 2, "{}", gateway.log());
}

#[test]
fn a_crowd_whose_route_is_gone_is_disconnected_in_time() {
    let gateway = Setup::memory()
        .routes(
            &(route("/gone/{name}", "events:{name}") + &route("/events/{name}", "events:{name}")),
        )
        .start_ready();
    let mut kept = live(&gateway, "/events/a");
    let runtime = swarm::crowd();
    let address = Address::Tcp(gateway.address.clone());
    let opened = (0..2 * VIEWERS).map(|number| {
        let (address, path) = (address.clone(), format!("/gone/{}", number % 10));
        runtime.spawn(async move {
            let mut stream = Stream::open(&address, &path, None).await?;
            stream.live().await.map(|()| stream)
        })
    });
    let opened: Vec<_> = opened.collect();
    let streams = opened.into_iter().map(|task| runtime.block_on(task).unwrap().unwrap());
    let streams: Vec<_> = streams.collect();
    gateway.write(&Setup::memory());
    let begin = Instant::now();
    let hear = |mut stream: Stream| {
        runtime.spawn(async move {
            let event = stream.event().await?;
            while stream.next().await?.is_some() {}
            Ok::<_, String>((event.data, stream.complete, begin.elapsed()))
        })
    };
    let ends: Vec<_> = streams.into_iter().map(hear).collect();
    assert_eq!(judged(&gateway.reload()), (1, 2 * VIEWERS as u64));
    for end in ends {
        let (data, complete, after) = runtime.block_on(end).unwrap().unwrap();
        assert_eq!((data.as_str(), complete), ("{\"type\":\"expired\"}", true));
        assert!(after < Duration::from_secs(5), "after {after:?}");
    }
    gateway.publish("events:a", "on");
    assert_eq!(kept.event().data, "on");
}
