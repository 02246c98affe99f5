//! What the writer puts into an entry, so that a client can tell by the data alone which entry it
//! is, and that all of it is there and nothing else.

/// A line of the filling; every few of them make the data more than one `data:` line.
const LINE_BYTES: usize = 61;

/// The payload of the entry of this number, with so many bytes of filling.
pub fn body(number: u64, fill_bytes: usize) -> String {
    let shift = usize::try_from(number % 26).unwrap();
    let fill = (0..fill_bytes).map(|at| match at % LINE_BYTES {
        0 if at > 0 => '\n',
        _ => char::from(b"abcdefghijklmnopqrstuvwxyz"[(at + shift) % 26]),
    });
    format!("{number} {fill_bytes} {}", fill.collect::<String>())
}

/// The number of the entry whose payload this is; `None` where it is nobody's, or not whole.
pub fn number(data: &str) -> Option<u64> {
    let mut words = data.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let fill_bytes = words.next()?.parse().ok()?;
    (data.len() < fill_bytes + 64 && data == body(number, fill_bytes)).then_some(number)
}
