//! What Redis refuses, and what helps against it: the first word of an error reply tells. TLS that fails is a
//! refusal, too.

use std::fmt::Display;

use crate::source::{AWAY_CODES, Error, ErrorClass, KEY_CODES, LOGIN_CODES};

/// Whether Redis has reached its `maxclients`; it answers so to the first command of any kind.
pub(crate) fn is_too_many_clients(words: &str) -> bool {
    words.starts_with("ERR max number of clients")
}

/// Whether a `NOPERM` is about the command, and not about the key.
pub(crate) fn is_command_denied(words: &str) -> bool {
    words.contains(" to run ")
}

/// Sorts an error of Redis by what helps against it, which its first word tells.
pub(crate) fn error_reply(words: &str) -> Error {
    let word = words.split_whitespace().next().unwrap_or_default();
    let known = |codes: &[&'static str]| codes.iter().find(|code| **code == word).copied();
    let (class, code) = if let Some(code) = known(&KEY_CODES) {
        (ErrorClass::Key, code)
    } else if let Some(code) = known(&LOGIN_CODES) {
        (ErrorClass::Login, code)
    } else {
        (ErrorClass::Away, known(&AWAY_CODES).unwrap_or("ERR"))
    };
    Error { class, code, message: words.to_owned() }
}

/// There is no TLS with a server: only the operator can help.
pub(super) fn no_tls(cause: &dyn Display) -> Error {
    let message = format!(
        "no TLS with this server: {cause}; check source.ca_file (which servers are trusted) and source.client_certificate (what ssegate shows)"
    );
    Error { class: ErrorClass::Login, code: "TLS", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_command_is_told_from_a_denied_key() {
        let command = [
            "NOPERM User gw has no permissions to run the 'xread' command",
            "NOPERM this user has no permissions to run the 'xread' command or its subcommand",
        ];
        let key = [
            "NOPERM No permissions to access a key",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
        ];
        assert!(command.iter().all(|words| is_command_denied(words)));
        assert!(!key.iter().any(|words| is_command_denied(words)));
    }

    #[test]
    fn errors_are_sorted_by_their_remedy() {
        let sorted = |words| {
            let error = error_reply(words);
            (error.class, error.code)
        };
        assert_eq!(sorted("WRONGTYPE Operation against a key"), (ErrorClass::Key, "WRONGTYPE"));
        assert_eq!(sorted("NOPERM no permissions"), (ErrorClass::Key, "NOPERM"));
        assert_eq!(sorted("WRONGPASS invalid"), (ErrorClass::Login, "WRONGPASS"));
        assert_eq!(sorted("LOADING Redis is loading"), (ErrorClass::Away, "LOADING"));
        assert_eq!(sorted("WRONGTYPES are none"), (ErrorClass::Away, "ERR"));
        assert_eq!(sorted(""), (ErrorClass::Away, "ERR"));
    }
}
