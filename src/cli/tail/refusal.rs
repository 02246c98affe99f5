//! Explains a refusal: what the server answered, and what to do about it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use tokio::time::timeout;
use url::Url;

use super::text::{authority, printable};

/// How long the body of a refusal may take,
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(2);
/// and how much of it is shown.
pub(super) const EXPLANATION_LIMIT_BYTES: usize = 500;

/// The answer, and what to do about it.
pub(super) async fn refusal(url: &Url, answer: Response<Incoming>) -> String {
    let status = answer.status();
    let header =
        |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let location = header(LOCATION).unwrap_or("no place").to_owned();
    let content_type = header(CONTENT_TYPE).unwrap_or("none").to_owned();
    let advice = match status.as_u16() {
        200 => format!(
            "its content type is {content_type:?}, not \"text/event-stream\": is this the path of a stream?"
        ),
        300..=399 => format!("it points to {location:?}: give tail that URL"),
        400 => "check the URL's query and --last-event-id".to_owned(),
        401 => "the stream needs a token: add it to the URL's query, as the route's auth.jwt.from names it".to_owned(),
        403 => "the token, or this client, may not read this stream".to_owned(),
        404 => "no route has this path: compare it with the [[route]] sections".to_owned(),
        421 => "it does not serve this host name: see server.hosts".to_owned(),
        429 | 503 => "it is overloaded, starting or stopping: try again later".to_owned(),
        500..=599 => "the fault is the server's, or a proxy's: see their logs".to_owned(),
        _ => "it will not stream this URL".to_owned(),
    };
    let words = explanation(answer.into_body()).await;
    let said = if words.is_empty() { String::new() } else { format!(" ({words})") };
    format!("{} answered {status}{said}; {}", authority(url), printable(&advice))
}

/// The beginning of the answer's body, on one line.
async fn explanation(mut body: Incoming) -> String {
    let mut words = Vec::new();
    let read = async {
        while words.len() < EXPLANATION_LIMIT_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            words.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    };
    // A body that does not end in time is cut, like one that is too long.
    let _ = timeout(EXPLANATION_TIMEOUT, read).await;
    words.truncate(EXPLANATION_LIMIT_BYTES);
    printable(String::from_utf8_lossy(&words).trim())
}
