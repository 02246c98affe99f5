//! Choices that are allowed but unsafe: the gateway warns the operator about each.

use std::net::IpAddr;

use super::{
    Access, Address, Config, KeyPlace, Keys, Listen, Origins, Route, SourceLocation, Trusted,
};

/// An unsafe choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// Its name, one of [`CHOICES`]; a metric's label.
    pub choice: &'static str,
    /// The section and the key that make it.
    pub setting: (&'static str, &'static str),
    /// What may happen, and what would be safe.
    pub message: &'static str,
}

/// The names of all of them.
pub const CHOICES: [&str; 8] = [
    "cors_any_origin",
    "open_publish",
    "plain_jwks",
    "plain_redis",
    "plain_token",
    "public_publish",
    "public_route",
    "query_token",
];

impl Config {
    /// The unsafe choices that this configuration makes.
    pub fn risks(&self) -> Vec<Risk> {
        let risks = [
            (self.has_open(is_public), PUBLIC_ROUTE),
            (self.server.tls.is_none() && self.has_open(|route| !is_public(route)), PLAIN_TOKEN),
            (self.is_publish_reachable(), OPEN_PUBLISH),
            (self.routes.iter().any(may_all_publish), PUBLIC_PUBLISH),
            (self.cors.origins == Origins::Any, CORS_ANY_ORIGIN),
            (self.is_redis_plain(), PLAIN_REDIS),
            (self.are_jwks_plain(), PLAIN_JWKS),
            (self.jwt.reads_query(), QUERY_TOKEN),
        ];
        risks.into_iter().filter_map(|(made, risk)| made.then_some(risk)).collect()
    }

    /// Whether other machines reach such a route without a proxy in between, as far as we know.
    fn has_open(&self, is_such: fn(&Route) -> bool) -> bool {
        let proxied = self.proxy.trusted != Trusted::default();
        let open = |listen: &&Listen| !self.proxy.protocol.contains(listen);
        !proxied
            && self.server.listen.iter().filter(open).any(Listen::is_reachable)
            && self.routes.iter().any(is_such)
    }

    fn is_publish_reachable(&self) -> bool {
        self.admin.publish && self.admin.listen.as_ref().is_some_and(Listen::is_reachable)
    }

    fn are_jwks_plain(&self) -> bool {
        let is_plain = |keys: &Keys| match &keys.place {
            KeyPlace::Url { url, tls: None, .. } => {
                let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
                is_elsewhere(&Address::Tcp(host.to_owned(), 0))
            }
            _ => false,
        };
        self.jwt.keys.iter().any(is_plain)
    }

    fn is_redis_plain(&self) -> bool {
        let source = &self.source;
        let elsewhere = match &source.location {
            SourceLocation::Memory => false,
            SourceLocation::Server { address, .. } => is_elsewhere(address),
            SourceLocation::Sentinel { sentinels: servers, .. }
            | SourceLocation::Cluster { nodes: servers, .. } => servers.iter().any(is_elsewhere),
        };
        elsewhere && source.tls.is_none()
    }
}

const PLAIN_JWKS: Risk = Risk {
    choice: "plain_jwks",
    setting: ("auth.jwt", "keys"),
    message: "keys cross the network unencrypted: an attacker on the way can replace them and then sign any token; write https://",
};
const QUERY_TOKEN: Risk = Risk {
    choice: "query_token",
    setting: ("auth.jwt", "from"),
    message: "proxies and browsers log and store the tokens in URLs; use the header or a cookie where clients can, and keep queries out of the logs of proxies",
};
const PUBLIC_ROUTE: Risk = Risk {
    choice: "public_route",
    setting: ("server", "listen"),
    message: "is reachable from other machines without a proxy (proxy.trusted), and a route is public: every machine that reaches it can read that route; listen on 127.0.0.1 behind a proxy, or write access = \"jwt\"",
};
const PLAIN_TOKEN: Risk = Risk {
    choice: "plain_token",
    setting: ("server", "listen"),
    message: "is reachable from other machines without a proxy (proxy.trusted), and a route needs a token: tokens cross the network unencrypted; set server.tls, or listen on 127.0.0.1 behind a proxy",
};
const OPEN_PUBLISH: Risk = Risk {
    choice: "open_publish",
    setting: ("admin", "publish"),
    message: "and admin.listen is reachable from other machines: everybody who has the token can write to any stream of Redis; listen on 127.0.0.1 or \"unix:/path\"",
};
const PUBLIC_PUBLISH: Risk = Risk {
    choice: "public_publish",
    setting: ("route", "publish"),
    message: "access is \"public\": everybody who reaches the gateway can add entries there; write access = \"jwt\" in publish",
};
const CORS_ANY_ORIGIN: Risk = Risk {
    choice: "cors_any_origin",
    setting: ("cors", "origins"),
    message: "every page on the web can read what its visitors can read here; list the origins",
};
const PLAIN_REDIS: Risk = Risk {
    choice: "plain_redis",
    setting: ("source", "url"),
    message: "entries and the password cross the network unencrypted; write rediss://",
};

fn is_public(route: &Route) -> bool {
    route.access == Access::Public
}

fn may_all_publish(route: &Route) -> bool {
    route.publish.as_ref().is_some_and(|publish| publish.access == Access::Public)
}

fn is_elsewhere(address: &Address) -> bool {
    match address {
        Address::Unix(_) => false,
        Address::Tcp(host, _) => {
            let is_loopback =
                host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
            !is_loopback && !host.eq_ignore_ascii_case("localhost")
        }
    }
}
