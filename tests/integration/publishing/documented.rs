use std::process::Command;

use super::routes::entries;
use crate::documents::{block, section};
use crate::support::Folder;
use crate::support::gateway::Setup;
use crate::support::redis::Redis;

const PAGE: &str = "docs/publishing.md";

#[test]
fn the_commands_that_are_shown_add_entries() {
    let redis = Redis::start();
    let routes = block(PAGE, "From a shell", "toml");
    let gateway = Setup::redis(&redis).routes(&routes).start_ready();
    let folder = Folder::new();
    std::fs::write(folder.0.join("entries.ndjson"), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let text = section(PAGE, "From a shell");
    let commands = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let answers: Vec<_> = commands
        .map(|command| {
            let command = command.replace("127.0.0.1:8080", &gateway.address);
            let mut shell = Command::new("sh");
            let output = shell.args(["-c", &command]).current_dir(&folder.0).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(answers[0].starts_with("{\"id\":\""), "{answers:?}");
    assert!(answers[1].starts_with("{\"ids\":[\""), "{answers:?}");
    let added = entries(&redis, "events:demo");
    let greeting = [("type", "greeting"), ("payload", "hello")];
    assert_eq!(added[0], greeting.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(added.len(), 3);
}
