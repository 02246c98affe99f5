//! What Prometheus and Grafana are given: the metrics are as the conventions want them and do not grow
//! with clients and keys; rules, runbook and dashboard go by what is really exported; a real Prometheus
//! has its alerts fire and end.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use crate::documents;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::prometheus::{Prometheus, RULES, promtool};
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address, Stream};
use crate::support::{DEADLINE, eventually, within};

mod promql;
mod values;

use promql::{Exported, Named, exported};

const DASHBOARD: &str = include_str!("../../deploy/grafana/ssegate.json");
const RUNBOOK: &str = include_str!("../../deploy/prometheus/RUNBOOK.md");

/// Redis away, a crowd at the gateway: longer than a wait for one thing that happens at once.
const LONG: Duration = Duration::from_secs(180);

/// An event of each kind that most metrics count has happened.
fn busy(redis: &Redis) -> (Gateway, Client) {
    let gateway = Setup::redis(redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    redis.add("events:a", "one");
    client.entry();
    (gateway, client)
}

/// The dashboard's panels but its rows' titles.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// A panel's expressions, for this gateway and the last seconds.
fn expressions(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().unwrap().iter();
    let filled = targets.map(|target| {
        let expression = target["expr"].as_str().unwrap();
        ["$__rate_interval", "$__range"]
            .iter()
            .fold(expression.to_owned(), |text, interval| text.replace(interval, "10s"))
            .replace("$job", "ssegate")
            .replace("$instance", ".+")
    });
    filled.collect()
}

/// What the gateway exports, what Prometheus adds to it, and what its rules record.
fn known(gateway: &Gateway, rules: &[Value]) -> Exported {
    let mut known = exported(&gateway.admin_get("/metrics").body);
    known.insert("up".into(), HashSet::new());
    for rule in rules.iter().filter(|rule| rule["type"] == "recording") {
        let named = Named::by(rule["query"].as_str().unwrap());
        let labels = named.metrics.iter().flat_map(|(metric, _)| known.get(metric).cloned());
        let labels = labels.flatten().collect();
        known.insert(rule["name"].as_str().unwrap().into(), labels);
    }
    known
}

#[test]
fn promtool_finds_no_fault_in_the_metrics() {
    let redis = Redis::start();
    let (gateway, _client) = busy(&redis);
    let checked = promtool(&["check", "metrics"], &gateway.admin_get("/metrics").body);
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{}: {said}", checked.status);
    let faulty = promtool(&["check", "metrics"], "# TYPE x counter\nx 1\n");
    assert!(!faulty.status.success(), "a counter without _total and help is a fault");
}

#[test]
fn promtool_finds_no_fault_in_the_rules_and_their_tests_pass() {
    let lint = ["--lint=all", "--lint-fatal"];
    for arguments in [
        &["check", "config", lint[0], lint[1], "scrape.yml"][..],
        &["check", "rules", lint[0], lint[1], "rules.yml"],
        &["test", "rules", "rules.test.yml"],
    ] {
        let output = promtool(arguments, "");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn the_exposition_does_not_grow_with_keys_and_clients() {
    const CROWD: usize = 1000;
    let gateway = Setup::memory()
        .set("limits", "readers = 2000")
        .set("limits", "readers_per_ip = 2000")
        .start_ready();
    gateway.publish("events:a", "one");
    let series = || {
        let text = gateway.admin_get("/metrics").body;
        let sample = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
        text.lines().filter_map(sample).collect::<HashSet<_>>()
    };
    let before = series();
    assert!(before.len() > 100, "{before:?}");
    let runtime = swarm::crowd();
    let address = Address::Tcp(gateway.address.clone());
    let streams: Vec<_> = (0..CROWD)
        .map(|number| {
            let address = address.clone();
            runtime.spawn(async move {
                let (path, id) = (format!("/events/made-up-{number}"), format!("{number}-7"));
                let id = (number % 2 == 0).then_some(&*id);
                let mut stream = Stream::open(&address, &path, id).await?;
                if id.is_none() {
                    stream.live().await?;
                }
                Ok::<_, String>(stream)
            })
        })
        .collect();
    let streams: Vec<_> =
        streams.into_iter().map(|task| runtime.block_on(task).unwrap().unwrap()).collect();
    assert_eq!(gateway.metric("ssegate_readers"), CROWD as f64);
    for number in 0..20 {
        for request in [
            format!("GET /no/{number} HTTP/1.1\r\nHost: {number}.example"),
            format!("MADE{number} /events/a HTTP/1.1\r\nHost: x"),
            format!("GET /events/a?last=x{number} HTTP/1.1\r\nHost: x"),
            format!("GET /events/a HTTP/1.1\r\nHost: x\r\nAccept: made/up{number}"),
            format!("GET /events/a HTTP/9.{number}\r\nHost: x"),
        ] {
            exchange(&gateway.address, &format!("{request}\r\nConnection: close\r\n\r\n"));
        }
    }
    drop(streams);
    eventually("they have left", || gateway.metric("ssegate_clients") == 0.0);
    let after = series();
    let new: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
}

#[test]
fn every_metric_and_label_that_is_named_is_exported() {
    let redis = Redis::start();
    let (gateway, _client) = busy(&redis);
    let rules = Prometheus::start(&gateway.admin, RULES).rules();
    let known = known(&gateway, &rules);
    let mut faults = Vec::new();
    for rule in &rules {
        let found = Named::by(rule["query"].as_str().unwrap()).faults(&known);
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", rule["name"])));
    }
    for panel in panels() {
        for expression in expressions(&panel) {
            let found = Named::by(&expression).faults(&known);
            faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", panel["title"])));
        }
    }
    let pages = documents::pages().into_iter().map(|page| documents::read(&page));
    for text in pages.chain([RUNBOOK.to_owned()]) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics =
            words.filter(|word| word.starts_with("ssegate_") || word.starts_with("process_"));
        let of_histogram = |word: &str| known.contains_key(&format!("{word}_bucket"));
        let unknown = metrics.filter(|word| !known.contains_key(*word) && !of_histogram(word));
        faults.extend(unknown.map(|word| format!("in the text: no metric {word}")));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() {
    let redis = Redis::start();
    let (gateway, _client) = busy(&redis);
    let mut rules = Prometheus::start(&gateway.admin, RULES).rules();
    rules.retain(|rule| rule["type"] == "alerting");
    let mut sections: Vec<_> =
        RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for alert in &rules {
        let name = alert["name"].as_str().unwrap();
        assert!(name.starts_with("Ssegate"), "{name}");
        let annotations = &alert["annotations"];
        let link = format!("RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(annotations["runbook_url"], link.as_str(), "{name}");
        assert!(annotations["summary"].is_string() && annotations["description"].is_string());
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let pages_for_one = alert["query"].as_str().unwrap().contains("scope=\"resume\"");
        assert!(!pages_for_one, "{name}: a client that was away wakes no operator");
        let section = sections.iter().position(|section| *section == name);
        sections.remove(section.unwrap_or_else(|| panic!("{name} has no section")));
    }
    assert!(sections.is_empty(), "no such alerts: {sections:?}");
    let asked = ["**Means.**", "**Look at.**", "**Do.**"].map(|word| RUNBOOK.matches(word).count());
    assert_eq!(asked, [rules.len(); 3]);
}

#[test]
fn the_dashboard_is_fit_to_be_imported() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert_eq!((&dashboard["id"], &dashboard["uid"]), (&Value::Null, &"ssegate".into()));
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables: Vec<_> = variables.map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    let mut ids = HashSet::new();
    for panel in panels() {
        let title = &panel["title"];
        let source = serde_json::json!({ "type": "prometheus", "uid": "${datasource}" });
        assert_eq!(panel["datasource"], source, "{title}");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 5), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], source, "{title}");
            let expression = target["expr"].as_str().unwrap();
            let chosen = "{job=~\"$job\", instance=~\"$instance\"";
            assert!(expression.contains(chosen), "{title}: {expression}");
            let grouped = Named::by(expression).grouped;
            let legend = target["legendFormat"].as_str().unwrap().split("{{").skip(1);
            let mut labels = legend.map(|rest| rest.split("}}").next().unwrap().to_owned());
            assert!(labels.all(|label| grouped.contains(&label)), "{title}: its legend");
        }
    }
}

/// The shipped rules in a hurry: pending for a second instead of minutes, and over seconds instead of
/// minutes. What they compare is as it is.
fn hurried() -> String {
    let mut text = String::new();
    for line in RULES.lines() {
        let pending = line.trim_start().starts_with("for: ");
        text += if pending { "        for: 1s" } else { line };
        text += "\n";
    }
    text.replace("[5m]", "[10s]").replace("[10m]", "[10s]")
}

#[test]
fn alerts_fire_when_something_is_wrong_and_end_when_it_is_over() {
    let mut redis = Redis::start();
    let (mut gateway, client) = busy(&redis);
    let prometheus = Prometheus::start(&gateway.admin, &hurried());
    let is_firing = |alert: &str| prometheus.firing().iter().any(|firing| firing == alert);
    every_panel_shows_something(&prometheus);
    assert_eq!(prometheus.firing(), [""; 0], "all is well");

    redis.kill();
    within(LONG, "Redis is missed", || is_firing("SsegateRedisUnavailable"));
    assert_eq!(prometheus.firing(), ["SsegateRedisUnavailable"], "and nothing else fires");
    redis.launch();
    within(LONG, "Redis is back", || !is_firing("SsegateRedisUnavailable"));
    drop(client);

    // The data are gone with Redis: the stream is recreated.
    let mut client = Client::open(&gateway.address, "/events/b");
    client.live();
    within(LONG, "the alert for what was lost with Redis ends", || prometheus.firing().is_empty());
    Client::resume(&gateway.address, "/events/b", "5-5").control();
    eventually("one client's gap is known", || {
        let gaps = prometheus.query("sum(increase(ssegate_gaps_total{scope=\"resume\"}[10s]))");
        gaps.unwrap().iter().any(|gap| gap["value"][1] != "0")
    });
    assert_eq!(prometheus.firing(), [""; 0], "it is no fault");
    let script = "for id = 1, 5 do redis.call('XADD', KEYS[1], id .. '-0', 'payload', 'x') end \
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)";
    redis.run(&["EVAL", script, "1", "events:b"]);
    eventually("the gap of all clients fires", || is_firing("SsegateStreamGap"));
    within(LONG, "it is over after a while", || prometheus.firing().is_empty());

    gateway.kill();
    eventually("the gateway is missed", || is_firing("SsegateDown"));
}

/// Each expression is executed; what shows only what is not zero is asked for the zeros, too.
fn every_panel_shows_something(prometheus: &Prometheus) {
    for panel in panels() {
        for expression in expressions(&panel) {
            let shown = prometheus.query(&expression);
            assert!(shown.is_ok(), "{}: {expression}: {shown:?}", panel["title"]);
            let all = expression.trim_end_matches(" > 0");
            let what = format!("{} has data: {all}", panel["title"]);
            within(DEADLINE, &what, || !prometheus.query(all).unwrap().is_empty());
        }
    }
    assert!(prometheus.query("sum by (").is_err(), "a faulty query is an error");
}
