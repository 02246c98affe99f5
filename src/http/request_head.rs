//! A request's head: how large it may be, and the wait for it before hyper gets the connection. hyper takes
//! 17 KB for a connection; one that has sent half a head should cost little more than what it has sent.

use std::io;

use hyper::header::{COOKIE, HeaderName, HeaderValue};
use hyper::{Request, Version};

use super::listener::Connection;
use super::response;
use super::rewind::Rewind;
use crate::state::State;

/// A head may have a field for so many of its bytes. HTTP/2 counts as many bytes more for each.
const BYTES_PER_FIELD: usize = 32;

/// The number of fields in a head of `header_bytes`.
pub(super) fn most_fields(header_bytes: usize) -> usize {
    header_bytes / BYTES_PER_FIELD
}

/// The largest head of `header_bytes`, as HTTP/2 counts (RFC 9113, 6.5.2).
pub(super) fn most_list_bytes(header_bytes: usize) -> u32 {
    let bytes = header_bytes + most_fields(header_bytes) * BYTES_PER_FIELD;
    u32::try_from(bytes).expect("the configuration bounds it")
}

/// Whether a head is larger than `header_bytes`, counted as HTTP/1.1 writes it, whatever has carried it: over
/// HTTP/2 the crumbs of a cookie are one line.
pub(super) fn is_too_large<B>(request: &Request<B>, header_bytes: usize) -> bool {
    const LINE_END: usize = 2;
    let headers = request.headers();
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + 4 + value.len();
    let lines: usize = headers.iter().map(line).sum();
    let crumbs = match request.version() {
        Version::HTTP_2 => headers.get_all(COOKIE).iter().count().saturating_sub(1),
        _ => 0,
    };
    // A crumb costs "; " instead of a line's name and end.
    let saved = crumbs * (COOKIE.as_str().len() + 4 - 2);
    let target = request.uri();
    let target = target.path().len() + target.query().map_or(0, |query| query.len() + 1);
    let first = request.method().as_str().len() + target + " HTTP/1.1 ".len() + LINE_END;
    let host =
        request.uri().authority().map_or(0, |host| host.as_str().len() + "host: ".len() + LINE_END);
    first + host + lines - saved + LINE_END > header_bytes
        || headers.len() - crumbs > most_fields(header_bytes)
}

/// Waits until `connection` has a whole head to read, or something that hyper will refuse: another protocol,
/// or a head of more than `limit_bytes`. It is an error if the input ends before.
pub(super) async fn wait_for_head<C: Connection>(
    connection: &mut Rewind<C>,
    limit_bytes: usize,
) -> io::Result<()> {
    let mut searched = 0;
    loop {
        let ahead = connection.ahead();
        if ahead.len() >= limit_bytes || is_other_protocol(ahead) || ends(ahead, searched) {
            return Ok(());
        }
        // The end of the head may be split between two reads.
        searched = ahead.len().saturating_sub(2);
        if connection.look_further(limit_bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Empty lines before a request are ignored (RFC 9112, 2.2).
fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &bytes[start.unwrap_or(bytes.len())..]
}

/// Whether the bytes do not begin with a method: they may be TLS.
fn is_other_protocol(bytes: &[u8]) -> bool {
    without_empty_lines(bytes).first().is_some_and(|byte| !byte.is_ascii_graphic())
}

/// Whether an empty line ends the head, at `searched` or later.
fn ends(bytes: &[u8], searched: usize) -> bool {
    let start = bytes.len() - without_empty_lines(bytes).len();
    let unseen = &bytes[start.max(searched)..];
    // As for hyper, a line feed alone ends a line, too.
    unseen.windows(2).any(|two| two == b"\n\n") || unseen.windows(3).any(|three| three == b"\n\r\n")
}

/// Counts a request whose head hyper refused, and hyper's answer to it.
pub(super) fn count_refused_head(state: &State, error: &hyper::Error) {
    let (reason, answer) = match error {
        error if error.is_timeout() => ("header_timeout", None),
        error if error.is_parse_too_large() => ("head", Some(response::TOO_LARGE_STATUS)),
        error if error.is_parse() => ("malformed", Some(response::MALFORMED_STATUS)),
        _ => return,
    };
    state.metrics.rejected(reason);
    if let Some(status) = answer {
        state.metrics.responded(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    #[test]
    fn a_head_ends_with_an_empty_line_after_its_first() {
        for whole in
            ["GET / HTTP/1.1\r\n\r\n", "\r\n\n\r\nGET / HTTP/1.0\n\n", "G\r\na:b\n\r\nmore"]
        {
            assert!(ends(whole.as_bytes(), 0), "{whole:?}");
        }
        for half in
            ["", "\r\n\r\n\r\n", "GET / HTTP/1.1\r\n", "\n\nGET / HTTP/1.1\r\nHost: x\r\n\r"]
        {
            assert!(!ends(half.as_bytes(), 0) && !is_other_protocol(half.as_bytes()), "{half:?}");
        }
        for other in ["\u{16}\u{3}\u{1}", "\r\n\r\n\0\r\nQUIT\n", " GET"] {
            assert!(is_other_protocol(other.as_bytes()), "{other:?}");
        }
    }

    /// The same request as each version carries it: 150 cookies in a line, or a field for each.
    fn with_cookies(version: Version, more: &str) -> Request<()> {
        let crumbs: Vec<_> =
            (0..150).map(|n| format!("cookie-{n:03}={}", "x".repeat(69))).collect();
        let request = Request::builder().version(version).header("more", more);
        let request = if version == Version::HTTP_2 {
            let request = request.uri("https://x/events/a?b");
            crumbs.iter().fold(request, |request, crumb| request.header(COOKIE, crumb))
        } else {
            request.uri("/events/a?b").header("host", "x").header(COOKIE, crumbs.join("; "))
        };
        request.body(()).unwrap()
    }

    #[test]
    fn a_head_is_counted_alike_whatever_carries_it() {
        let bytes = "GET /events/a?b HTTP/1.1\r\nhost: x\r\nmore: \r\n\r\n".len()
            + "cookie: \r\n".len()
            + 150 * (80 + 2)
            - 2;
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let fits = with_cookies(version, &"x".repeat((16 << 10) - bytes));
            let longer = with_cookies(version, &"x".repeat((16 << 10) - bytes + 1));
            assert!(!is_too_large(&fits, 16 << 10), "{version:?}");
            assert!(is_too_large(&longer, 16 << 10), "{version:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn a_head_may_be_split_between_reads_anywhere(at in 0..29_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, mut client) = UnixStream::pair().unwrap();
                let mut connection = Rewind::new(connection);
                let (first, second) = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".split_at(at);
                client.write_all(first).await.unwrap();
                let mut whole = std::pin::pin!(wait_for_head(&mut connection, 100));
                let early = tokio::time::timeout(std::time::Duration::ZERO, &mut whole).await;
                assert!(early.is_err(), "{at} bytes are no head");
                client.write_all(second).await.unwrap();
                whole.await.unwrap();
            });
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_or_ends_early_is_not_waited_for() {
        let (connection, mut client) = UnixStream::pair().unwrap();
        let mut connection = Rewind::new(connection);
        client.write_all(&[b'x'; 20]).await.unwrap();
        wait_for_head(&mut connection, 10).await.unwrap();
        assert_eq!(connection.ahead().len(), 10);
        drop(client);
        assert!(wait_for_head(&mut connection, 100).await.is_err());
    }
}
