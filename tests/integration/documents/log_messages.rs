//! docs/logs.md has every message that the gateway logs at a level above debug, and no other.

use std::path::{Path, PathBuf};

use super::{ROOT, read};

#[test]
fn every_message_of_the_log_is_in_its_table_and_no_other() {
    let documented = documented();
    let logged = logged(&Path::new(ROOT).join("src"));
    assert!(logged.len() > 40, "hardly any message was found: {logged:?}");
    let missing: Vec<_> = logged.iter().filter(|message| !documented.contains(message)).collect();
    assert!(missing.is_empty(), "docs/logs.md lacks {missing:#?}");
    let gone: Vec<_> = documented.iter().filter(|message| !logged.contains(message)).collect();
    assert!(gone.is_empty(), "nobody logs {gone:#?}");
}

/// The first column of the tables of messages, in backquotes.
fn documented() -> Vec<String> {
    let page = read("docs/logs.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages = rows.filter_map(|row| row.split_once("` | ").map(|(message, _)| message));
    messages.map(|message| message.replace("\\|", "|")).collect()
}

/// The messages in the calls of `info!`, `warn!` and `error!` in a folder, as they are written there.
fn logged(folder: &Path) -> Vec<String> {
    let mut messages = Vec::new();
    for path in sources(folder) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for name in ["info!(", "warn!(", "error!("] {
            for (at, _) in code.match_indices(name) {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                if before.is_alphanumeric() || before == '_' {
                    continue;
                }
                messages.extend(message_of(&code[at + name.len()..]));
            }
        }
    }
    messages.sort();
    messages.dedup();
    messages
}

/// The last string of a call's arguments; none where the message is made elsewhere, as `"{error}"` is.
fn message_of(call: &str) -> Option<String> {
    let mut strings = Vec::new();
    let (mut depth, mut letters) = (1, call.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            '"' => strings.push(string(&mut letters)),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    strings.pop().filter(|message| !message.starts_with('{'))
}

/// The rest of a string literal, as its bytes are.
fn string(letters: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => text.extend(letters.next()),
            letter => text.push(letter),
        }
    }
    text
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    let is_source = |path: &PathBuf| {
        let tests = path.components().any(|part| part.as_os_str() == "tests");
        path.extension().is_some_and(|extension| extension == "rs") && !tests
    };
    files.filter(is_source).collect()
}
