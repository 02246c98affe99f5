//! A gateway without a file: the environment, or the command line, has all of it.

use std::process::Command;

use super::Running;
use crate::support::address::own_address;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::program::ssegate;
use crate::support::redis::Redis;

/// What Kubernetes sets for a Service called `ssegate`.
const OF_KUBERNETES: [(&str, &str); 7] = [
    ("SSEGATE_SERVICE_HOST", "10.96.0.12"),
    ("SSEGATE_SERVICE_PORT", "8080"),
    ("SSEGATE_PORT", "tcp://10.96.0.12:8080"),
    ("SSEGATE_PORT_8080_TCP", "tcp://10.96.0.12:8080"),
    ("SSEGATE_PORT_8080_TCP_PROTO", "tcp"),
    ("SSEGATE_PORT_8080_TCP_PORT", "8080"),
    ("SSEGATE_PORT_8080_TCP_ADDR", "10.96.0.12"),
];

/// Starts in the root folder, with no home and nothing else in the environment; its address.
fn start(command: &mut Command) -> (Running, String) {
    let (listen, admin) = (own_address().to_string(), own_address().to_string());
    let command = command.current_dir("/");
    let command = command.env("SSEGATE_SERVER_LISTEN", &listen).env("SSEGATE_ADMIN_LISTEN", admin);
    let running = Running::start(command);
    eventually("it is ready", || running.notes().contains("\"ready\""));
    (running, listen)
}

fn bare() -> Command {
    let mut command = ssegate();
    command.env_clear();
    command
}

#[test]
fn a_pod_needs_no_file_and_its_services_variables_are_no_fault() {
    let redis = Redis::start();
    let mut command = bare();
    command.envs(OF_KUBERNETES).env("SSEGATE_SOURCE_URL", redis.url());
    command.env("SSEGATE_ROUTES", "/events/{name}=events:{name};/logs=siem:logs,event=log");
    let (running, address) = start(&mut command);
    assert!(running.notes().contains("Kubernetes sets it, 7 in all"), "{}", running.notes());
    redis.add("siem:logs", "one");
    let mut client = Client::open(&address, "/logs?last=1");
    let event = client.entry();
    assert_eq!((&*event.event_type, &*event.data), ("log", "one"));
}

#[test]
fn a_try_needs_a_source_and_a_route_on_the_command_line() {
    let redis = Redis::start();
    let mut command = bare();
    command.args(["--source", &redis.url(), "--route", "/events/{name}=events:{name}"]);
    let (_running, address) = start(&mut command);
    redis.add("events:a", "one");
    assert_eq!(Client::open(&address, "/events/a?last=1").entry().data, "one");
}
