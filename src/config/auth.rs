//! `[auth.jwt]`: who may read, as meant.

use std::time::Duration;

use hyper::header::HeaderName;
use jsonwebtoken::Algorithm;
use url::Url;

use super::Tls;
use crate::config::jwk::VerifyingKey;

/// Who may read a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever has a good token whose claims say each of these; none: any good token.
    Jwt(Vec<Match>),
}

/// A variable of the path that has to equal a claim of the token, or to be in it.
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
    /// What tokens are verified with.
    pub keys: Vec<Keys>,
    /// Who may have issued a token; empty: anybody who has a key.
    pub issuers: Vec<String>,
    /// For whom a token has to be, one of these; empty: for nobody in particular.
    pub audiences: Vec<String>,
    /// Claims that a token must have; `exp` is one of them.
    pub require: Vec<String>,
    /// Clocks may differ by this.
    pub leeway: Duration,
    /// Where a token is looked for, in this order.
    pub from: Vec<TokenPlace>,
    /// A stream is told so long before its token expires; zero: not at all.
    pub warn: Duration,
}

/// Keys from one place, which may be used alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// They verify tokens of this issuer only; `None`: of any that is allowed.
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
        /// What its keys may be used with.
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
    /// Whether tokens may stand in URLs, which others write down.
    pub fn reads_query(&self) -> bool {
        self.from.iter().any(|place| matches!(place, TokenPlace::Query(_)))
    }
}

impl TokenPlace {
    /// Reads a place as the configuration writes it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "no place of a token: \"{text}\"; write \"header\", \"cookie:NAME\" or \"query:NAME\""
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
