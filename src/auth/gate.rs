//! The gate before every route with `access = "jwt"`: it admits a request by its token.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Request;
use tracing::info;

use super::grant::{AuthContext, ClaimedRows, Credential};
use super::key_set::KeysAway;
use super::keyring::Keyring;
use super::{Denied, TokenEnd, claims, token};
use crate::config::{Access, Cors, Jwt, Match, Route, Rows, Secret};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::LogThrottle;

/// What the gate found in a request that it admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Issuer and subject of the token, where it names a subject.
    pub principal: Option<Arc<str>>,
    /// When the token ends; `None`: there is no token.
    pub token: Option<TokenEnd>,
    /// The token itself, for a reauthorization.
    pub credential: Option<Credential>,
    /// Which entries the token opens, where the route asks.
    pub rows: Option<Arc<ClaimedRows>>,
}

/// What a token has to say for one use of a route.
#[derive(Clone, Copy, Default)]
pub(super) struct Terms<'a> {
    /// The claims that have to allow the path.
    pub(super) matches: &'a [Match],
    /// The values of the route's variables in the path.
    pub(super) variables: &'a [(String, String)],
    /// Which entries are read; `None`: none are.
    pub(super) rows: Option<&'a Rows>,
}

/// The gate.
pub struct Gate {
    rules: Jwt,
    cors: Cors,
    pub(super) keyring: Keyring,
    metrics: Arc<Metrics>,
    refusals_logged: LogThrottle,
}

impl Gate {
    /// A gate with these rules; cookies count for the pages that `cors` lets use them.
    pub fn new(rules: &Jwt, cors: &Cors, metrics: Arc<Metrics>) -> Self {
        metrics.token_reasons(&Denied::ALL.map(Denied::as_str));
        let keyring = Keyring::new(&rules.keys);
        let (rules, cors) = (rules.clone(), cors.clone());
        Self { rules, cors, keyring, metrics, refusals_logged: LogThrottle::default() }
    }

    /// Fetches keys from their addresses, and keeps them fresh for as long as the gate exists.
    pub fn fetch_keys(&self) {
        self.keyring.keep_fresh();
    }

    /// Fetches keys from their addresses once, before the gate admits anybody. Where that fails, the keys
    /// that `before` has from the same address stay good; without such keys it is an error.
    pub async fn load_keys(&self, before: &Self) -> Result<(), KeysAway> {
        self.keyring.load(&before.keyring).await
    }

    /// Whether tokens may be in URLs.
    pub fn reads_query(&self) -> bool {
        self.rules.reads_query()
    }

    /// Admits `request` to read `route`; `variables` are the values of the route's variables in its path.
    pub fn admit<B>(
        &self,
        route: &Route,
        variables: &[(String, String)],
        request: &Request<B>,
    ) -> Result<Admission, Denied> {
        self.admit_by(&route.access, (variables, Some(&route.rows)), route, request)
    }

    /// Admits it to add entries, by an `access` of the route that is apart from who reads it.
    pub fn admit_writer<B>(
        &self,
        access: &Access,
        route: &Route,
        variables: &[(String, String)],
        request: &Request<B>,
    ) -> Result<Admission, Denied> {
        self.admit_by(access, (variables, None), route, request)
    }

    fn admit_by<B>(
        &self,
        access: &Access,
        (variables, rows): (&[(String, String)], Option<&Rows>),
        route: &Route,
        request: &Request<B>,
    ) -> Result<Admission, Denied> {
        let Access::Jwt(matches) = access else { return Ok(Admission::default()) };
        let admitted = self.check(Terms { matches, variables, rows }, request, None);
        admitted.inspect_err(|denied| self.count_refusal(*denied, route))
    }

    /// Whether a client that `before` admitted would be admitted now, and to the same entries. Keys that cannot be
    /// fetched at the moment end no stream.
    pub fn still_allows<B>(
        &self,
        route: &Route,
        variables: &[(String, String)],
        request: &Request<B>,
        before: &AuthContext,
    ) -> bool {
        let Access::Jwt(matches) = &route.access else { return before.rows.is_none() };
        let terms = Terms { matches, variables, rows: Some(&route.rows) };
        match self.check(terms, request, before.credential.as_ref()) {
            Ok(admission) => admission.rows == before.rows,
            Err(denied) => denied == Denied::Keys,
        }
    }

    pub(super) fn check<B>(
        &self,
        terms: Terms<'_>,
        request: &Request<B>,
        before: Option<&Credential>,
    ) -> Result<Admission, Denied> {
        let (place, token) = token::find(&self.rules.from, &self.cors, request)?;
        let verified = before.filter(|before| before.token.expose() == token);
        let verified_with = verified.map(|before| &*before.signed_by);
        let (claims, signed_by) = self.keyring.verify(&token, verified_with)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let lasts = claims::check(&self.rules, &claims, now)?;
        claims::check_path(&claims, terms.matches, terms.variables)?;
        let rows = terms.rows.map_or(Ok(None), |rows| claims::rows(&claims, rows))?;
        let end = Some(TokenEnd::after(lasts, self.rules.warn));
        let token = Secret::new(token.into_owned());
        let credential = Some(Credential { place: place.clone(), token, signed_by });
        Ok(Admission { principal: claims::principal(&claims), token: end, credential, rows })
    }

    fn count_refusal(&self, denied: Denied, route: &Route) {
        let reason = denied.as_str();
        self.metrics.token_refused(reason);
        if self.refusals_logged.allows(reason) {
            info!(
                reason,
                route = %route.path,
                "a request was refused for its token; ssegate_auth_failures_total counts all of them"
            );
        }
    }
}
