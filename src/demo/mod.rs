//! `--demo`: endless feeds of invented security events and of services, and the page that draws them.
//!
//! The feeds neither sleep nor publish: each returns the next event and how long to wait after it, so that
//! a test runs through an hour of it in a moment.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

mod services;

pub use services::Services;

/// The page at `/`: it is whole, and loads nothing from other servers.
pub const PAGE: &str = concat!(
    include_str!("page.html"),
    "<script>\n\"use strict\";\n",
    include_str!("services.js"),
    include_str!("page.js"),
    "</script>\n"
);

/// One event of the feed, and the pause that follows it.
#[derive(Debug)]
pub struct Sample {
    /// A JSON object, the value of the entry's `payload` field.
    pub payload: String,
    /// How long to wait before asking for the next sample.
    pub wait: Duration,
}

/// About five routine events a second and, every 20 to 40 seconds, an attack from one address:
/// 50 to 200 events in about a second, the last of which is the verdict on the others.
#[derive(Debug)]
pub struct Feed {
    rng: Rng,
    /// The time until the next attack.
    calm: Duration,
    attack: Option<Attack>,
}

/// An attack that is under way.
#[derive(Debug)]
struct Attack {
    story: &'static Story,
    src_ip: String,
    /// All events, with the verdict.
    size: u32,
    sent: u32,
    /// The mean pause between two of its events.
    pace: Duration,
}

/// A kind of attack: the same event many times, then the verdict.
#[derive(Debug)]
struct Story {
    step: Template,
    verdict: Template,
}

/// A kind of event. In `text`, `{ip}`, `{user}`, `{host}`, `{port}` and `{count}` are filled in.
#[derive(Debug)]
struct Template {
    severity: &'static str,
    sources: &'static [&'static str],
    rule: &'static str,
    text: &'static str,
}

impl Template {
    const fn new(
        severity: &'static str,
        sources: &'static [&'static str],
        rule: &'static str,
        text: &'static str,
    ) -> Self {
        Self { severity, sources, rule, text }
    }
}

const FIREWALLS: &[&str] = &["fw-01", "fw-02"];
const LOGINS: &[&str] = &["auth-01", "auth-02", "vpn-01"];
const SENSORS: &[&str] = &["ids-01", "ids-02"];
const HOSTS: &[&str] = &["web-03", "web-04", "db-01", "build-07", "desk-112", "desk-231"];
const USERS: &[&str] = &["user-017", "user-042", "user-108", "ops-2", "svc-backup", "svc-deploy"];
/// The networks reserved for documentation (RFC 5737), as prefixes.
const OUTSIDE: &[&str] = &["192.0.2", "198.51.100", "203.0.113"];

/// Routine events begin inside, at an address of 10.0.0.0/8.
const INSIDE: &[(u32, Template)] = &[
    (20, Template::new("low", FIREWALLS, "fw.allow", "allowed {ip} to {host}:{port}")),
    (18, Template::new("low", LOGINS, "login.ok", "{user} signed in from {ip}")),
    (10, Template::new("low", HOSTS, "session.end", "session of {user} closed")),
    (9, Template::new("low", &["dns-01"], "dns.first-seen", "{ip} asked for a name never seen")),
    (8, Template::new("medium", LOGINS, "login.failed", "wrong password for {user} from {ip}")),
    (6, Template::new("medium", HOSTS, "process.unsigned", "{user} ran an unsigned binary")),
    (3, Template::new("high", SENSORS, "ids.lateral", "{ip} opened admin shares on {host}")),
    (1, Template::new("critical", HOSTS, "group.admin-added", "{user} was made administrator")),
];

/// Routine events whose other end is out on the internet.
const FROM_OUTSIDE: &[(u32, Template)] = &[
    (14, Template::new("low", FIREWALLS, "fw.deny", "dropped {ip} to {host}:{port}")),
    (6, Template::new("medium", SENSORS, "ids.probe", "{ip} asked {host} for /.git/config")),
    (3, Template::new("high", LOGINS, "login.new-country", "{user} signed in from {ip}, far away")),
    (1, Template::new("critical", SENSORS, "ids.beacon", "{host} calls {ip} every 60 seconds")),
];

const STORIES: &[Story] = &[
    Story {
        step: Template::new("medium", &["fw-01"], "fw.deny", "dropped {ip} to web-03:{port}"),
        verdict: Template::new(
            "high",
            &["ids-01"],
            "scan.ports",
            "port scan: {ip} tried {count} ports of web-03",
        ),
    },
    Story {
        step: Template::new("medium", &["vpn-01"], "login.failed", "wrong password for {user}"),
        verdict: Template::new(
            "critical",
            &["auth-01"],
            "login.brute-force",
            "brute force: {user} signed in from {ip} after {count} failures",
        ),
    },
    Story {
        step: Template::new("low", &["web-04"], "http.404", "{ip} guessed a path: not found"),
        verdict: Template::new(
            "high",
            &["ids-02"],
            "scan.paths",
            "path scan: {ip} guessed {count} paths on web-04",
        ),
    },
];

impl Feed {
    /// A feed that differs in each run.
    pub fn new() -> Self {
        Self::from_rng(Rng::new())
    }

    fn from_rng(mut rng: Rng) -> Self {
        let calm = calm(&mut rng);
        Self { rng, calm, attack: None }
    }

    /// The next event. There always is one.
    #[expect(clippy::should_implement_trait, reason = "endless: every caller would unwrap")]
    pub fn next(&mut self) -> Sample {
        if let Some(attack) = self.attack.take() {
            return self.strike(attack);
        }
        if self.calm.is_zero() {
            let attack = Attack::begin(&mut self.rng);
            return self.strike(attack);
        }
        let sample = routine(&mut self.rng);
        self.calm = self.calm.saturating_sub(sample.wait);
        sample
    }

    /// One event of `attack`, which stays under way until its last event.
    fn strike(&mut self, mut attack: Attack) -> Sample {
        attack.sent += 1;
        let rng = &mut self.rng;
        if attack.sent == attack.size {
            let payload = attack.story.verdict.fill(rng, &attack.src_ip, attack.size - 1);
            self.calm = calm(rng);
            return Sample { payload, wait: routine_wait(rng) };
        }
        let payload = attack.story.step.fill(rng, &attack.src_ip, attack.sent);
        let wait = attack.pace.mul_f64(0.5 + rng.f64());
        self.attack = Some(attack);
        Sample { payload, wait }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Attack {
    fn begin(rng: &mut Rng) -> Self {
        let size = rng.u32(50..=200);
        let span = Duration::from_millis(rng.u64(800..=1200));
        let story = &STORIES[rng.usize(..STORIES.len())];
        Self { story, src_ip: outside(rng), size, sent: 0, pace: span / size }
    }
}

impl Template {
    /// The event as a JSON object, in which `user` is null if the text names none.
    fn fill(&self, rng: &mut Rng, src_ip: &str, count: u32) -> String {
        let user = pick(rng, USERS);
        let message = self
            .text
            .replace("{ip}", src_ip)
            .replace("{user}", user)
            .replace("{host}", pick(rng, HOSTS))
            .replace("{port}", &rng.u16(1..=9999).to_string())
            .replace("{count}", &count.to_string());
        json!({
            "ts": format!("{:.3}", jiff::Timestamp::now()),
            "severity": self.severity,
            "source": pick(rng, self.sources),
            "rule": self.rule,
            "src_ip": src_ip,
            "user": self.text.contains("{user}").then_some(user),
            "message": message,
        })
        .to_string()
    }
}

fn routine(rng: &mut Rng) -> Sample {
    let from_outside = rng.u8(..10) < 3;
    let (table, src_ip) =
        if from_outside { (FROM_OUTSIDE, outside(rng)) } else { (INSIDE, inside(rng)) };
    let payload = weighted(rng, table).fill(rng, &src_ip, 1);
    Sample { payload, wait: routine_wait(rng) }
}

/// Five a second on average, never evenly.
fn routine_wait(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(60..=340))
}

fn calm(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(20_000..=40_000))
}

fn inside(rng: &mut Rng) -> String {
    format!("10.{}.{}.{}", rng.u8(0..40), rng.u8(..), rng.u8(1..=254))
}

fn outside(rng: &mut Rng) -> String {
    format!("{}.{}", pick(rng, OUTSIDE), rng.u8(1..=254))
}

fn pick(rng: &mut Rng, from: &[&'static str]) -> &'static str {
    from[rng.usize(..from.len())]
}

fn weighted(rng: &mut Rng, table: &'static [(u32, Template)]) -> &'static Template {
    let total: u32 = table.iter().map(|(weight, _)| weight).sum();
    let mut ticket = rng.u32(..total);
    for (weight, template) in table {
        if ticket < *weight {
            return template;
        }
        ticket -= weight;
    }
    unreachable!("the ticket is below the sum of the weights")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Routine events never come closer together than this, those of an attack always do.
    const CLOSE: Duration = Duration::from_millis(50);
    const RUN: Duration = Duration::from_secs(15 * 60);

    /// Each event of a simulated quarter of an hour: when it came, what it was, how long the pause was.
    fn quarter_hour(seed: u64) -> Vec<(Duration, Value, Duration)> {
        let mut feed = Feed::from_rng(Rng::with_seed(seed));
        let mut now = Duration::ZERO;
        let mut events = Vec::new();
        while now < RUN {
            let Sample { payload, wait } = feed.next();
            events.push((now, serde_json::from_str(&payload).unwrap(), wait));
            now += wait;
        }
        events
    }

    /// The attacks among `events`: runs of events with short pauses, and the verdict after them.
    fn attacks(events: &[(Duration, Value, Duration)]) -> Vec<&[(Duration, Value, Duration)]> {
        events
            .split_inclusive(|(_, _, wait)| *wait >= CLOSE)
            .filter(|run| run.len() > 1 && run.last().unwrap().2 >= CLOSE)
            .collect()
    }

    #[test]
    fn every_payload_has_all_fields() {
        for (_, event, _) in quarter_hour(1) {
            let text = |field: &str| event[field].as_str().unwrap_or_else(|| panic!("{event}"));
            assert!(["low", "medium", "high", "critical"].contains(&text("severity")));
            assert!(text("ts").parse::<jiff::Timestamp>().is_ok());
            assert!(!text("source").is_empty() && !text("rule").is_empty());
            assert!(!text("message").contains(['{', '}']), "not filled in: {event}");
            assert!(event["user"].is_null() || text("message").contains(text("user")));
        }
    }

    #[test]
    fn only_private_and_documentation_addresses_appear() {
        for (_, event, _) in quarter_hour(2) {
            let address = event["src_ip"].as_str().unwrap();
            let [a, b, c, _] = address.parse::<std::net::Ipv4Addr>().unwrap().octets();
            let documentation = [[192, 0, 2], [198, 51, 100], [203, 0, 113]].contains(&[a, b, c]);
            assert!(a == 10 || documentation, "{address}");
        }
    }

    #[test]
    fn severities_thin_out_upwards() {
        let events = quarter_hour(3);
        let count = |severity| events.iter().filter(|(_, e, _)| e["severity"] == severity).count();
        assert!(count("low") > count("medium"));
        assert!(count("medium") > count("high"));
        assert!(count("high") > count("critical"));
        assert!(count("critical") > 20);
    }

    #[test]
    fn routine_events_come_about_five_times_a_second() {
        let routine: Vec<Duration> = quarter_hour(4)
            .iter()
            .map(|(_, _, wait)| *wait)
            .filter(|wait| *wait >= CLOSE)
            .collect();
        let per_second = routine.len() as f64 / routine.iter().sum::<Duration>().as_secs_f64();
        assert!((4.5..5.5).contains(&per_second), "{per_second} per second");
        assert!(routine.iter().all(|wait| *wait <= Duration::from_millis(340)));
    }

    #[test]
    fn an_attack_is_50_to_200_events_from_one_address_in_about_a_second() {
        for attack in attacks(&quarter_hour(5)) {
            assert!((50..=200).contains(&attack.len()), "{} events", attack.len());
            let span = attack.last().unwrap().0.abs_diff(attack[0].0);
            assert!((500..1600).contains(&span.as_millis()), "{span:?}");
            assert!(attack.iter().all(|(_, event, _)| event["src_ip"] == attack[0].1["src_ip"]));
        }
    }

    #[test]
    fn attacks_are_20_to_40_seconds_apart() {
        let events = quarter_hour(6);
        let attacks = attacks(&events);
        assert!(attacks.len() > 20, "{} in a quarter of an hour", attacks.len());
        for pair in attacks.windows(2) {
            let calm = pair[1][0].0.abs_diff(pair[0].last().unwrap().0);
            assert!((20..=41).contains(&calm.as_secs()), "{calm:?}");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_other_servers() {
        assert!(!PAGE.contains("https://"), "an external address in the page");
        assert!(!PAGE.contains("innerHTML"), "payloads are text, never markup");
    }
}
