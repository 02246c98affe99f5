//! The real binary as a command, without the environment of the user that runs the tests.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

pub const BINARY: &str = env!("CARGO_BIN_EXE_ssegate");

/// The real binary.
pub fn ssegate() -> Command {
    unprompted(BINARY)
}

/// The real binary, which never may have more than so many open files.
pub fn ssegate_with_descriptors(count: usize) -> Command {
    let mut command = unprompted("sh");
    command.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &count.to_string(), BINARY]);
    command
}

/// The real binary, with these sockets as its descriptors from 3 on.
pub fn ssegate_with_sockets(named: Vec<(String, OwnedFd)>) -> Command {
    with_sockets(&[BINARY], named)
}

/// A program and its first arguments, with these sockets likewise.
pub fn with_sockets(program: &[&str], named: Vec<(String, OwnedFd)>) -> Command {
    // They come as the shell's input and output, for every other descriptor is closed on exec.
    const HAND_OVER: &str = "export LISTEN_PID=$$ LISTEN_FDS=$0; exec 3<&0 4>&1
        [ $LISTEN_FDS = 2 ] || exec 4>&-
        exec \"$@\" </dev/null >/dev/null";
    let (names, sockets): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    assert!(sockets.len() <= 2, "a shell has one input and one output");
    let mut command = match sockets.len() {
        0 => unprompted(program[0]),
        count => {
            let mut command = unprompted("sh");
            command.args(["-c", HAND_OVER, &count.to_string(), program[0]]);
            command.env("LISTEN_FDNAMES", names.join(":"));
            command
        }
    };
    command.args(&program[1..]);
    let mut ends = sockets.into_iter().map(Stdio::from);
    command.stdin(ends.next().unwrap_or_else(Stdio::null));
    command.stdout(ends.next().unwrap_or_else(Stdio::null));
    command
}

/// A program without the environment of the user that runs the tests.
fn unprompted(program: &str) -> Command {
    let mut command = Command::new(program);
    const SYSTEMD: [&str; 9] = [
        "FDSTORE",
        "JOURNAL_STREAM",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "CREDENTIALS_DIRECTORY",
    ];
    for name in SYSTEMD {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SSEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end; its exit code, stdout and stderr.
pub fn run(arguments: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let output = ssegate().args(arguments).envs(env.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
