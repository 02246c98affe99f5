//! `check --print`: every effective value in TOML form, and where it was written.

use std::fmt::Write as _;

use super::diagnostics::Location;
use super::{Loaded, Setting};

/// The effective configuration as a gateway.toml, with masked secrets.
pub fn print(loaded: &Loaded) -> String {
    let mut text = format!("# effective configuration; read: {}\n", loaded.file);
    for section in loaded.settings.chunk_by(is_same_section) {
        print_section(&mut text, section);
    }
    text
}

/// Whether `next` belongs to the section of `setting`; each route begins with its path.
fn is_same_section(setting: &Setting, next: &Setting) -> bool {
    setting.section == next.section && !(next.section == "route" && next.key == "path")
}

fn print_section(text: &mut String, settings: &[Setting]) {
    let header = match settings[0].section {
        "route" => "[[route]]".to_owned(),
        section => format!("[{section}]"),
    };
    let lines: Vec<String> =
        settings.iter().map(|setting| format!("{} = {}", setting.key, setting.value)).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).min(60);
    write!(text, "\n{header}\n").expect("writing to a String succeeds");
    for (line, setting) in lines.iter().zip(settings) {
        let place = place(&setting.location);
        writeln!(text, "{line:width$}  # {place}").expect("writing to a String succeeds");
    }
}

fn place(location: &Location) -> String {
    match location {
        Location::File { file, line, .. } => format!("{file}:{line}"),
        location => location.to_string(),
    }
}
