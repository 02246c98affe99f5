//! The line on which `ssegate tail` shows its progress on a terminal.

use std::fs::{File, OpenOptions};
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{Running, collected};
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::program::ssegate;

/// A terminal: its own end, and the one that a program writes to.
fn terminal() -> (File, File) {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap();
    let other = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (own.into(), other)
}

#[test]
fn tail_shows_progress_on_a_terminal_only() {
    let gateway = Setup::memory()
        .set("server", "retry = \"100ms\"")
        .set("server", "max_connection_age = \"2s\"")
        .start_ready();
    let url = format!("http://{}/events/a", gateway.address);
    let arguments = ["tail", &url, "--last-event-id", "none of ours"];
    let (own, other) = terminal();
    let mut process = ssegate()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(other)
        .spawn()
        .unwrap();
    let out = collected(process.stdout.take().unwrap());
    let shown = collected(own);
    let mut tail = Running { process, out, notes: shown };
    let mut piped = Running::start(ssegate().args(arguments));
    eventually("both are live", || {
        tail.notes().contains("live ") && piped.notes().contains("live ")
    });
    for number in 0..3 {
        gateway.publish("events:a", &number.to_string());
    }
    eventually("both print", || [&tail, &piped].iter().all(|tail| tail.out().lines().count() == 3));
    // The line ends when something else is printed: each stream ends within two seconds.
    let shown = |tail: &Running| {
        tail.notes().split(['\r', '\n']).any(|line| {
            line.contains(" s: 3 events, lag +")
                && line.contains("1 gaps (0 lost)")
                && line.contains("/s")
        })
    };
    eventually("the terminal shows the progress", || shown(&tail));
    eventually("of reconnects, too", || tail.notes().contains("1 reconnects, "));
    for tail in [&mut tail, &mut piped] {
        tail.signal("INT");
        assert_eq!(tail.wait(), 0);
        assert!(tail.out().lines().all(|line| line.contains(" message ")), "{}", tail.out());
    }
    eventually("it sums up", || {
        tail.notes().lines().last().is_some_and(|last| last.contains("3 events"))
    });
    assert!(
        !piped.notes().contains(" events, ") && !piped.notes().contains('\x1b'),
        "{}",
        piped.notes()
    );
}
