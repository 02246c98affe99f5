//! What became of a command. fred tells replies of Redis and failures of its own in one type; only the words
//! differ.

use fred::error::{Error as FredError, ErrorKind};

use crate::source::redis::refusal::{error_reply, no_tls};
use crate::source::{Error, ErrorClass, WriteError};

/// The failure of a command that writes.
pub(super) fn write_error(error: &FredError) -> WriteError {
    match reply(error) {
        Some(refusal) => WriteError::NotWritten(refusal),
        None if *error.kind() == ErrorKind::Backpressure => WriteError::NotWritten(not_sent(error)),
        None => WriteError::Unknown(failure(error)),
    }
}

/// The failure of a question, or of a connection that was yet to be used.
pub(super) fn not_sent(error: &FredError) -> Error {
    reply(error).unwrap_or_else(|| failure(error))
}

/// The connection's task ended without a word.
pub(super) fn closed() -> Error {
    let message = "the connection for commands was closed".to_owned();
    Error { class: ErrorClass::Away, code: "IO", message }
}

/// `XADD` answered with something that is no id.
pub(super) fn odd_answer(answer: &str) -> Error {
    let answer: String = answer.chars().take(100).collect();
    let message = format!("unexpected answer from Redis: {answer:?} is no stream id");
    Error { class: ErrorClass::Away, code: "PROTOCOL", message }
}

/// Whether the nodes of a cluster did nothing but name one another.
pub(super) fn is_redirected_too_often(error: &FredError) -> bool {
    *error.kind() == ErrorKind::Routing && error.details().starts_with("Too many redirections")
}

/// Whether the server took `IDMP` for the id of the entry, or for nothing that it knows.
pub(super) fn knows_no_idmp(error: &Error) -> bool {
    const WORDS: [&str; 4] =
        ["invalid stream id", "wrong number of arguments", "syntax error", "unknown"];
    let words = error.message.to_ascii_lowercase();
    error.code == "ERR" && WORDS.iter().any(|known| words.contains(known))
}

/// Whether Redis has answered with this.
pub(super) fn is_reply(error: &FredError) -> bool {
    reply(error).is_some()
}

/// Whether the server, or a proxy before it, speaks RESP2 alone.
pub(super) fn knows_no_hello(error: &Error) -> bool {
    let words = error.message.to_ascii_lowercase();
    words.contains("noproto") || words.contains("unknown command")
}

/// The error that Redis answered with. It begins with a code in capitals, which no failure of fred's does.
fn reply(error: &FredError) -> Option<Error> {
    let words = error.details();
    let code = words.split_whitespace().next().unwrap_or_default();
    let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    is_code.then(|| error_reply(words))
}

fn failure(error: &FredError) -> Error {
    // rustls' errors come as those of a socket, in their debug form.
    if *error.kind() == ErrorKind::Tls || error.details().contains("kind: InvalidData") {
        return no_tls(&error.details());
    }
    let (class, code) = match error.kind() {
        ErrorKind::Timeout => (ErrorClass::Away, "TIMEOUT"),
        ErrorKind::Auth => (ErrorClass::Login, "NOAUTH"),
        ErrorKind::Sentinel => (ErrorClass::Away, "SENTINEL"),
        ErrorKind::Protocol | ErrorKind::Parse => (ErrorClass::Away, "PROTOCOL"),
        ErrorKind::Backpressure => (ErrorClass::Away, "FULL"),
        _ => (ErrorClass::Away, "IO"),
    };
    let message = format!("the connection for commands failed: {}", in_words(error.details()));
    Error { class, code, message }
}

/// fred gives an error of the system in its debug form: `Os { code: 111, …, message: "Connection refused" }`.
fn in_words(details: &str) -> &str {
    let message = details.split_once("message: \"").and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(details, |(message, _)| message)
}

/// The library that publishes numbers databases with a byte.
pub(super) fn unreachable_database() -> Error {
    let message =
        "nothing can be published to a database above 255; streams can be read from it".to_owned();
    Error { class: ErrorClass::Away, code: "ERR", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: ErrorKind, words: &'static str) -> (bool, ErrorClass, &'static str) {
        match write_error(&FredError::new(kind, words)) {
            WriteError::NotWritten(error) => (true, error.class, error.code),
            WriteError::NotOnce => panic!("no error of fred's says so"),
            WriteError::Unknown(error) => (false, error.class, error.code),
        }
    }

    #[test]
    fn what_redis_refuses_was_not_written_and_all_else_is_not_known() {
        let refused = [
            (ErrorKind::InvalidArgument, "WRONGTYPE Operation", ErrorClass::Key, "WRONGTYPE"),
            (ErrorKind::Unknown, "NOPERM no permissions", ErrorClass::Key, "NOPERM"),
            (ErrorKind::Auth, "NOAUTH Authentication required.", ErrorClass::Login, "NOAUTH"),
            (ErrorKind::Unknown, "READONLY You can't write", ErrorClass::Away, "READONLY"),
            (ErrorKind::Unknown, "OOM command not allowed", ErrorClass::Away, "OOM"),
            (ErrorKind::Unknown, "ERR syntax error", ErrorClass::Away, "ERR"),
        ];
        for (kind, words, class, code) in refused {
            assert_eq!(outcome(kind, words), (true, class, code), "{words}");
        }
        let lost = [
            (ErrorKind::Timeout, "Request timed out.", "TIMEOUT"),
            (ErrorKind::IO, "Connection closed.", "IO"),
            (ErrorKind::IO, "Os { code: 104, kind: ConnectionReset }", "IO"),
            (ErrorKind::Canceled, "Canceled.", "IO"),
            (ErrorKind::Protocol, "Invalid frame", "PROTOCOL"),
            (ErrorKind::Unknown, "", "IO"),
        ];
        for (kind, words, code) in lost {
            assert_eq!(outcome(kind, words), (false, ErrorClass::Away, code), "{words}");
        }
        let full = outcome(ErrorKind::Backpressure, "Max command queue length exceeded.");
        assert_eq!(full, (true, ErrorClass::Away, "FULL"), "it never left us");
    }

    #[test]
    fn an_error_of_the_system_is_told_in_its_own_words() {
        let refused = "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }";
        assert_eq!(in_words(refused), "Connection refused");
        assert_eq!(in_words("Request timed out."), "Request timed out.");
    }

    #[test]
    fn a_server_without_hello_is_spoken_to_in_resp2() {
        let knows_none = |words| knows_no_hello(&error_reply(words));
        assert!(knows_none("ERR unknown command 'HELLO'"));
        assert!(knows_none("NOPROTO unsupported protocol version"));
        assert!(!knows_none("WRONGPASS invalid username-password pair"));
    }
}
