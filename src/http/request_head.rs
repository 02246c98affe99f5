//! A request's head, waited for before hyper hears of it: hyper takes 17 KB for a connection, and one
//! that has sent half a head is to cost little more than what it has sent.

use std::io;

use super::listener::Connection;
use super::rewind::Rewind;

/// Waits until `connection` has a whole head to read, or whatever hyper will refuse: something else, or
/// more than `limit` bytes of it. It is an error that its input ends before.
pub async fn wait<C: Connection>(connection: &mut Rewind<C>, limit_bytes: usize) -> io::Result<()> {
    let mut searched = 0;
    loop {
        let ahead = connection.ahead();
        if ahead.len() >= limit_bytes || is_something_else(ahead) || ends(ahead, searched) {
            return Ok(());
        }
        // An end may lie across what is there and what comes.
        searched = ahead.len().saturating_sub(2);
        if connection.look_further(limit_bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Empty lines before a request are none of it (RFC 9112, 2.2).
fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let handoff = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &bytes[handoff.unwrap_or(bytes.len())..]
}

/// Whether it does not begin with a method, as TLS does not.
fn is_something_else(bytes: &[u8]) -> bool {
    without_empty_lines(bytes).first().is_some_and(|byte| !byte.is_ascii_graphic())
}

/// Whether an empty line ends a head, no sooner than at `searched`.
fn ends(bytes: &[u8], searched: usize) -> bool {
    let begun = bytes.len() - without_empty_lines(bytes).len();
    let unseen = &bytes[begun.max(searched)..];
    // As for hyper, a line feed alone ends a line, too.
    unseen.windows(2).any(|two| two == b"\n\n") || unseen.windows(3).any(|three| three == b"\n\r\n")
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
            assert!(!ends(half.as_bytes(), 0) && !is_something_else(half.as_bytes()), "{half:?}");
        }
        for other in ["\u{16}\u{3}\u{1}", "\r\n\r\n\0\r\nQUIT\n", " GET"] {
            assert!(is_something_else(other.as_bytes()), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_where_a_head_is_cut(at in 0..29_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, mut client) = UnixStream::pair().unwrap();
                let mut connection = Rewind::new(connection);
                let (first, second) = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".split_at(at);
                client.write_all(first).await.unwrap();
                let mut whole = std::pin::pin!(wait(&mut connection, 100));
                let early = tokio::time::timeout(std::time::Duration::ZERO, &mut whole).await;
                assert!(early.is_err(), "{at} bytes are no head");
                client.write_all(second).await.unwrap();
                whole.await.unwrap();
            });
        }
    }

    #[tokio::test]
    async fn what_is_longer_than_it_may_be_or_ends_early_is_not_waited_for() {
        let (connection, mut client) = UnixStream::pair().unwrap();
        let mut connection = Rewind::new(connection);
        client.write_all(&[b'x'; 20]).await.unwrap();
        wait(&mut connection, 10).await.unwrap();
        assert_eq!(connection.ahead().len(), 10);
        drop(client);
        assert!(wait(&mut connection, 100).await.is_err());
    }
}
