//! Reads `access` and `match` of a route: who may read it, or publish there.

use super::section::{Found, Section};
use crate::config::diagnostics::did_you_mean;
use crate::config::units::WrittenValue;
use crate::config::{Access, Match, PathTemplate};

/// The path of a route, and the variable that its clients choose in the query.
pub(super) type Asked<'a> = (&'a PathTemplate, Option<&'a str>);

/// Whether the route needs a token.
pub(super) fn access(text: &str) -> Result<bool, String> {
    match text {
        "public" => Ok(false),
        "jwt" => Ok(true),
        _ => Err(
            "unknown; write \"jwt\" for clients with a valid token, or \"public\" for everybody"
                .into(),
        ),
    }
}

/// Who may read a route of this path and this parameter of the query, or publish there; `None` on a fault. `has_keys`: there are keys that verify tokens.
pub(super) fn rules(
    section: &mut Section<'_, '_>,
    access: Option<(bool, Found)>,
    asked: Option<Asked<'_>>,
    has_keys: bool,
) -> Option<Access> {
    let rule = section.written("match", &"".into());
    if let Some(found) = &rule {
        section.show(found, found.value.to_string());
    }
    let (asks_for_tokens, found) = access?;
    if !asks_for_tokens {
        if let Some(rule) = rule {
            section.fault(
                &rule,
                "is for tokens, but access is \"public\"; write access = \"jwt\", or remove it",
            );
        }
        return Some(Access::Public);
    }
    if !has_keys {
        section.fault(&found, "needs keys that verify tokens; write them in [auth.jwt], as in keys = [{ alg = \"HS256\", secret_file = \"jwt.secret\" }]");
    }
    let asked = asked?;
    let Some(rule) = rule else {
        if let Some(name) = variables(asked).next() {
            let why = format!(
                "any valid token would open every {{{name}}}; name the claim that has to equal it, as in match = {{ {name} = \"streams\" }}, or write match = \"any\""
            );
            section.fault(&found, why);
        }
        return Some(Access::Jwt(Vec::new()));
    };
    let read = matches(&rule.value, asked).map_err(|why| section.fault(&rule, why));
    read.ok().map(Access::Jwt)
}

fn variables((path, query): Asked<'_>) -> impl Iterator<Item = &str> {
    path.variables().chain(query)
}

fn matches(written: &WrittenValue, asked: Asked<'_>) -> Result<Vec<Match>, String> {
    let WrittenValue::Table(items) = written else {
        return match written {
            WrittenValue::Text(text) if text == "any" => Ok(Vec::new()),
            _ => Err("not a rule; name the claim for each variable, as in { name = \"streams\" }, or \"any\"".into()),
        };
    };
    let mut matches = Vec::with_capacity(items.len());
    for item in items {
        let variable = item.name.clone();
        if !variables(asked).any(|known| known == variable) {
            let hint = did_you_mean(&variable, variables(asked));
            let (path, _) = asked;
            return Err(format!("{{{variable}}} is not a variable of the path \"{path}\"{hint}"));
        }
        match &item.value {
            WrittenValue::Text(claim) if !claim.is_empty() => {
                matches.push(Match { variable, claim: claim.clone() });
            }
            other => return Err(format!("{other} is not the name of a claim; write it in quotes")),
        }
    }
    match variables(asked).find(|name| !matches.iter().any(|m| m.variable == *name)) {
        Some(name) => Err(format!(
            "does not mention {{{name}}}: any valid token would open all its values; name the claim for it, too"
        )),
        None => Ok(matches),
    }
}
