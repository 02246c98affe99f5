//! `[auth.jwt]`: which tokens are accepted, and what they have to say.

use std::time::Duration;

use hyper::header::HeaderName;
use jsonwebtoken::Algorithm;
use url::Url;

use super::Tls;
use crate::config::jwk::VerifyingKey;

/// Who may read a route, or publish there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Clients with a valid token whose claims match each of these; none: any valid token.
    Jwt(Vec<Match>),
}

/// A variable of the path that has to equal a claim of the token, or be an element of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The variable.
    pub variable: String,
    /// The claim: a string, or a list of strings.
    pub claim: String,
}

/// `[auth.jwt]`
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    /// The keys that verify tokens.
    pub keys: Vec<Keys>,
    /// The accepted issuers; empty: every holder of a key.
    pub issuers: Vec<String>,
    /// The accepted audiences; empty: not checked.
    pub audiences: Vec<String>,
    /// Claims that a token must have; `exp` is one of them.
    pub require: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Where a token is looked for, in this order.
    pub from: Vec<TokenPlace>,
    /// How long before its token expires a stream is warned; zero: never.
    pub warn: Duration,
}

/// Keys from one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// They verify tokens of this issuer only; `None`: of every accepted issuer.
    pub issuer: Option<String>,
    /// Where they are.
    pub place: KeyPlace,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyPlace {
    /// In files that were read.
    Here(Vec<VerifyingKey>),
    /// At this address, for these algorithms; `tls` where it is an `https:` one.
    Url {
        /// The address.
        url: Url,
        /// How to speak TLS to it.
        tls: Option<Tls>,
        /// The algorithms that its keys may be used with.
        algorithms: Vec<Algorithm>,
    },
}

/// Where a token is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenPlace {
    /// `Authorization: Bearer`
    Header,
    /// A cookie of this name.
    Cookie(String),
    /// A parameter of this name in the query.
    Query(String),
}

impl Jwt {
    /// Whether tokens may be in URLs, which proxies and browsers log.
    pub fn reads_query(&self) -> bool {
        self.from.iter().any(|place| matches!(place, TokenPlace::Query(_)))
    }
}

impl TokenPlace {
    /// Reads a place as the configuration writes it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "not a place of a token: \"{text}\"; write \"header\", \"cookie:NAME\" or \"query:NAME\""
            )
        };
        if text == "header" {
            return Ok(Self::Header);
        }
        let (place, name) = text.split_once(':').ok_or_else(wrong)?;
        match place {
            // A cookie's name has the same characters as a header's (RFC 6265, 4.1.1), but for its case.
            "cookie" if name.parse::<HeaderName>().is_ok() => Ok(Self::Cookie(name.to_owned())),
            "query" if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(wrong()),
        }
    }
}
