//! The manual pages and the shells' completions, made from the command line's own words and from
//! gateway.toml's comments. The tests hold `deploy/debian` to them; `UPDATE=1 cargo test --lib manual`
//! writes them anew.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// gateway.toml, taken apart.
mod keys;
/// The language of manual pages, man(7).
mod roff;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/debian");
const CHANGELOG: &str = include_str!("../../../deploy/debian/changelog");

/// The file `name` of the package is `expected`, or is written so.
#[track_caller]
fn holds(name: &str, expected: &str) {
    let path = Path::new(FOLDER).join(name);
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let pairs = || expected.lines().zip(found.lines());
    let first = pairs().find(|(expected, found)| expected != found);
    assert!(
        found == expected,
        "deploy/debian/{name} is not what the source says (UPDATE=1 cargo test --lib manual writes \
         it anew); first in {first:?}, of {} and {} lines",
        expected.lines().count(),
        found.lines().count()
    );
}

/// Version and day of the newest entry of the package's changelog.
fn newest() -> (&'static str, String) {
    let (_, rest) = CHANGELOG.split_once("ssegate (").expect("an entry");
    let (version, rest) = rest.split_once('-').expect("a version with a revision");
    let trailer = rest.lines().find(|line| line.starts_with(" -- ")).expect("a trailer");
    let (_, when) = trailer.split_once(", ").expect("a day");
    let time = jiff::fmt::rfc2822::parse(when).expect("as RFC 2822 has it");
    (version, time.date().to_string())
}

fn title(page: &str, section: u8) -> String {
    let (version, day) = newest();
    let name = page.to_uppercase();
    let name = roff::escape(&name);
    // Ragged and unbroken: keys and addresses are to be copied.
    format!(".TH {name} {section} {day} \"ssegate {version}\"\n.nh\n.ad l\n")
}

/// A page's template with each `@name@` line replaced.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    template
        .lines()
        .map(|line| match parts.iter().find(|(name, _)| line == format!("@{name}@")) {
            Some((_, text)) => text.clone(),
            None => format!("{line}\n"),
        })
        .collect()
}

/// Of a command: its options and arguments, each with its help.
fn options(command: &clap::Command) -> String {
    let of = |arg: &clap::Arg| {
        let value = arg.get_value_names().map(|names| roff::slot(names[0].as_str()));
        let takes = arg.get_action().takes_values();
        let names = [
            arg.get_short().map(|short| roff::bold(&format!("-{short}"))),
            arg.get_long().map(|long| roff::bold(&format!("--{long}"))),
        ];
        let mut term = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if let Some(value) = value.filter(|_| takes) {
            term = if term.is_empty() { value } else { format!("{term} {value}") };
        }
        let help = arg.get_help().expect("every option has its help").to_string();
        roff::item(&term, &roff::text(&roff::sentence(&help)))
    };
    command.get_arguments().map(of).collect()
}

/// A line for each way to be called.
fn synopsis(command: &clap::Command) -> String {
    let line = |command: &clap::Command, name: &str| {
        let mut parts = vec![roff::bold(name)];
        for arg in command.get_arguments().filter(|arg| !is_clap_s_own(arg)) {
            let value = || roff::slot(arg.get_value_names().expect("it takes one")[0].as_str());
            parts.push(match arg.get_long() {
                None => value(),
                Some(long) if arg.get_action().takes_values() => {
                    format!("[{} {}]", roff::bold(&format!("--{long}")), value())
                }
                Some(long) => format!("[{}]", roff::bold(&format!("--{long}"))),
            });
        }
        parts.join(" ")
    };
    let mut lines = vec![line(command, "ssegate")];
    for sub in subcommands(command) {
        lines.push(line(sub, &format!("ssegate {}", sub.get_name())));
    }
    lines.join("\n.br\n") + "\n"
}

fn commands(command: &clap::Command) -> String {
    let entry = |sub: &clap::Command| {
        let about = roff::sentence(&sub.get_about().expect("it says what it does").to_string());
        let name = roff::bold(sub.get_name());
        let options = options(sub);
        format!("{}.RS\n{options}.RE\n", roff::item(&name, &roff::text(&about)))
    };
    subcommands(command).map(entry).collect()
}

fn subcommands(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|sub| sub.get_name() != "help")
}

fn is_clap_s_own(arg: &clap::Arg) -> bool {
    ["help", "version"].contains(&arg.get_id().as_str())
}

fn section(section: &keys::Section) -> String {
    let mut page = format!(".SS {}\n", roff::escape(&section.name));
    if !section.about.is_empty() {
        page += &roff::text(&roff::sentence(&section.about));
    }
    for key in &section.keys {
        let term = format!("{} = {}", roff::bold(&key.name), roff::escape(&key.value));
        page += &roff::item(&term, &roff::text(&roff::sentence(&key.about)));
    }
    page
}

/// With clap's own options, as the command line has them.
fn cli() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[test]
fn the_page_of_the_command_is_what_the_command_line_says() {
    let cli = cli();
    let parts = [
        ("title", title("ssegate", 8)),
        ("synopsis", synopsis(&cli)),
        ("options", options(&cli)),
        ("commands", commands(&cli)),
    ];
    holds("ssegate.8", &fill(include_str!("ssegate.8"), &parts));
}

#[test]
fn the_page_of_the_configuration_is_what_its_comments_say() {
    let file = keys::parse(keys::SHIPPED);
    let about: Vec<_> = file.about.iter().map(|line| roff::text(line)).collect();
    let parts = [
        ("title", title("gateway.toml", 5)),
        ("about", about.join(".PP\n")),
        ("sections", file.sections.iter().map(section).collect()),
    ];
    holds("gateway.toml.5", &fill(include_str!("gateway.toml.5"), &parts));
}

#[test]
fn completions_are_those_of_the_command_line() {
    for (shell, name) in
        [(Shell::Bash, "ssegate.bash"), (Shell::Zsh, "_ssegate"), (Shell::Fish, "ssegate.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "ssegate", &mut script);
        holds(&format!("completions/{name}"), &String::from_utf8(script).unwrap());
    }
}

#[test]
fn the_package_is_of_the_crate_s_version() {
    assert_eq!(newest().0, env!("CARGO_PKG_VERSION"), "deploy/debian/changelog");
}

#[test]
fn the_page_s_example_is_a_good_configuration() {
    let folder = std::env::temp_dir().join(format!("ssegate-manual-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let template = include_str!("gateway.toml.5");
    let (_, example) = template.split_once(".nf\n").expect("an example");
    let (example, _) = example.split_once(".fi\n").expect("the example's end");
    let file = folder.join("gateway.toml");
    std::fs::write(&file, example.replace("\\-", "-")).unwrap();
    std::fs::write(folder.join("ssegate.jwt-secret"), "0123456789abcdef0123456789abcdef").unwrap();
    let credentials = folder.to_str().unwrap().to_owned();
    let environment = [("CREDENTIALS_DIRECTORY".to_owned(), credentials)];
    let loaded = crate::config::load(Some(&file), false, &environment);
    std::fs::remove_dir_all(&folder).unwrap();
    let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(loaded.config.routes.len(), 2);
}
