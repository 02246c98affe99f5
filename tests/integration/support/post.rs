//! A `POST` to a route, over HTTP/1.1 by hand or over any version with curl.

use std::process::Command;

use serde_json::Value;

use super::gateway::{Gateway, Response, exchange};

/// With these header lines, and a length.
pub fn post(gateway: &Gateway, path: &str, headers: &[&str], body: &str) -> Response {
    exchange(&gateway.address, &request(path, headers, body))
}

/// The request, after whose answer the connection closes.
pub fn request(path: &str, headers: &[&str], body: &str) -> String {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// The ids in an answer.
#[track_caller]
pub fn ids_in(response: &Response) -> Vec<String> {
    assert_eq!(response.status, 200, "{response:?}");
    let answer: Value = serde_json::from_str(&response.body).unwrap();
    let id = |id: &Value| id.as_str().unwrap().to_owned();
    match answer["ids"].as_array() {
        Some(ids) => ids.iter().map(id).collect(),
        None => vec![id(&answer["id"])],
    }
}

/// What curl prints: the head and the body, after an interim response where one came.
pub fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-si", "-m", "60"]).args(arguments);
    let output = curl.output().expect("curl must be installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
