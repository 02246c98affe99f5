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
            // For tests and fuzzing alone.
            if ["fuzz", "seed"].contains(&&*import) {
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
fn the_parts_of_a_folder_form_no_circle() {
    let files: BTreeMap<String, String> = sources(Path::new("src"))
        .into_iter()
        .map(|path| (module(&path), fs::read_to_string(&path).unwrap()))
        .collect();
    // By folder: which of its parts uses which.
    let mut folders: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (module, text) in files.iter().filter(|(module, _)| !is_for_tests(module)) {
        for path in used(text) {
            let Some((folder, user, part)) = apart(module, &absolute(module, &path), &files) else {
                continue;
            };
            folders.entry(folder).or_default().entry(user).or_default().push(part);
        }
    }
    assert!(folders.len() > 15, "hardly anything was looked at: {folders:?}");
    for (folder, parts) in &folders {
        for part in parts.keys() {
            assert_eq!(way_back(part, parts), None, "a circle in {folder}");
        }
    }
}

/// `stream::replay::page` of src/stream/replay/page.rs; a folder's mod.rs is the folder.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap().with_extension("");
    let names: Vec<_> = inside.iter().map(|name| name.to_str().unwrap()).collect();
    let names = if names.last() == Some(&"mod") { &names[..names.len() - 1] } else { &names[..] };
    names.join("::")
}

/// Whether only unit tests use a module.
fn is_for_tests(module: &str) -> bool {
    module.split("::").any(|name| ["testing", "tests", "histories", "model"].contains(&name))
}

/// The paths that a text uses, each in full; unit tests left out.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let starts = code.match_indices("use ").filter(|(at, _)| {
        let before = code[..*at].rsplit('\n').next().unwrap().trim();
        before.is_empty() || before.starts_with("pub")
    });
    let trees = starts.filter_map(|(at, found)| code[at + found.len()..].split(';').next());
    trees.flat_map(|tree| in_full(&tree.split_whitespace().collect::<String>())).collect()
}

/// `a::b::c` and `a::d` of `a::{b::c,d}`.
fn in_full(tree: &str) -> Vec<String> {
    let Some((before, inside)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inside[..inside.len() - 1].chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(letter);
        }
    }
    parts.iter().flat_map(|part| in_full(part)).map(|part| format!("{before}{part}")).collect()
}

/// The path from the crate on.
fn absolute(module: &str, path: &str) -> Vec<String> {
    let mut names: Vec<_> = module.split("::").collect();
    let mut path: Vec<_> = path.split("::").collect();
    match path[0] {
        "crate" => names.clear(),
        "super" => {
            while path[0] == "super" {
                names.pop();
                path.remove(0);
            }
        }
        // A child's, or another crate's, which is no module of ours.
        _ => {}
    }
    path.retain(|name| *name != "crate");
    names.into_iter().chain(path).map(str::to_owned).collect()
}

/// The folder in which a module and the one that it uses are apart, and the part of it that each is in; none
/// where one is within the other.
fn apart(
    module: &str,
    used: &[String],
    files: &BTreeMap<String, String>,
) -> Option<(String, String, String)> {
    let known = (1..=used.len()).rev().map(|count| used[..count].join("::"));
    let used = known.into_iter().find(|name| files.contains_key(name) && !is_for_tests(name))?;
    let (module, used): (Vec<_>, Vec<_>) =
        (module.split("::").collect(), used.split("::").collect());
    let shared = module.iter().zip(&used).take_while(|(a, b)| a == b).count();
    let (user, part) = (module.get(shared)?, used.get(shared)?);
    (shared > 0).then(|| (module[..shared].join("::"), (*user).to_owned(), (*part).to_owned()))
}

/// The way from a part back to itself, if there is one.
fn way_back(start: &str, parts: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    let mut open = vec![vec![start.to_owned()]];
    let mut seen = Vec::new();
    while let Some(way) = open.pop() {
        for next in parts.get(way.last().unwrap()).into_iter().flatten() {
            if next == start {
                return Some(way);
            }
            if !seen.contains(next) {
                seen.push(next.clone());
                open.push([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}
