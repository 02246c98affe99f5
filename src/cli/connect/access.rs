//! Which commands the user may run on the keys of each route.

use super::finding::{Judgement, Level};
use crate::config::{Config, KeyTemplate, Route, StateTemplate};
use crate::source::{Error, Inspector};

/// What streams need of every key.
const READING: [&str; 4] = ["XREAD", "XINFO", "XRANGE", "XREVRANGE"];

/// What every state needs of its key, whatever it holds. Where it is not known that `EXEC` may be run,
/// nothing is tried that leads into a transaction.
const READING_STATE: [&str; 3] = ["TYPE", "EXEC", "MULTI"];

/// What a state of each kind needs besides, by what `TYPE` calls it.
const KINDS: [(&str, &[&str]); 6] = [
    ("string", &["STRLEN", "GET"]),
    ("hash", &["HLEN", "HGETALL"]),
    ("list", &["LLEN", "LRANGE"]),
    ("set", &["SCARD", "SMEMBERS"]),
    ("zset", &["ZCARD", "ZRANGE"]),
    ("ReJSON-RL", &["JSON.GET"]),
];

/// What the user may not run on a key, and of what nobody knows.
#[derive(Default)]
struct Rights {
    denied: Vec<&'static str>,
    unknown: Vec<&'static str>,
}

impl Rights {
    async fn ask(
        &mut self,
        server: &Inspector,
        user: Option<&str>,
        command: &'static str,
        key: &str,
    ) {
        match may_run(server, user, command, key).await {
            Some(true) => {}
            Some(false) => self.denied.push(command),
            None => self.unknown.push(command),
        }
    }
}

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
        let mut rights = Rights::default();
        let publishing = (config.admin.publish || route.publish.is_some()).then_some("XADD");
        let expires = route.publish.as_ref().is_some_and(|publish| publish.expire.is_some());
        let expiring = expires.then_some("PEXPIRE");
        for command in READING.into_iter().chain(publishing).chain(expiring) {
            rights.ask(server, user.as_deref(), command, &key).await;
        }
        judged.push(of_key(&key, &rights));
    }
    for route in &config.routes {
        if let Some(rule) = &route.rules.snapshot
            && let StateTemplate::Key(template) = &rule.of
        {
            let key = sample_key(template);
            judged.push(of_key(&key, &of_state(server, user.as_deref(), &key).await));
        }
    }
    judged
}

/// What the user lacks to read the state in `key`.
async fn of_state(server: &Inspector, user: Option<&str>, key: &str) -> Rights {
    let mut rights = Rights::default();
    for command in READING_STATE {
        rights.ask(server, user, command, key).await;
        let is_allowed = !rights.denied.contains(&command) && !rights.unknown.contains(&command);
        if matches!(command, "EXEC" | "MULTI") && !is_allowed {
            return rights;
        }
    }
    let kind = server.ask(&["TYPE", key]).await;
    let is_kind = |(name, _): &&(&str, _)| kind.as_ref().is_ok_and(|kind| kind.text() == *name);
    if let Some((_, commands)) = KINDS.iter().find(is_kind) {
        for command in *commands {
            rights.ask(server, user, command, key).await;
        }
        return rights;
    }
    // It is not there, or at another node: one kind is enough.
    let mut is_known = true;
    for (_, commands) in KINDS {
        let mut of_kind = Rights::default();
        for command in commands {
            of_kind.ask(server, user, command, key).await;
        }
        match (&of_kind.denied[..], &of_kind.unknown[..]) {
            ([], []) => return rights,
            ([], _) => is_known = false,
            _ => {}
        }
    }
    let lacking = if is_known { &mut rights.denied } else { &mut rights.unknown };
    lacking.push("what reads a state of any kind");
    rights
}

fn of_key(key: &str, Rights { denied, unknown }: &Rights) -> Judgement {
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
        "XADD" => &["XADD", key, "*", "payload", "x"],
        "EXEC" | "MULTI" => &[command],
        "LRANGE" | "ZRANGE" => &[command, key, "0", "0"],
        _ => &[command, key],
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
    if matches!(command, "MULTI" | "GET" | "HGETALL" | "SMEMBERS" | "JSON.GET") {
        return may_queue(server, words).await;
    }
    is_allowed(server.ask(words).await.err().as_ref())
}

/// The same of a command that may have much to say: it comes into a transaction, which is not run.
async fn may_queue(server: &Inspector, words: &[&str]) -> Option<bool> {
    let begun = is_allowed(server.ask(&["MULTI"]).await.err().as_ref());
    if words == ["MULTI"] || begun != Some(true) {
        leave_transaction(server).await;
        return begun;
    }
    let queued = server.ask(words).await;
    leave_transaction(server).await;
    is_allowed(queued.err().as_ref())
}

/// `DISCARD` is a right that nothing else needs. With a command that does not exist, `EXEC` discards as well.
async fn leave_transaction(server: &Inspector) {
    for word in ["SSEGATE", "EXEC"] {
        let _ = server.ask(&[word]).await;
    }
}

/// Whether a command that ended so was allowed: also one whose key is missing, or at another node.
fn is_allowed(error: Option<&Error>) -> Option<bool> {
    // That `EXEC` is denied is told within EXECABORT.
    let denials = ["unknown command", "NOPERM"];
    if error.is_some_and(|error| denials.iter().any(|denial| error.message.contains(denial))) {
        return Some(false);
    }
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
        for message in [
            "ERR unknown command 'JSON.GET'",
            "EXECABORT Transaction discarded because of: NOPERM this user has no permissions",
        ] {
            let error = Error { class: ErrorClass::Away, code: "ERR", message: message.into() };
            assert_eq!(is_allowed(Some(&error)), Some(false), "{message}");
        }
    }
}
