//! The markup of manual pages, man(7), as far as gateway.toml(5) needs it.

use std::fmt::Write;

/// Literal text: roff takes nothing in it for a request, and a reader can copy its dashes.
pub(super) fn escape(text: &str) -> String {
    let mut page = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => page.push_str("\\e"),
            '-' => page.push_str("\\-"),
            '\'' => page.push_str("\\(aq"),
            '`' => page.push_str("\\(ga"),
            '^' => page.push_str("\\(ha"),
            '~' => page.push_str("\\(ti"),
            letter if letter.is_ascii() => page.push(letter),
            letter => {
                let _ = write!(page, "\\[u{:04X}]", u32::from(letter));
            }
        }
    }
    if page.starts_with('.') { format!("\\&{page}") } else { page }
}

pub(super) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}

/// A paragraph under its term; both are markup already.
pub(super) fn item(term: &str, text: &str) -> String {
    format!(".TP\n{term}\n{text}")
}

/// A line of text, in which words between backticks are bold.
pub(super) fn text(words: &str) -> String {
    let parts: Vec<_> = words.split('`').collect();
    assert!(parts.len() % 2 == 1, "a backtick without its other half: {words}");
    let part = |(place, part): (usize, &&str)| {
        if place % 2 == 1 { bold(part) } else { escape(part) }
    };
    parts.iter().enumerate().map(part).collect::<String>() + "\n"
}

/// Adds a capital and a full stop; a path keeps its first letter.
pub(super) fn sentence(words: &str) -> String {
    let words = words.trim();
    let begins_with_a_path = words.split([' ', ',']).next().is_some_and(|word| word.contains('/'));
    let mut letters = words.chars();
    let first = letters.next().expect("a sentence has words");
    let first =
        if begins_with_a_path { first.to_string() } else { first.to_uppercase().to_string() };
    let stop = if words.ends_with(['.', ':']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

#[test]
fn roff_takes_no_text_for_a_request() {
    assert_eq!(escape(".br"), "\\&.br");
    assert_eq!(escape("'br"), "\\(aqbr");
    assert_eq!(escape("a-b \\n é"), "a\\-b \\en \\[u00E9]");
    assert_eq!(text("see `ssegate check`, then"), "see \\fBssegate check\\fR, then\n");
}
