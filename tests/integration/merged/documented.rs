//! What docs/merged.md shows is done here as it is written there.

use serde_json::json;

use crate::documents::block;
use crate::support::address::own_addresses;
use crate::support::browser::Browser;
use crate::support::gateway::Setup;
use crate::support::redis::Redis;
use crate::support::within;

const PAGE: &str = "docs/merged.md";
/// A browser that has lost its server comes back after up to three times `retry`, and then some.
const BACK: std::time::Duration = std::time::Duration::from_secs(40);

#[test]
fn the_page_goes_on_in_each_stream_after_a_restart() {
    let redis = Redis::start();
    // No other test takes it while the gateway is away.
    let [address, _] = own_addresses();
    let start = || {
        Setup::redis(&redis)
            .routes(&block(PAGE, "The route", "toml"))
            .set("server", &format!("listen = [\"{address}\"]"))
            .set("server", &format!("hosts = [\"{}\"]", address.ip()))
            .start_ready()
    };
    let mut gateway = start();
    let browser = Browser::start();
    browser.open(&format!("http://{}/nothing", gateway.address));
    let follow = block(PAGE, "The page", "js");
    browser.script(&format!(
        "{follow}
        window.got = {{ chat: [], alerts: [], control: [] }};
        const keep = name => data => window.got[name].push(data);
        follow('/me/u', {{ chat: keep('chat'), alerts: keep('alerts') }}, told => keep('control')(told.type));"
    ));
    let got = |expected: serde_json::Value| {
        within(BACK, &format!("the page has {expected}"), || {
            browser.script("return window.got ?? null") == expected
        });
    };
    got(json!({ "chat": [], "alerts": [], "control": ["live"] }));
    redis.add("chat:u", "c0");
    redis.add("alerts", "a0");
    got(json!({ "chat": ["c0"], "alerts": ["a0"], "control": ["live"] }));
    gateway.kill();
    redis.add("alerts", "a1");
    redis.add("chat:u", "c1");
    let _gateway = start();
    got(json!({ "chat": ["c0", "c1"], "alerts": ["a0", "a1"], "control": ["live", "live"] }));
}
