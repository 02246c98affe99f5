//! The rooms of src/ import one way, in the order that ARCHITECTURE.md gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms as ARCHITECTURE.md lists them: each may import those before it.
fn order() -> Vec<String> {
    let architecture = include_str!("../../ARCHITECTURE.md");
    let (_, section) = architecture.split_once("\n## Rooms\n").expect("a section on rooms");
    let listed = section.lines().find(|line| line.starts_with("sse, ")).expect("their order");
    listed.split(", ").map(str::to_owned).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The room that a file belongs to: its folder in src/, or the file itself.
fn room_of(path: &Path) -> String {
    let first = path.strip_prefix("src").unwrap().iter().next().unwrap();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// What each `crate::` path of a text begins with, comments and unit tests left out.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = lines.flat_map(|line| line.split("crate::").skip(1));
    let name = |path: &str| {
        path.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned)
    };
    paths.filter_map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_room_imports_only_those_before_it() {
    let order = order();
    let place = |room: &str| order.iter().position(|known| known == room);
    let mut seen = BTreeMap::new();
    for path in sources(Path::new("src")) {
        let room = room_of(&path);
        // What joins them all, and what only tests use.
        if ["lib", "main", "fuzz"].contains(&&*room) {
            continue;
        }
        let own = place(&room).unwrap_or_else(|| panic!("{room} is in no list of rooms"));
        for import in imports(&fs::read_to_string(&path).unwrap()) {
            // Under test and fuzzing alone.
            if import == "fuzz" {
                continue;
            }
            let imported =
                place(&import).unwrap_or_else(|| panic!("{import}, in {path:?}, is no room"));
            assert!(
                imported <= own,
                "{} imports {import}, which comes after {room}",
                path.display()
            );
            *seen.entry(room.clone()).or_insert(0) += 1;
        }
    }
    assert!(seen.len() > order.len() / 2, "hardly anything was looked at: {seen:?}");
}

#[test]
fn files_of_one_room_form_no_circle() {
    let files: BTreeMap<String, String> = sources(Path::new("src"))
        .into_iter()
        .map(|path| (module(&path), fs::read_to_string(&path).unwrap()))
        .collect();
    let mut imported: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (module, text) in &files {
        let all = siblings(module, text).into_iter();
        let known =
            all.filter_map(|name| files.get_key_value(&*name).map(|(name, _)| name.as_str()));
        imported.insert(module, known.filter(|name| name != module).collect());
    }
    assert!(imported.values().filter(|names| !names.is_empty()).count() > 50, "{imported:?}");
    for start in imported.keys() {
        assert_eq!(way_back(start, &imported), None, "a circle of imports");
    }
}

/// `stream::replay::page` of src/stream/replay/page.rs; a folder's mod.rs is the folder.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap().with_extension("");
    let names: Vec<_> = inside.iter().map(|name| name.to_str().unwrap()).collect();
    let names = if names.last() == Some(&"mod") { &names[..names.len() - 1] } else { &names[..] };
    names.join("::")
}

/// The files beside it that a module names as `super::name`; its parent itself is not among them.
fn siblings(module: &str, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let Some((parent, _)) = module.rsplit_once("::") else { return Vec::new() };
    let uses = code.lines().filter_map(|line| line.trim_start().strip_prefix("use super::"));
    let name = |path: &str| path.split("::").next().unwrap_or("").to_owned();
    uses.map(|path| format!("{parent}::{}", name(path))).collect()
}

/// The way from `start` back to itself, if there is one.
fn way_back<'a>(
    start: &'a str,
    imported: &BTreeMap<&'a str, Vec<&'a str>>,
) -> Option<Vec<&'a str>> {
    let mut open = vec![vec![start]];
    let mut seen = Vec::new();
    while let Some(way) = open.pop() {
        for next in imported.get(way.last().unwrap()).into_iter().flatten() {
            if *next == start {
                return Some(way);
            }
            if !seen.contains(next) {
                seen.push(*next);
                open.push(way.iter().chain([next]).copied().collect());
            }
        }
    }
    None
}
