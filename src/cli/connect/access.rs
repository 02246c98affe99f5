//! Which commands the user may run on the keys of each route.

use super::finding::{Judgement, Level};
use crate::config::{Config, KeyTemplate, Route};
use crate::source::{Error, Inspector};

/// What streams need of every key.
const READING: [&str; 4] = ["XREAD", "XINFO", "XRANGE", "XREVRANGE"];

/// Asks for the commands of each route on a key that the route may lead to.
pub(super) async fn access(server: &Inspector, config: &Config) -> Vec<Judgement> {
    let user = server.ask(&["ACL", "WHOAMI"]).await;
    let user = user.map(|user| user.text().to_owned()).ok();
    let mut judged = Vec::new();
    let templates =
        |route: &'_ Route| route.streams.templates().map(sample_key).collect::<Vec<_>>();
    let routes = config.routes.iter().map(|route| (route, templates(route)));
    for (route, key) in
        routes.flat_map(|(route, keys)| keys.into_iter().map(move |key| (route, key)))
    {
        let mut denied = Vec::new();
        let mut unknown = Vec::new();
        let publishing = (config.admin.publish || route.publish.is_some()).then_some("XADD");
        let expires = route.publish.as_ref().is_some_and(|publish| publish.expire.is_some());
        let expiring = expires.then_some("PEXPIRE");
        for command in READING.into_iter().chain(publishing).chain(expiring) {
            match may_run(server, user.as_deref(), command, &key).await {
                Some(true) => {}
                Some(false) => denied.push(command),
                None => unknown.push(command),
            }
        }
        judged.push(of_route(&key, &denied, &unknown));
    }
    judged
}

fn of_route(key: &str, denied: &[&str], unknown: &[&str]) -> Judgement {
    if !denied.is_empty() {
        let text = format!(
            "the user may not run {} on \"{key}\": its clients are refused; allow the commands and the key (docs/redis.md, Access rights)",
            denied.join(", ")
        );
        return (Level::Wrong, "access", text);
    }
    if !unknown.is_empty() {
        let text = format!(
            "not known whether the user may run {} on \"{key}\"; allow +acl|dryrun and +acl|whoami to have this checked",
            unknown.join(", ")
        );
        return (Level::Note, "access", text);
    }
    (Level::Fine, "access", format!("\"{key}\" may be read"))
}

/// `None`: it cannot be found out without doing it.
async fn may_run(server: &Inspector, user: Option<&str>, command: &str, key: &str) -> Option<bool> {
    let words: &[&str] = match command {
        "XREAD" => &["XREAD", "COUNT", "1", "STREAMS", key, "$"],
        "XINFO" => &["XINFO", "STREAM", key],
        "XRANGE" => &["XRANGE", key, "-", "-", "COUNT", "1"],
        "XREVRANGE" => &["XREVRANGE", key, "-", "-", "COUNT", "1"],
        "PEXPIRE" => &["PEXPIRE", key, "3600000"],
        _ => &["XADD", key, "*", "payload", "x"],
    };
    if let Some(user) = user {
        let dry = [&["ACL", "DRYRUN", user], words].concat();
        if let Ok(answer) = server.ask(&dry).await {
            return Some(answer.text() == "OK");
        }
    }
    // They would change the stream.
    if matches!(command, "XADD" | "PEXPIRE") {
        return None;
    }
    is_allowed(server.ask(words).await.err().as_ref())
}

/// Whether a command that ended so was allowed: also one whose key is missing, or at another node.
fn is_allowed(error: Option<&Error>) -> Option<bool> {
    match error.map(|error| error.code) {
        None | Some("ERR" | "WRONGTYPE" | "MOVED" | "ASK") => Some(true),
        Some("NOPERM") => Some(false),
        Some(_) => None,
    }
}

/// A key that the template may lead to.
fn sample_key(template: &KeyTemplate) -> String {
    let variables: Vec<_> =
        template.variables().map(|name| (name.to_owned(), "x".to_owned())).collect();
    template.key(&variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ErrorClass;

    #[test]
    fn a_refusal_of_the_key_is_told_from_one_of_the_user() {
        let allowed = |code| {
            is_allowed(Some(&Error { class: ErrorClass::Key, code, message: String::new() }))
        };
        assert_eq!(is_allowed(None), Some(true));
        assert_eq!(["ERR", "WRONGTYPE", "MOVED"].map(allowed), [Some(true); 3]);
        assert_eq!(allowed("NOPERM"), Some(false));
        assert_eq!(["LOADING", "TIMEOUT"].map(allowed), [None; 2]);
    }
}
