//! What one sentinel knows of a primary and its replicas.

use crate::config::Address;
use crate::source::redis::tail::client::Link;
use crate::source::redis::tail::client::replies::{accepted, bytes, list, protocol_error, text};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::topology::node::about_no_key;
use crate::source::{Error, ErrorClass};

/// What a sentinel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SentinelView {
    /// The number of the last failover that the sentinel knows of: the highest is the latest.
    pub(super) epoch: u64,
    pub(super) primary: Address,
    /// The healthy ones.
    pub(super) replicas: Vec<Address>,
}

/// Asks the sentinel at `address` for the primary called `name`.
pub(super) async fn ask(
    link: &mut Link,
    address: &Address,
    name: &str,
) -> Result<SentinelView, Error> {
    let bytes = name.as_bytes();
    // During a failover, the primary's address by name is ahead of the sentinel's table.
    let request = Request::new(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", bytes])
        .and(&[b"SENTINEL", b"MASTER", bytes])
        .and(&[b"SENTINEL", b"REPLICAS", bytes]);
    let answers: Result<[_; 3], _> = link.exchange(&request).await?.try_into();
    let answers = answers.expect("an answer to each command").map(accepted);
    let [primary, table, replicas] = answers.map(|answer| answer.map_err(about_no_key));
    let primary = primary?;
    if primary == Value::Nil {
        return Err(unknown_name(name, address));
    }
    let primary = host_and_port(primary)?;
    // The address is all that has to be told: a discovery service may know no more, and an ACL allow no more.
    let epoch = table.and_then(epoch).unwrap_or(0);
    let mut replicas = replicas.and_then(healthy).unwrap_or_default();
    replicas.retain(|replica| *replica != primary);
    Ok(SentinelView { epoch, primary, replicas })
}

/// The number of the last failover, which `SENTINEL MASTER` tells.
fn epoch(table: Value) -> Result<u64, Error> {
    let epoch = field(&row(table)?, "config-epoch")?.parse();
    epoch.map_err(|_| protocol_error("SENTINEL MASTER with an invalid epoch"))
}

/// Those replicas of `SENTINEL REPLICAS` that the sentinel sees follow their primary.
fn healthy(replicas: Value) -> Result<Vec<Address>, Error> {
    let rows = list(replicas)?.into_iter().filter_map(|replica| row(replica).ok());
    let healthy = rows.filter(|row| is_healthy(row));
    healthy.map(|row| tcp(field(&row, "ip")?.to_owned(), field(&row, "port")?)).collect()
}

/// A refusal of a sentinel is none of the servers that it names.
pub(super) fn refused(error: Error, sentinel: &Address) -> Error {
    if error.class != ErrorClass::Login || matches!(error.code, "TLS" | "SENTINEL") {
        return error;
    }
    let message = format!("the sentinel at {sentinel} refuses the login: {}", error.message);
    Error { code: "SENTINEL", message, ..error }
}

fn unknown_name(name: &str, sentinel: &Address) -> Error {
    let message = format!(
        "the sentinel at {sentinel} knows no primary called \"{name}\"; correct the path of source.url"
    );
    Error { class: ErrorClass::Login, code: "SENTINEL", message }
}

/// Whether the sentinel sees the replica follow its primary.
fn is_healthy(replica: &[(String, String)]) -> bool {
    let is = |name, value: &str| field(replica, name).is_ok_and(|found| found == value);
    is("flags", "slave") && is("master-link-status", "ok")
}

fn tcp(host: String, port: &str) -> Result<Address, Error> {
    let port = port.parse().map_err(|_| protocol_error("a sentinel answered an invalid port"))?;
    Ok(Address::Tcp(host, port))
}

fn host_and_port(value: Value) -> Result<Address, Error> {
    let words = list(value)?.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let pair: Result<[String; 2], _> = words.try_into();
    let [host, port] =
        pair.map_err(|_| protocol_error("a sentinel answered no pair of host and port"))?;
    tcp(host, &port)
}

/// A list of names and values in turn. Bytes that are no text are in no field that we use.
fn row(value: Value) -> Result<Vec<(String, String)>, Error> {
    let mut words = list(value)?.into_iter();
    let mut row = Vec::new();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let read = |value| bytes(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        row.push((read(name)?, read(value)?));
    }
    Ok(row)
}

fn field<'a>(row: &'a [(String, String)], name: &str) -> Result<&'a str, Error> {
    let found = row.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    found.ok_or_else(|| protocol_error("a sentinel's answer lacks a field"))
}
