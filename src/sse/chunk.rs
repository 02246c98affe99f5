//! Events framed as HTTP/1.1 chunks (RFC 9112, 7.1), one chunk for each.

use bytes::Bytes;

/// Writes `event` as one HTTP/1.1 chunk. Of an empty event nothing: an empty chunk would end the body.
pub fn write_chunk(out: &mut Vec<u8>, event: &[u8]) {
    use std::io::Write as _;
    if event.is_empty() {
        return;
    }
    write!(out, "{:x}\r\n", event.len()).expect("writing to a Vec succeeds");
    out.extend_from_slice(event);
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The event in a chunk that [`write_chunk`] wrote, or nothing if that wrote nothing.
pub fn unframed(chunk: &Bytes) -> Bytes {
    match chunk.iter().position(|byte| *byte == b'\n') {
        Some(line_end) => chunk.slice(line_end + 1..chunk.len() - 2),
        None => Bytes::new(),
    }
}
