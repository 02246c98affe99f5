//! What the writer puts into an entry, so that a client can tell by the data alone which entry it
//! is, and that all of it is there and nothing else.

/// A line of the filling; every few of them make the data more than one `data:` line.
const LINE_BYTES: usize = 61;
const ALPHABET_BYTES: usize = 26;
/// So that a line can be taken from anywhere in the first alphabet.
const ALPHABETS: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\
    abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";

/// The payload of the entry of this number, with so many bytes of filling.
pub fn body(number: u64, fill_bytes: usize) -> String {
    let shift = usize::try_from(number % 26).unwrap();
    let mut body = format!("{number} {fill_bytes} ");
    for at in (0..fill_bytes).step_by(LINE_BYTES) {
        // By lines, for a crowd makes millions of them.
        let from = (at + shift) % ALPHABET_BYTES;
        let line = &ALPHABETS[from..from + LINE_BYTES.min(fill_bytes - at)];
        let (first, rest) = line.split_at(1);
        body.push_str(if at > 0 { "\n" } else { first });
        body.push_str(rest);
    }
    body
}

/// The number of the entry whose payload this is; `None` where it is none, or not whole.
pub fn number(data: &str) -> Option<u64> {
    let mut words = data.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let fill_bytes = words.next()?.parse().ok()?;
    (data.len() < fill_bytes + 64 && data == body(number, fill_bytes)).then_some(number)
}
