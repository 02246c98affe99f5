//! The language of manual pages, man(7), as far as ours speak it.

use std::fmt::Write;

/// Text as it is, whatever it has: nothing in it is a request, and a dash can be copied.
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

/// What is to be put there.
pub(super) fn slot(text: &str) -> String {
    format!("\\fI{}\\fR", escape(text))
}

/// A paragraph under a term of its own; both are in the language already.
pub(super) fn item(term: &str, text: &str) -> String {
    format!(".TP\n{term}\n{text}")
}

/// A line of text, in which `this` is bold.
pub(super) fn text(words: &str) -> String {
    let parts: Vec<_> = words.split('`').collect();
    assert!(parts.len() % 2 == 1, "a ` without its other in: {words}");
    let part = |(place, part): (usize, &&str)| {
        if place % 2 == 1 { bold(part) } else { escape(part) }
    };
    parts.iter().enumerate().map(part).collect::<String>() + "\n"
}

/// With a capital at its beginning and a full stop.
pub(super) fn sentence(words: &str) -> String {
    let words = words.trim();
    let begins_with_a_name = words.split([' ', ',']).next().is_some_and(|word| word.contains('/'));
    let mut letters = words.chars();
    let first = letters.next().expect("words");
    let first =
        if begins_with_a_name { first.to_string() } else { first.to_uppercase().to_string() };
    let stop = if words.ends_with(['.', ':']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

#[test]
fn nothing_in_a_text_is_a_request() {
    assert_eq!(escape(".br"), "\\&.br");
    assert_eq!(escape("'br"), "\\(aqbr");
    assert_eq!(escape("a-b \\n é"), "a\\-b \\en \\[u00E9]");
    assert_eq!(text("see `ssegate check`, then"), "see \\fBssegate check\\fR, then\n");
}
