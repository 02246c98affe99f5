//! `ssegate tail` of a stream that ends.

use std::process::Command;

use super::{Scene, everywhere};
use crate::support::program::BINARY;

const ROUTE: &str = "end = { field = \"payload\", equals = \"[END]\" }\nstart = \"earliest\"";

/// Its output, its notes, and its exit code.
fn tail(scene: &Scene, arguments: &[&str]) -> (String, String, Option<i32>) {
    let url = format!("http://{}/events/a", scene.gateway.address);
    let mut command = Command::new(BINARY);
    let output = command.args(["tail", &url]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// No control event tells of the end, and who asks again gets it all again.
#[test]
fn tail_stops_at_the_last_event_of_an_answer_that_is_replayed() {
    let keys = "controls = \"none\"\non_gap = \"end\"\nended = \"replay\"\nend_data = \"[DONE]\"";
    everywhere(&format!("{ROUTE}\n{keys}"), |scene| {
        let ids = scene.publish(&["one", "[END]"]);
        let (out, notes, code) = tail(scene, &[]);
        assert_eq!(code, Some(0), "{notes}");
        let payloads: Vec<_> = out.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(payloads, ["one", "[END]", "[DONE]"]);
        assert!(notes.contains(&format!("the stream has ended after {}", ids[1])), "{notes}");
    });
}

#[test]
fn tail_prints_the_end_and_exits_with_0() {
    for controls in ["event", "comment"] {
        everywhere(&format!("{ROUTE}\ncontrols = \"{controls}\""), |scene| {
            let ids = scene.publish(&["one", "[END]"]);
            let (out, notes, code) = tail(scene, &[]);
            assert_eq!(code, Some(0), "{notes}");
            let payloads: Vec<_> = out.lines().filter_map(|line| line.rsplit(' ').next()).collect();
            assert_eq!(payloads, ["one", "[END]"]);
            assert!(notes.contains("the stream is over: marker"), "{notes}");
            assert!(notes.contains(&format!("the stream has ended after {}", ids[1])), "{notes}");
            let (out, notes, code) = tail(scene, &["--last-event-id", &ids[1]]);
            assert_eq!((out.as_str(), code), ("", Some(0)), "{notes}");
            assert!(notes.contains("the server has finished the stream (204)"), "{notes}");
        });
    }
}
