//! `[cors]`: origins, and the headers that pages may send.

use super::refused::told;
use super::*;

fn with_cors(lines: &str) -> Result<Loaded, Faults> {
    parse(&format!("[cors]\n{lines}\n{MINIMAL}"), "f", &[], false)
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    for (written, why) in [
        ("https://app.example/", "write the same"),
        ("HTTPS://App.Example", "browsers write this origin as \\\"https://app.example\\\""),
        ("https://app.example:443", "browsers write this origin as"),
        ("app.example", "not an origin"),
        ("file:///x", "not an origin"),
        ("capacitor://", "not an origin"),
        ("capacitor://localhost/", "browsers write this origin as \\\"capacitor://localhost\\\""),
        ("https://a*.example.com", "not an origin"),
        ("https://*.*.example.com", "not an origin"),
        ("https://me@app.example", "not an origin"),
        ("https://*.Example.com", "write the same"),
        ("https://*.example", "anybody can get a name"),
        ("https://*.co.uk", "anybody can get a name"),
        ("https://*.github.io", "anybody can get a name"),
        ("https://*.10.0.0.1", "only a domain"),
        ("capacitor://*.example.com", "only a domain"),
    ] {
        let told = told(with_cors(&format!("origins = [{written:?}]")));
        assert!(told.contains(&why.replace('\\', "")), "{written}: {told}");
    }
    let alone = told(with_cors("origins = [\"*\", \"https://app.example\"]"));
    assert!(alone.contains("write it alone"), "{alone}");
    let credentials = told(with_cors("origins = [\"*\"]\ncredentials = true"));
    assert!(credentials.contains("list the origins"), "{credentials}");
    for name in ["*", "a b", ""] {
        let told = told(with_cors(&format!("headers = [{name:?}]")));
        assert!(told.contains("not a header's name"), "{told}");
    }
}

#[test]
fn origins_that_anybody_has_are_warned_about() {
    for (name, pages) in [("null", "sandbox"), ("file://", "an app opens")] {
        let loaded = with_cors(&format!("origins = [\"https://app.example\", {name:?}]")).unwrap();
        let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
        let warning = warning.to_string();
        assert!(warning.starts_with("f:2:11: cors.origins = "), "{warning}");
        assert!(warning.contains(&format!("{name:?} is the origin of")), "{warning}");
        assert!(warning.contains(pages), "{warning}");
    }
    let apps = "\"capacitor://localhost\", \"tauri://localhost\", \"chrome-extension://aBc\", \"https://*.app.example:8443\"";
    let loaded = with_cors(&format!("origins = [{apps}]\nheaders = [\"Traceparent\"]")).unwrap();
    assert_eq!(
        (loaded.warnings, loaded.config.cors.headers),
        (vec![], vec!["traceparent".parse().unwrap()])
    );
}
