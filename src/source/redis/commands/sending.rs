//! Sending an addition over one connection: an entry by itself, several in a transaction, in one write.

use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, FromValue, Value};

use super::outcome;
use crate::source::{Addition, Fields, WriteError};

/// Adds the only entry; its id.
pub(super) async fn one(
    client: &impl ClientLike,
    addition: &Addition<'_>,
) -> Result<String, FredError> {
    let entry = addition.entries.first().expect("an addition has an entry");
    client.custom(command("XADD"), arguments(addition, entry)).await
}

/// Adds all entries, each once at most; their ids. `asking`: another node has named this one.
///
/// The options of fred count for each command, and a pipeline has none but those that it is given itself.
pub(super) async fn all(
    client: &Client,
    addition: &Addition<'_>,
    options: &Options,
    asking: bool,
) -> Result<Vec<String>, WriteError> {
    let several = addition.entries.len() > 1;
    let pipeline = client.pipeline().with_options(options);
    let queue =
        async |name, arguments| pipeline.custom::<Value, Value>(command(name), arguments).await;
    let queued = async {
        if asking {
            queue("ASKING", Vec::new()).await?;
        }
        if several {
            queue("MULTI", Vec::new()).await?;
        }
        for entry in &addition.entries {
            queue("XADD", arguments(addition, entry)).await?;
        }
        if several {
            queue("EXEC", Vec::new()).await?;
        }
        Ok(())
    };
    queued.await.map_err(|error| outcome::not_sent(&error))?;
    let mut answers = pipeline.try_all::<Value>().await;
    if asking && answers.len() > 1 {
        drop(answers.remove(0));
    }
    if several { of_transaction(answers, addition.entries.len()) } else { ids(answers) }
}

/// Renews the key's time to live, where the addition says it.
///
/// By itself, once the entries are there: sent along with them, it would be carried out for a key of
/// another type as well, which takes no entries.
pub(super) async fn renew(
    client: &Client,
    addition: &Addition<'_>,
    options: &Options,
    asking: bool,
) -> Result<(), FredError> {
    let Some(expire) = addition.expire else { return Ok(()) };
    let ms = i64::try_from(expire.as_millis()).unwrap_or(i64::MAX);
    let pipeline = client.pipeline().with_options(options);
    if asking {
        let _: Value = pipeline.custom(command("ASKING"), Vec::<Value>::new()).await?;
    }
    let arguments: Vec<Value> = vec![addition.key.into(), ms.into()];
    let _: Value = pipeline.custom(command("PEXPIRE"), arguments).await?;
    pipeline.last::<Value>().await.map(drop)
}

fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

/// `XADD key [IDMP producer name] [MAXLEN ~ n] * name value …`
fn arguments(addition: &Addition<'_>, entry: &Fields) -> Vec<Value> {
    let mut words: Vec<Value> = Vec::with_capacity(8 + 2 * entry.len());
    words.push(addition.key.into());
    if let Some(once) = addition.once {
        words.extend(["IDMP", once.producer, once.name].map(Value::from));
    }
    if addition.maxlen > 0 {
        let most = i64::try_from(addition.maxlen).unwrap_or(i64::MAX);
        words.extend(["MAXLEN".into(), "~".into(), most.into()]);
    }
    words.push("*".into());
    for (name, value) in entry {
        words.extend([Value::Bytes(name.clone()), Value::Bytes(value.clone())]);
    }
    words
}

type Answers = Vec<Result<Value, FredError>>;

/// The ids that `XADD`s by themselves have answered.
fn ids(answers: Answers) -> Result<Vec<String>, WriteError> {
    let count = answers.len();
    let mut ids = Vec::with_capacity(count);
    let mut failures = Vec::new();
    for answer in answers {
        match answer.and_then(String::from_value) {
            Ok(id) => ids.push(id),
            Err(error) => failures.push(error),
        }
    }
    match failures.first().map(outcome::write_error) {
        None => Ok(ids),
        // Some of them were added, so it is not true that nothing was.
        Some(WriteError::NotWritten(error)) if !ids.is_empty() => Err(WriteError::Unknown(error)),
        Some(error) => Err(error),
    }
}

/// What `MULTI`, so many `XADD`s and `EXEC` have answered.
fn of_transaction(mut answers: Answers, entries: usize) -> Result<Vec<String>, WriteError> {
    // The connection failed: one answer stands for all.
    if answers.len() != entries + 2 {
        let failure = answers.into_iter().find_map(Result::err);
        return Err(failure.map_or_else(
            || WriteError::Unknown(outcome::closed()),
            |error| outcome::write_error(&error),
        ));
    }
    let exec = answers.pop().expect("there are two and more");
    let multi = answers.remove(0);
    if multi.is_err_and(|error| outcome::is_reply(&error)) {
        // The server, or the user's rights, know no transaction: each was added by itself.
        return ids(answers);
    }
    match exec {
        Ok(Value::Array(added)) if added.len() == entries => {
            let ids: Option<Vec<_>> = added.into_iter().map(Value::into_string).collect();
            ids.ok_or_else(|| WriteError::Unknown(outcome::odd_answer("EXEC")))
        }
        Ok(_) => Err(WriteError::Unknown(outcome::odd_answer("EXEC"))),
        Err(error) if error.details().starts_with("EXECABORT") => {
            // Why is told where the command was queued.
            let why = answers.into_iter().find_map(Result::err).unwrap_or(error);
            Err(WriteError::NotWritten(outcome::not_sent(&why)))
        }
        Err(error) => Err(outcome::write_error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    fn refused(words: &'static str) -> Result<Value, FredError> {
        Err(FredError::new(ErrorKind::Unknown, words))
    }

    fn told(outcome: Result<Vec<String>, WriteError>) -> String {
        match outcome {
            Ok(ids) => ids.join(" "),
            Err(WriteError::NotWritten(error)) => format!("not: {}", error.code),
            Err(WriteError::NotOnce) => "not once".into(),
            Err(WriteError::Unknown(error)) => format!("unknown: {}", error.code),
        }
    }

    #[test]
    fn a_transaction_adds_all_or_none_and_tells_why() {
        let (ok, queued) = (|| Ok(Value::from("OK")), || Ok(Value::Queued));
        let added = || Ok(Value::Array(vec!["1-0".into(), "1-1".into()]));
        let of = |answers| told(of_transaction(answers, 2));
        assert_eq!(of(vec![ok(), queued(), queued(), added()]), "1-0 1-1");
        let abort = "EXECABORT Transaction discarded because of previous errors.";
        let oom = "OOM command not allowed";
        assert_eq!(of(vec![ok(), refused(oom), queued(), refused(abort)]), "not: OOM");
        assert_eq!(of(vec![ok(), queued(), queued(), refused(abort)]), "not: ERR");
        assert_eq!(of(vec![ok(), queued(), queued(), refused("WRONGTYPE x")]), "not: WRONGTYPE");
        assert_eq!(of(vec![refused("Request timed out.")]), "unknown: IO");
        assert_eq!(
            of(vec![ok(), queued(), queued(), refused("Connection closed.")]),
            "unknown: IO"
        );
        assert_eq!(of(vec![ok(), queued(), queued(), Ok(Value::Null)]), "unknown: PROTOCOL");
        assert_eq!(of(Vec::new()), "unknown: IO");
    }

    #[test]
    fn where_no_transaction_is_known_each_entry_counts_by_itself() {
        let denied = || refused("NOPERM this user has no permissions to run the 'multi' command");
        let (id, other) = (|| Ok(Value::from("1-0")), || Ok(Value::from("1-1")));
        let of = |answers| told(of_transaction(answers, 2));
        assert_eq!(of(vec![denied(), id(), other(), refused("ERR EXEC without MULTI")]), "1-0 1-1");
        let oom = || refused("OOM command not allowed");
        assert_eq!(of(vec![denied(), oom(), oom(), denied()]), "not: OOM");
        assert_eq!(of(vec![denied(), id(), oom(), denied()]), "unknown: OOM");
    }
}
