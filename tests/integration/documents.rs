//! The documents: they are short, their links lead somewhere, and a test runs every command in them.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The commands that are cheap to run, run as they are written.
mod commands;
/// The log's messages, and their table.
mod log_messages;
/// Each command, and where a test runs it.
mod table;

use table::COMMANDS;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The most words that a document may have, as `wc -w` counts them.
const MOST_WORDS: [(&str, usize); 2] = [("README.md", 1000), ("ARCHITECTURE.md", 1500)];

/// A document, by its path in the project.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).expect(path)
}

/// The first block of this language after a heading of a document.
pub fn block(path: &str, heading: &str, language: &str) -> String {
    let section = section(path, heading);
    let (_, block) = section.split_once(&format!("```{language}\n")).expect(language);
    block.split_once("```").unwrap().0.to_owned()
}

/// What follows a heading of the second level, up to the next one.
pub fn section(path: &str, heading: &str) -> String {
    let text = read(path);
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The README and the pages for users, by their paths.
pub fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    pages.extend(markdown_in("docs"));
    pages
}

/// The Markdown files right in a folder of the project.
fn markdown_in(folder: &str) -> Vec<String> {
    let files = std::fs::read_dir(Path::new(ROOT).join(folder)).expect(folder);
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<_> = names
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("{folder}/{name}").trim_start_matches("./").to_owned())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no documents");
    paths
}

/// The commands in a document's `sh` blocks.
pub fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("\n```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("\n```").expect("the block ends").0);
    let joined: Vec<_> = blocks.map(|block| block.replace("\\\n", " ")).collect();
    let lines = joined.iter().flat_map(|block| block.lines()).map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_test_runs_every_command() {
    let mut faults = Vec::new();
    let mut written = Vec::new();
    for page in pages() {
        for command in commands(&read(&page)) {
            if !COMMANDS.iter().any(|(known, ..)| *known == command) {
                faults.push(format!("{page}: add it to documents/table.rs: {command}"));
            }
            written.push(command);
        }
    }
    for (command, file, text) in COMMANDS {
        if !written.iter().any(|written| written == command) {
            faults.push(format!("no document has the command {command}"));
        }
        if !read(file).contains(text) {
            faults.push(format!("{command}: {file} does not contain {text:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_first_documents_are_short() {
    for (path, most) in MOST_WORDS {
        let words = read(path).split_whitespace().count();
        assert!(words <= most, "{path} has {words} words, and may have {most}");
    }
}

/// The lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The targets of a document's links.
fn links(text: &str) -> Vec<String> {
    let text = prose(text).collect::<Vec<_>>().join("\n");
    let targets = text.split("](").skip(1);
    targets.map(|rest| rest.split_once(')').expect("a link ends").0.to_owned()).collect()
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let mut counts = HashMap::new();
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = counts.entry(anchor.clone()).or_insert(0);
        *count += 1;
        if *count > 1 { format!("{anchor}-{}", *count - 1) } else { anchor }
    };
    headings.map(anchor).collect()
}

/// Where a link in `page` leads, as a path in the project.
fn target(page: &str, link: &str) -> PathBuf {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{page}: {link} leaves the project"),
            part => path.push(part),
        }
    }
    path
}

#[test]
fn every_link_leads_somewhere() {
    let folders = [".", "docs", "docs/decisions", "benches", "deploy/prometheus"];
    let mut faults = Vec::new();
    let mut count = 0;
    for page in folders.into_iter().flat_map(markdown_in) {
        for link in links(&read(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let found = if path.is_empty() { PathBuf::from(&page) } else { target(&page, path) };
            if !Path::new(ROOT).join(&found).exists() {
                faults.push(format!("{page}: no file {link}"));
            } else if !anchor.is_empty() {
                let anchors = anchors(&read(found.to_str().unwrap()));
                if !anchors.iter().any(|known| known == anchor) {
                    faults.push(format!("{page}: no heading {link}; there are {anchors:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count > 50, "the documents have only {count} links");
}
