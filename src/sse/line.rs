//! The lines that events are made of, and `retry:`, which belongs to no event.

/// Writes a `field: value` line. The space is needed: the parser removes one, which could be the value's own.
pub(super) fn write_line(out: &mut Vec<u8>, field: &str, value: &str) {
    debug_assert!(!value.contains(['\r', '\n']), "a line's value holds no line end");
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// Writes the `retry:` line: how long a client waits before it reconnects.
pub fn write_retry(out: &mut Vec<u8>, reconnection_time: std::time::Duration) {
    write_line(out, "retry", &reconnection_time.as_millis().to_string());
}
