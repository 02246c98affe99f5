//! How the tests themselves are written: what makes one fail now and then is found here, in each run.

use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// The one file that sleeps, in the helpers that all others call.
const WAITING: &str = "integration/support/waiting.rs";
/// The one file that makes random numbers from a seed.
const SEED: &str = "integration/support/seed.rs";
/// This one names what no test may call.
const HOUSE: &str = "integration/house.rs";

/// Every file of tests/, by its path there, and its text.
fn files() -> Vec<(String, String)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let (mut folders, mut files) = (vec![tests.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        let paths = read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (inner, found): (Vec<PathBuf>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
        files.extend(found.into_iter().filter(is_rust).map(|path| {
            let name = path.strip_prefix(&tests).unwrap().display().to_string();
            (name, read_to_string(path).unwrap())
        }));
    }
    assert!(files.len() > 50, "{} files", files.len());
    files
}

/// Lines that have one of these, outside `home`.
fn lines_with(words: &[&str], home: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in files().iter().filter(|(name, _)| name != home && name != HOUSE) {
        for (number, line) in (1..).zip(text.lines()) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("tests/{name}:{number}: {}", line.trim()));
            }
        }
    }
    found
}

#[test]
fn nothing_sleeps_in_place_of_a_condition() {
    let found = lines_with(&["sleep(", "sleep_until(", "sleep;"], WAITING);
    assert!(
        found.is_empty(),
        "wait with `eventually` or `within`, or, where time is what the scenario is about, with \
         `pause_of_the_scenario` (tests/{WAITING}):\n{}",
        found.join("\n")
    );
}

#[test]
fn every_random_choice_comes_from_the_seed() {
    // `fastrand::u64(..)` and the like have an unknown seed.
    let functions = ["u8", "u16", "u32", "u64", "usize", "i64", "f64", "bool", "shuffle", "choice"];
    let mut words: Vec<String> = functions.map(|name| format!("fastrand::{name}(")).into();
    words.extend(["Rng::new(", "ProptestConfig", "TestRunner::default("].map(str::to_owned));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let found = lines_with(&words, SEED);
    assert!(found.is_empty(), "use `seed::rng` (tests/{SEED}):\n{}", found.join("\n"));
}
