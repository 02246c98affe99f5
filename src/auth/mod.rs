//! Who may read what: the gate before every route with `access = "jwt"`.
//!
//! A token is looked for where the configuration says (`token.rs`), its signature held against the
//! keys (`keyring.rs`), its claims against the rules and the path (`claims.rs`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Request;
use tracing::info;

use crate::config::{Access, Cors, Jwt, Match, Route, Secret};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::LogThrottle;

mod claims;
pub mod cookies;
mod fetch;
pub mod grant;
mod keyring;
#[cfg(test)]
mod tests;
mod token;
mod token_end;

pub use keyring::KeysAway;
pub use token_end::TokenEnd;

use grant::Credential;
use keyring::Keyring;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has no token.
    Missing,
    /// It has several in one place, and which one counts nobody knows.
    Ambiguous,
    /// It is in a cookie, which the browser has added to what a page of another site asks for.
    Foreign,
    /// It has something that is no signed token (RFC 7515), `alg` "none" included.
    Malformed,
    /// The token's head has extensions that have to be understood (`crit`), and none are.
    Critical,
    /// No key may be used with its algorithm.
    Algorithm,
    /// No key has its name.
    Key,
    /// No key has made its signature.
    Signature,
    /// It has expired.
    Expired,
    /// Its time has not come (`nbf`).
    NotYet,
    /// It is not of an issuer that is known, or not signed with that issuer's key.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// A claim is missing, or is not what it has to be.
    Claim,
    /// It is good, and not for this path.
    Match,
    /// The keys that it may be signed with could not be fetched.
    Keys,
}

impl Denied {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 15] = [
        Self::Missing,
        Self::Ambiguous,
        Self::Foreign,
        Self::Malformed,
        Self::Critical,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::Issuer,
        Self::Audience,
        Self::Claim,
        Self::Match,
        Self::Keys,
    ];

    /// Its name in metrics and the log. The client is not told: it would help whoever guesses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::Match => "match",
            Self::Keys => "keys",
        }
    }
}

/// ClientIdentity the gate has let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Issuer and subject of the token, where it names a subject.
    pub principal: Option<Arc<str>>,
    /// When the token ends; `None`: there is none.
    pub token: Option<TokenEnd>,
    /// The token itself; it may be asked for once more.
    pub credential: Option<Credential>,
}

/// The gate.
pub struct Gate {
    rules: Jwt,
    cors: Cors,
    keyring: Keyring,
    metrics: Arc<Metrics>,
    told: LogThrottle,
}

impl Gate {
    /// A gate with these rules; cookies count for the pages that `cors` lets use them.
    pub fn new(rules: &Jwt, cors: &Cors, metrics: Arc<Metrics>) -> Self {
        metrics.token_reasons(&Denied::ALL.map(Denied::as_str));
        let keyring = Keyring::new(&rules.keys);
        let (rules, cors) = (rules.clone(), cors.clone());
        Self { rules, cors, keyring, metrics, told: LogThrottle::default() }
    }

    /// Begins to fetch the keys that are elsewhere, and to keep them fresh for as long as there is the gate.
    pub fn fetch_keys(&self) {
        self.keyring.fetch();
    }

    /// Fetches the keys that are elsewhere before anybody is let in by them. Where that fails, those that
    /// `before` has from there stay good; it is an error if they were never asked for there.
    pub async fn load_keys(&self, before: &Self) -> Result<(), KeysAway> {
        self.keyring.load(&before.keyring).await
    }

    /// Whether tokens may stand in URLs.
    pub fn reads_query(&self) -> bool {
        self.rules.reads_query()
    }

    /// Lets `request` in to `route`, whose variables are `variables` in it, or tells why not.
    pub fn admit<B>(
        &self,
        route: &Route,
        variables: &[(String, String)],
        request: &Request<B>,
    ) -> Result<Admission, Denied> {
        let Access::Jwt(matches) = &route.access else { return Ok(Admission::default()) };
        let admitted = self.check(matches, variables, request, None);
        admitted.inspect_err(|denied| self.tell(*denied, route))
    }

    /// Whether whoever was let in before, with this token if with any, would be once more. Nobody is turned
    /// away because of keys that cannot be had now.
    pub fn still_allows<B>(
        &self,
        route: &Route,
        variables: &[(String, String)],
        request: &Request<B>,
        before: Option<&Credential>,
    ) -> bool {
        let Access::Jwt(matches) = &route.access else { return true };
        let admitted = self.check(matches, variables, request, before);
        matches!(admitted, Ok(_) | Err(Denied::Keys))
    }

    fn check<B>(
        &self,
        matches: &[Match],
        variables: &[(String, String)],
        request: &Request<B>,
        before: Option<&Credential>,
    ) -> Result<Admission, Denied> {
        let (headers, query) = (request.headers(), request.uri().query());
        let (place, token) = token::find(&self.rules.from, &self.cors, headers, query)?;
        let verified = before.filter(|before| before.token.expose() == token);
        let verified_with = verified.map(|before| &*before.signed_by);
        let (claims, signed_by) = self.keyring.verify(&token, verified_with)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let lasts = claims::check(&self.rules, &claims, now)?;
        claims::check_path(&claims, matches, variables)?;
        let end = Some(TokenEnd::after(lasts, self.rules.warn));
        let token = Secret::new(token.into_owned());
        let credential = Some(Credential { place: place.clone(), token, signed_by });
        Ok(Admission { principal: claims::principal(&claims), token: end, credential })
    }

    fn tell(&self, denied: Denied, route: &Route) {
        let reason = denied.as_str();
        self.metrics.token_refused(reason);
        if self.told.allows(reason) {
            info!(
                reason,
                route = %route.path,
                "a request was refused for its token; ssegate_auth_failures_total counts them"
            );
        }
    }
}
