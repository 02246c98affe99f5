//! `ssegate check` of states in a cluster.

use super::file;
use crate::support::gateway::Setup;
use crate::support::program::run;

/// The exit code of `check`, and what it told.
fn checked(url: &str, key: &str, state: &str) -> (i32, String) {
    let route = format!(
        "[[route]]\npath = \"/t/{{name}}/{{part}}\"\nkey = \"{key}\"\naccess = \"public\"\nsnapshot = \"{state}\"\n"
    );
    let file = file(&Setup::with_url(url).routes(&route).toml());
    let (code, _, told) = run(&["check", "--config", &file.path], &[]);
    (code, told)
}

#[test]
fn a_state_that_is_not_in_the_slot_of_its_stream_is_a_fault_in_a_cluster() {
    let cluster = "redis-cluster://127.0.0.1:1,127.0.0.1:2";
    for (key, state) in [
        ("e:{name}:{part}", "s:{name}:{part}"),
        // A variable in braces is no hash tag: these braces do not reach Redis.
        ("{name}e{part}", "{name}s{part}"),
        ("e:{{{name}}}:{part}", "s:{{{part}}}:{name}"),
        ("e:{{}}{name}{part}", "s:{{}}{name}{part}"),
        ("e:{{a}}:{name}{part}", "s:{{b}}:{name}{part}"),
    ] {
        let (code, told) = checked(cluster, key, state);
        assert_eq!(code, 78, "{key} {state}: {told}");
        let expected = format!("route.snapshot = \"{state}\": is not in one slot with route.key");
        assert!(told.contains(&expected), "{told}");
        assert!(told.contains("events:{{{name}}}"), "{told}");
        let (code, told) = checked("redis://127.0.0.1:1", key, state);
        assert_eq!(code, 0, "no cluster: {told}");
    }
    for (key, state) in [
        ("e:{{{name}}}:{part}", "s:{{{name}}}:{part}"),
        ("{{{name}:{part}}}:e", "{{{name}:{part}}}:s"),
        ("e:{{all}}:{name}{part}", "s:{{all}}"),
        ("{name}-{part}", "s:{{{name}-{part}}}"),
    ] {
        let (code, told) = checked(cluster, key, state);
        assert!(code == 0 && !told.contains("one slot"), "{key} {state}: {told}");
    }
}
