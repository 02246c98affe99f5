//! gateway.toml(5): the sections, keys and comments of the shipped gateway.toml.

use super::keys::{self, Section};
use super::{fill, holds, newest, roff};

const TEMPLATE: &str = include_str!("gateway.toml.5");

fn title() -> String {
    let (version, day) = newest();
    // Ragged and without hyphens: keys and addresses are to be copied.
    format!(".TH GATEWAY.TOML 5 {day} \"ssegate {version}\"\n.nh\n.ad l\n")
}

fn section(section: &Section) -> String {
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

#[test]
fn the_page_of_the_configuration_is_up_to_date() {
    let file = keys::parse(keys::SHIPPED);
    let about: Vec<_> = file.about.iter().map(|line| roff::text(line)).collect();
    let parts = [
        ("title", title()),
        ("about", about.join(".PP\n")),
        ("sections", file.sections.iter().map(section).collect()),
    ];
    holds("gateway.toml.5", &fill(TEMPLATE, &parts));
}

#[test]
fn the_example_of_the_page_has_no_faults() {
    let folder = std::env::temp_dir().join(format!("ssegate-manual-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (_, example) = TEMPLATE.split_once(".nf\n").expect("an example");
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
