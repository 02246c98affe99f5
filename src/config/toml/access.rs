//! `access` and `match` of a route as written: everybody, or whose token says so.

use super::section::{Found, Section};
use crate::config::diagnostics::did_you_mean;
use crate::config::units::Written;
use crate::config::{Access, Match, PathTemplate};

/// Whether tokens are asked for.
pub(super) fn access(text: &str) -> Result<bool, String> {
    match text {
        "public" => Ok(false),
        "jwt" => Ok(true),
        _ => Err("unknown; write \"jwt\" for those with a good token, or \"public\" if everybody may read it".into()),
    }
}

/// Who may read a route of this `path`; `None` where that is at fault, which is told. `has_keys`:
/// tokens can be verified.
pub(super) fn rules(
    section: &mut Section<'_, '_>,
    access: Option<(bool, Found)>,
    path: Option<&PathTemplate>,
    has_keys: bool,
) -> Option<Access> {
    let rule = section.written("match", &"".into());
    if let Some(found) = &rule {
        section.show(found, found.value.to_string());
    }
    let (asks_for_tokens, found) = access?;
    if !asks_for_tokens {
        if let Some(rule) = rule {
            section.fault(&rule, "is for tokens, and everybody may read this route; write access = \"jwt\", or remove it");
        }
        return Some(Access::Public);
    }
    if !has_keys {
        section.fault(&found, "needs keys to verify tokens with; write them in [auth.jwt], as in keys = [{ alg = \"HS256\", secret_file = \"jwt.secret\" }]");
    }
    let path = path?;
    let Some(rule) = rule else {
        if let Some(name) = path.variables().next() {
            let why = format!(
                "any good token would open every {{{name}}}; write which claim has to say it, as in match = {{ {name} = \"streams\" }}, or match = \"any\""
            );
            section.fault(&found, why);
        }
        return Some(Access::Jwt(Vec::new()));
    };
    let read = matches(&rule.value, path).map_err(|why| section.fault(&rule, why));
    read.ok().map(Access::Jwt)
}

fn matches(written: &Written, path: &PathTemplate) -> Result<Vec<Match>, String> {
    let Written::Table(items) = written else {
        return match written {
            Written::Text(text) if text == "any" => Ok(Vec::new()),
            _ => Err("not a rule; write the claim for each variable, as in { name = \"streams\" }, or \"any\"".into()),
        };
    };
    let mut matches = Vec::with_capacity(items.len());
    for item in items {
        let variable = item.name.clone();
        if !path.variables().any(|known| known == variable) {
            let hint = did_you_mean(&variable, path.variables());
            return Err(format!("{{{variable}}} is no variable of the path \"{path}\"{hint}"));
        }
        match &item.value {
            Written::Text(claim) if !claim.is_empty() => {
                matches.push(Match { variable, claim: claim.clone() });
            }
            other => return Err(format!("{other} is no claim's name; write it as a text")),
        }
    }
    match path.variables().find(|name| !matches.iter().any(|m| m.variable == *name)) {
        Some(name) => Err(format!(
            "says nothing of {{{name}}}: any value of it would be open; write the claim that has to say it, too"
        )),
        None => Ok(matches),
    }
}
