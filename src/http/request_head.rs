//! A request's head: how large it may be, and the wait for it before hyper gets the connection. hyper takes
//! 17 KB for a connection; one that has sent half a head should cost little more than what it has sent.

use std::io;

use super::listener::Connection;
use super::response;
use super::rewind::Rewind;
use crate::state::State;

/// The size of a request head.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// The number of its headers.
pub(super) const MAX_HEADERS: usize = 100;

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
