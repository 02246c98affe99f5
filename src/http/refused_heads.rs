//! hyper's own answers to heads that it cannot parse, or that are too large. They are bare and know no page;
//! here they get what our other refusals have: a line that says why, and the headers for the page that asked.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{response, router};
use crate::state::State;

/// An origin is no longer than this.
const MOST_ORIGIN_BYTES: usize = 300;
const ORIGIN_LINE: &[u8] = b"origin:";

/// A connection on which hyper serves HTTP/1.
pub(super) struct RefusedHeads<C> {
    connection: C,
    state: Arc<State>,
    origin: OriginLine,
    /// What is written in place of hyper's answer.
    refusal: Vec<u8>,
    /// How much of it is written.
    written: usize,
}

impl<C> RefusedHeads<C> {
    pub(super) fn new(connection: C, state: Arc<State>) -> Self {
        let origin = OriginLine::default();
        Self { connection, state, origin, refusal: Vec::new(), written: 0 }
    }

    pub(super) fn into_inner(self) -> C {
        self.connection
    }

    /// Our answer in place of a bare one with this status.
    fn refusal(&self, status: StatusCode) -> Vec<u8> {
        let serving = self.state.serving();
        let message = match status {
            StatusCode::BAD_REQUEST => "the request is malformed".to_owned(),
            _ => response::too_large(self.state.config().limits.header_bytes),
        };
        let mut request = HeaderMap::new();
        if let Some(origin) = self.origin.value() {
            request.insert(ORIGIN, origin);
        }
        let headers = router::page_headers(&serving.config, &serving.gate, &request);
        response::closing(true, status, &message, &headers)
    }
}

/// The status of an answer that hyper made itself: all of `bytes` is a head, and no body follows. Each of our
/// own refusals has a body, and no event has a CR.
fn bare_refusal(bytes: &[u8]) -> Option<StatusCode> {
    // First, for it is all that most writes cost: over TLS the events of a stream come through here.
    if !bytes.starts_with(b"HTTP/1.") {
        return None;
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let is_empty = || bytes.windows(21).any(|line| line == b"\r\ncontent-length: 0\r\n");
    if end + 4 < bytes.len() || !is_empty() {
        return None;
    }
    let status = StatusCode::from_bytes(bytes.get(9..12)?).ok()?;
    let of_heads = [
        StatusCode::BAD_REQUEST,
        StatusCode::URI_TOO_LONG,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    ];
    of_heads.contains(&status).then_some(status)
}

/// Finds the last `Origin` in what is read, though the head around it cannot be parsed.
#[derive(Default)]
struct OriginLine {
    /// The line so far, if it may be one.
    line: Vec<u8>,
    is_other: bool,
    found: Option<HeaderValue>,
}

impl OriginLine {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end();
            } else if !self.is_other {
                self.line.push(*byte);
                let most = ORIGIN_LINE.len() + MOST_ORIGIN_BYTES;
                let known = &self.line[..self.line.len().min(ORIGIN_LINE.len())];
                let may_be = known.eq_ignore_ascii_case(&ORIGIN_LINE[..known.len()]);
                self.is_other = !may_be || self.line.len() > most;
            }
        }
    }

    fn end(&mut self) {
        if let Some(value) = self.value() {
            self.found = Some(value);
        }
        self.is_other = false;
        self.line = Vec::new();
    }

    /// The last one; it may be in the line that is not whole.
    fn value(&self) -> Option<HeaderValue> {
        let value = self.line.get(ORIGIN_LINE.len()..).filter(|_| !self.is_other);
        let value = value.and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        value.or_else(|| self.found.clone())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for RefusedHeads<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(context, into))?;
        self.origin.read(&into.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

/// Not vectored: so hyper writes its whole answer at once.
impl<C: AsyncWrite + Unpin> AsyncWrite for RefusedHeads<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.refusal.is_empty() {
            let Some(status) = bare_refusal(bytes) else {
                return Pin::new(&mut this.connection).poll_write(context, bytes);
            };
            this.refusal = this.refusal(status);
        }
        while this.written < this.refusal.len() {
            let rest = &this.refusal[this.written..];
            let written = ready!(Pin::new(&mut this.connection).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            this.written += written;
        }
        (this.refusal, this.written) = (Vec::new(), 0);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_a_body_to_a_bad_head_is_hypers_own() {
        let head =
            |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\ndate: x\r\n\r\n");
        for (answer, status) in [
            (head("400 Bad Request"), Some(400)),
            (head("431 Request Header Fields Too Large"), Some(431)),
            (head("414 URI Too Long"), Some(414)),
            (head("204 No Content"), None),
            (head("400 Bad Request") + "more", None),
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\n".into(), None),
            ("5\r\ndata\n\r\n0\r\n\r\n".into(), None),
        ] {
            let found = bare_refusal(answer.as_bytes()).map(|status| status.as_u16());
            assert_eq!(found, status, "{answer}");
        }
    }

    #[test]
    fn the_origin_is_found_wherever_reads_split_it() {
        let head = b"GET / HTTP/1.1\r\nX-Origin: no\r\nORIGIN:  https://app.example \r\nlong: ";
        for size in 1..head.len() {
            let mut origin = OriginLine::default();
            head.chunks(size).for_each(|part| origin.read(part));
            assert_eq!(origin.value().unwrap(), "https://app.example", "in reads of {size}");
        }
        let mut long = OriginLine::default();
        long.read(format!("\norigin: {}\n", "x".repeat(400)).as_bytes());
        assert_eq!(long.value(), None);
    }
}
