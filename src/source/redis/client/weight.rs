//! What a reply takes in memory while it is taken apart, and how much that may be.

use crate::source::{Error, ErrorClass};
use crate::sse::PART_BYTES;

/// No more than this is taken in at once: it is weighed only when it has been taken apart, and small
/// values then take many times their bytes.
pub(super) const MOST_AT_ONCE_BYTES: usize = 64 << 10;
/// What a reply takes in memory before it needs a turn, where large replies take turns. A few dozen
/// ordinary entries need none.
pub(super) const SMALL_REPLY_BYTES: usize = 32 << 10;

/// Of so many bytes on the wire, and values in them.
pub(super) fn held_bytes(received_bytes: usize, values: usize) -> usize {
    received_bytes + values * PART_BYTES
}

pub(super) fn too_large(most_bytes: usize) -> Error {
    let message = format!(
        "a reply that takes more than {most_bytes} bytes in memory: fewer entries are asked for"
    );
    Error { class: ErrorClass::TooLarge, code: "TOOLARGE", message }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;

    use super::super::link::Link;
    use super::super::request::Request;
    use super::*;

    #[tokio::test]
    async fn small_values_weigh_more_than_their_bytes() {
        let values = |count: usize| format!("*{count}\r\n{}", "$1\r\nx\r\n".repeat(count));
        let outcome = async |count, most_bytes| {
            let (ours, mut redis) = UnixStream::pair().unwrap();
            let mut link = Link::new(Box::new(ours));
            let permits = Arc::new(Semaphore::new(1));
            link.share_permits(permits.clone());
            redis.write_all(values(count).as_bytes()).await.unwrap();
            let request = Request::new(&[b"A"]).with_answers_within(most_bytes);
            let answer = link.exchange(&request).await.map(drop).map_err(|error| error.code);
            answer.map(|()| permits.available_permits())
        };
        let held_bytes = 1_000 * (7 + PART_BYTES);
        assert_eq!(outcome(1_000, held_bytes).await, Err("TOOLARGE"));
        assert_eq!(outcome(1_000, held_bytes + 1_000).await, Ok(0), "it needed a turn");
        assert_eq!(outcome(300, usize::MAX).await, Ok(1), "it needed none");
    }
}
