//! ssegate(8): what `clap_mangen` makes of the command line, within sections of our own.

use std::io;

use clap::Command;
use clap_mangen::Man;

use super::{cli, fill, holds, newest};

/// What roff needs for apostrophes: once at the top, not before each part.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

fn title() -> String {
    let (version, day) = newest();
    let man = Man::new(cli()).title("SSEGATE").section("8").date(day);
    let man = man.source(format!("ssegate {version}"));
    format!("{PREAMBLE}{}", part(|page| man.render_title(page)))
}

/// The usage of the command and of each subcommand.
fn synopsis(command: &Command) -> String {
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    let usage = std::iter::once(command).chain(subcommands).map(|command| {
        let usage = command.clone().render_usage().to_string();
        usage.trim_start_matches("Usage: ").lines().next().expect("a line").to_owned()
    });
    let usage = usage.collect::<Vec<_>>().join("\n");
    let man = Man::new(command.clone().override_usage(usage));
    part(|page| man.render_synopsis_section(page))
}

fn options(command: &Command) -> String {
    let man = Man::new(command.clone());
    part(|page| man.render_options_section(page))
}

/// Each subcommand with its options, in a subsection.
fn commands(command: &Command) -> String {
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    let subsection = |sub: &Command| {
        let man = Man::new(sub.clone());
        let description = part(|page| man.render_description_section(page));
        let options = options(sub);
        let [description, options] =
            [description, options].map(|section| without_heading(&section));
        format!(".SS {}\n{description}{options}", sub.get_name())
    };
    subcommands.map(subsection).collect()
}

fn part(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut page = Vec::new();
    render(&mut page).unwrap();
    String::from_utf8(page).unwrap().replace(PREAMBLE, "")
}

fn without_heading(section: &str) -> String {
    let (_, rest) = section.split_once('\n').expect("a heading");
    rest.to_owned()
}

#[test]
fn the_page_of_the_command_is_up_to_date() {
    let cli = cli();
    let parts = [
        ("title", title()),
        ("synopsis", synopsis(&cli)),
        ("options", options(&cli)),
        ("commands", commands(&cli)),
    ];
    holds("ssegate.8", &fill(include_str!("ssegate.8"), &parts));
}
