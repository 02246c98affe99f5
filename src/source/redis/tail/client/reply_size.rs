//! How much memory a reply takes while it is read, and how much it may take.

use crate::source::{Error, ErrorClass};
use crate::sse::PART_BYTES;

/// At most this is received before it is decoded and counted: decoded, many small values take many times
/// their bytes on the wire.
pub(super) const RECEIVE_BYTES: usize = 64 << 10;
/// A reply that takes more memory needs a permit, where large replies need one. A few dozen ordinary entries
/// stay below.
pub(super) const SMALL_REPLY_BYTES: usize = 32 << 10;

/// The memory of a reply of so many bytes on the wire, with so many values in it.
pub(super) fn memory_bytes(received_bytes: usize, values: usize) -> usize {
    received_bytes + values * PART_BYTES
}

pub(super) fn too_large(max_bytes: usize) -> Error {
    let message = format!(
        "the reply takes more than {max_bytes} bytes of memory; the reader asks for fewer entries"
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
    async fn small_values_count_for_more_than_their_bytes() {
        let values = |count: usize| format!("*{count}\r\n{}", "$1\r\nx\r\n".repeat(count));
        let outcome = async |count, max_bytes| {
            let (ours, mut redis) = UnixStream::pair().unwrap();
            let mut link = Link::new(Box::new(ours));
            let permits = Arc::new(Semaphore::new(1));
            link.limit_large_replies(permits.clone());
            redis.write_all(values(count).as_bytes()).await.unwrap();
            let request = Request::new(&[b"A"]).with_max_answer_bytes(max_bytes);
            let answer = link.exchange(&request).await.map(drop).map_err(|error| error.code);
            answer.map(|()| permits.available_permits())
        };
        let bytes = 1_000 * (7 + PART_BYTES);
        assert_eq!(outcome(1_000, bytes).await, Err("TOOLARGE"));
        assert_eq!(outcome(1_000, bytes + 1_000).await, Ok(0), "it needed a permit");
        assert_eq!(outcome(300, usize::MAX).await, Ok(1), "it needed none");
    }
}
