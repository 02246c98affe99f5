//! Events framed as HTTP/1.1 chunks (RFC 9112, 7.1), one chunk for each.

use bytes::Bytes;

/// Frames `event` as one HTTP/1.1 chunk; nothing for nothing, for an empty chunk ends the body.
pub fn write_chunk(out: &mut Vec<u8>, event: &[u8]) {
    use std::io::Write as _;
    if event.is_empty() {
        return;
    }
    write!(out, "{:x}\r\n", event.len()).expect("writing to a Vec succeeds");
    out.extend_from_slice(event);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The event in one chunk as [`write_chunk`] makes it; nothing in nothing.
pub fn unframed(chunk: &Bytes) -> Bytes {
    match chunk.iter().position(|byte| *byte == b'\n') {
        Some(line) => chunk.slice(line + 1..chunk.len() - 2),
        None => Bytes::new(),
    }
}
