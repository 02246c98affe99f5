//! Each command of the documents, and where a test runs it: the file, and what that file contains of it.

/// Command, file, and text in the file.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    // Built and started as it is written, with a check in place of serving.
    ("cargo run --release -- --demo", "test", "cargo run --locked --release -- check --demo"),
    // What must pass for a change to land.
    ("./test", ".ci/run", "exec ./test"),
    (
        "curl -N http://127.0.0.1:8080/events/demo",
        COMMANDS_RS,
        "fn the_demo_answers_to_the_commands_that_are_shown",
    ),
    (
        "curl -d '{\"message\":\"hello\"}' http://127.0.0.1:9464/publish/events:demo",
        COMMANDS_RS,
        "fn the_demo_answers_to_the_commands_that_are_shown",
    ),
    (
        "curl -H 'Content-Type: application/json' -d '{\"type\":\"greeting\",\"payload\":\"hello\"}' http://127.0.0.1:8080/events/demo",
        "tests/integration/publishing/documented.rs",
        "fn the_commands_that_are_shown_add_entries",
    ),
    (
        "curl -H 'Content-Type: application/x-ndjson' --data-binary @entries.ndjson http://127.0.0.1:8080/events/demo",
        "tests/integration/publishing/documented.rs",
        "fn the_commands_that_are_shown_add_entries",
    ),
    (
        "ssegate tail http://127.0.0.1:8080/events/demo",
        COMMANDS_RS,
        "fn the_demo_answers_to_the_commands_that_are_shown",
    ),
    (
        "redis-cli XADD siem:logs '*' payload '{\"n\":1}'",
        COMMANDS_RS,
        "fn an_entry_arrives_as_the_readme_shows_it",
    ),
    (
        "redis-cli XADD siem:logs MAXLEN '~' 720000 '*' payload '{\"n\":1}'",
        "tests/integration/readme.rs",
        "fn the_command_for_producers_reaches_the_clients_of_the_route_that_is_shown",
    ),
    (
        "redis-cli --eval put.lua state:eu events:eu , db '{\"id\":\"db\",\"state\":\"up\"}'",
        "tests/integration/snapshots/documented.rs",
        "fn put_by_script",
    ),
    (
        "redis-cli XADD alerts MAXLEN '~' 100000 '*' tenant acme severity high source fw-01 payload '{\"severity\":\"high\",\"text\":\"a new device\"}'",
        "tests/integration/selections/documented.rs",
        "fn produce",
    ),
    (
        "ssegate --source redis://127.0.0.1:6379 --route '/events/{name}=events:{name}'",
        "tests/integration/cli/without_file.rs",
        "fn a_try_needs_a_source_and_a_route_on_the_command_line",
    ),
    ("ssegate check", COMMANDS_RS, CHECKS),
    ("ssegate check --print", COMMANDS_RS, CHECKS),
    ("ssegate check --json", COMMANDS_RS, CHECKS),
    ("ssegate check --open-files 65536", COMMANDS_RS, CHECKS),
    ("CREDENTIALS_DIRECTORY=/etc/credstore ssegate check", COMMANDS_RS, CHECKS),
    ("cargo install --locked --path .", "test", "cargo install --locked --path ."),
    ("cargo deb --locked", "tests/debian/run", "cargo deb --locked"),
    // It measures, so it is run by hand; the suite builds it.
    (
        "cargo test --test integration proxies::table -- --ignored --nocapture",
        "tests/integration/proxies/table.rs",
        "#[ignore = \"it measures\"]",
    ),
];

const COMMANDS_RS: &str = "tests/integration/documents/commands.rs";
const CHECKS: &str = "fn the_checks_that_are_shown_find_nothing_wrong";
