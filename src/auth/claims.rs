//! The claims of a token whose signature is good, held against the rules and the path (RFC 7519, RFC 8725).
//!
//! The library could check claims, too, but it rounds `exp`, accepts a list as issuer, and can require
//! only the claims that it knows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::denied::Denied;
use super::grant::ClaimedRows;
use crate::config::{Jwt, Match, Rows};
use crate::sse::RowValue;

/// The claims of a token.
pub(super) type Claims = serde_json::Map<String, Value>;

/// A token counts for no longer than this: times beyond it would overflow our clocks.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a token is good, counted from `now` (since 1970): until `exp`, or, where that has passed, until
/// the leeway has passed as well.
pub(super) fn check(rules: &Jwt, claims: &Claims, now: Duration) -> Result<Duration, Denied> {
    let (now, leeway) = (now.as_secs_f64(), rules.leeway.as_secs_f64());
    let expires = time(claims, "exp")?.ok_or(Denied::Claim)?;
    if time(claims, "nbf")?.is_some_and(|begins| begins > now + leeway) {
        return Err(Denied::NotYet);
    }
    let end = if now < expires { expires } else { expires + leeway };
    if end <= now {
        return Err(Denied::Expired);
    }
    check_issuer(rules, claims)?;
    check_audience(rules, claims)?;
    text(claims, "sub")?;
    if rules.require.iter().any(|name| present(claims, name).is_none()) {
        return Err(Denied::Claim);
    }
    Ok(Duration::try_from_secs_f64(end - now).map_or(LONGEST, |lasts| lasts.min(LONGEST)))
}

/// Checks that the claims allow the path: each variable is compared by itself, never joined with others; of one that
/// has several values, each of them.
pub(super) fn check_path(
    claims: &Claims,
    matches: &[Match],
    variables: &[(String, String)],
) -> Result<(), Denied> {
    let is_allowed = |Match { variable, claim }: &Match| {
        let said = texts(claims.get(claim)?)?;
        let values = || variables.iter().filter(|(name, _)| name == variable);
        let is_said = |(_, value): &(String, String)| said.contains(&value.as_str());
        (values().next().is_some() && values().all(is_said)).then_some(())
    };
    if matches.iter().all(|rule| is_allowed(rule).is_some()) { Ok(()) } else { Err(Denied::Match) }
}

/// The values that the claims name for fields of the entries; `None` where the route asks for none. A claim that
/// names no value opens nothing.
pub(super) fn rows(claims: &Claims, rows: &Rows) -> Result<Option<Arc<ClaimedRows>>, Denied> {
    if rows.claims.is_empty() {
        return Ok(None);
    }
    let values = |claim: &str| {
        let said = texts(find(claims, claim)?)?;
        let values: Vec<_> = said.iter().map(|text| RowValue::of(text.as_bytes())).collect();
        (!values.is_empty()).then_some(values)
    };
    let named = rows.claims.iter().map(|claimed| {
        let field = rows.columns[claimed.column].field.as_str();
        values(&claimed.claim).map(|values| (field.into(), values)).ok_or(Denied::Match)
    });
    let named: Vec<_> = named.collect::<Result<_, _>>()?;
    Ok(Some(Arc::new(ClaimedRows::new(named))))
}

/// The claim of this name; where there is none, dots lead into objects.
fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(claim) = claims.get(name) {
        return Some(claim);
    }
    let (outer, inner) = name.split_once('.')?;
    let outer = claims.get(outer)?;
    inner.split('.').try_fold(outer, |claim, part| claim.as_object()?.get(part))
}

/// Issuer and subject, written so that no two pairs look alike.
pub(super) fn principal(claims: &Claims) -> Option<Arc<str>> {
    let subject = claims.get("sub")?.as_str()?;
    let issuer = claims.get("iss").and_then(Value::as_str);
    Some(Value::from(vec![Value::from(issuer), Value::from(subject)]).to_string().into())
}

fn check_issuer(rules: &Jwt, claims: &Claims) -> Result<(), Denied> {
    let said = text(claims, "iss")?;
    let is_known = |said: &str| rules.issuers.iter().any(|known| known == said);
    if rules.issuers.is_empty() || said.is_some_and(is_known) {
        Ok(())
    } else {
        Err(Denied::Issuer)
    }
}

/// A token with an audience must name us in it (RFC 7519, 4.1.3).
fn check_audience(rules: &Jwt, claims: &Claims) -> Result<(), Denied> {
    let Some(said) = present(claims, "aud") else {
        return if rules.audiences.is_empty() { Ok(()) } else { Err(Denied::Audience) };
    };
    let said = texts(said).ok_or(Denied::Claim)?;
    let is_ours = rules.audiences.iter().any(|ours| said.contains(&ours.as_str()));
    if is_ours { Ok(()) } else { Err(Denied::Audience) }
}

fn present<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

fn text<'a>(claims: &'a Claims, name: &str) -> Result<Option<&'a str>, Denied> {
    claims.get(name).map(|value| value.as_str().ok_or(Denied::Claim)).transpose()
}

/// A time in seconds since 1970. A string is not accepted, even one with digits.
fn time(claims: &Claims, name: &str) -> Result<Option<f64>, Denied> {
    let number = |value: &Value| value.as_f64().filter(|seconds| *seconds >= 0.0);
    claims.get(name).map(|value| number(value).ok_or(Denied::Claim)).transpose()
}

/// A string, or a list of strings only.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(elements) => elements.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
