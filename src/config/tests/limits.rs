//! Limits whose default follows from another limit.

use super::*;

#[test]
fn one_address_may_open_a_quarter_of_the_readers_by_default() {
    let readers_per_ip = |limits: &str| {
        let loaded = parse(&format!("[limits]\n{limits}\n{MINIMAL}"), "f", &[], false).unwrap();
        (
            loaded.config.limits.readers_per_ip,
            setting(&loaded, "limits", "readers_per_ip").value.clone(),
        )
    };
    assert_eq!(readers_per_ip(""), (2500, "2500".into()));
    assert_eq!(readers_per_ip("readers = 1"), (1, "1".into()));
    assert_eq!(readers_per_ip("readers = 10\nreaders_per_ip = 10"), (10, "10".into()));
}
