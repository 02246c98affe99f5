//! Parses gateway.toml into sections, keys and the comments that explain each.
//!
//! A comment at the start of a line explains what follows; a comment after a key, or indented, explains
//! that key; those at the top, up to an empty line, explain the whole file.

/// The shipped file.
pub(super) const SHIPPED: &str = include_str!("../../../gateway.toml");

#[derive(Default)]
pub(super) struct File {
    /// One paragraph each.
    pub(super) about: Vec<String>,
    pub(super) sections: Vec<Section>,
}

pub(super) struct Section {
    /// With brackets.
    pub(super) name: String,
    pub(super) about: String,
    pub(super) keys: Vec<Key>,
}

pub(super) struct Key {
    pub(super) name: String,
    /// The default, as written.
    pub(super) value: String,
    pub(super) about: String,
}

pub(super) fn parse(file: &str) -> File {
    let mut parsed = File::default();
    let mut ahead: Vec<&str> = Vec::new();
    for line in file.lines() {
        let (code, comment) = split(line);
        let about = |ahead: &mut Vec<&str>| join(ahead.drain(..).chain([comment]));
        if line.starts_with('#') {
            ahead.push(comment);
        } else if code.starts_with('[') {
            let section = Section { name: code.to_owned(), about: about(&mut ahead), keys: vec![] };
            parsed.sections.push(section);
        } else if let Some((name, value)) = code.split_once('=') {
            let section = parsed.sections.last_mut().expect("a key is in a section");
            let [name, value] = [name, value].map(|part| part.trim().to_owned());
            section.keys.push(Key { name, value, about: about(&mut ahead) });
        } else if !comment.is_empty() {
            let section = parsed.sections.last_mut().expect("a comment is in a section");
            let about = section.keys.last_mut().map_or(&mut section.about, |key| &mut key.about);
            *about = join([about.as_str(), comment].into_iter());
        } else if parsed.sections.is_empty() {
            parsed.about = paragraphs(&std::mem::take(&mut ahead));
        }
    }
    parsed
}

/// The code and the comment of a line.
fn split(line: &str) -> (&str, &str) {
    let mut quoted = false;
    let begin = line.find(|letter| {
        quoted ^= letter == '"';
        letter == '#' && !quoted
    });
    let (code, comment) = line.split_at(begin.unwrap_or(line.len()));
    (code.trim(), comment.trim_start_matches('#').trim())
}

fn join<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// An empty line ends a paragraph.
fn paragraphs(lines: &[&str]) -> Vec<String> {
    lines.split(|line| line.is_empty()).map(|lines| join(lines.iter().copied())).collect()
}

#[test]
fn every_key_is_explained() {
    let file = parse(SHIPPED);
    assert!(file.about.len() > 1 && file.sections.len() > 5, "the shipped file was not read");
    for section in &file.sections {
        for key in &section.keys {
            assert!(!key.about.is_empty(), "{} {} has no comment", section.name, key.name);
        }
    }
}

#[test]
fn each_comment_explains_what_it_stands_beside() {
    let file = parse(
        "# The file.\n#\n# All of it.\n\n[a]  # a section\n# First\nk = [\"#1\"]  # the key\n     # goes on\n",
    );
    assert_eq!(file.about, ["The file.", "All of it."]);
    let [section] = &file.sections[..] else { panic!("one section") };
    let [key] = &section.keys[..] else { panic!("one key") };
    assert_eq!((&*section.name, &*section.about), ("[a]", "a section"));
    assert_eq!((&*key.name, &*key.value), ("k", "[\"#1\"]"));
    assert_eq!(key.about, "First the key goes on");
}
