//! A configuration from the environment alone, and what others put there.

use super::*;
use crate::config::print::print;
use crate::config::{ConfigFile, without_file};

fn alone(variables: &[(&str, &str)]) -> Result<Loaded, Faults> {
    without_file(&env(variables), false)
}

fn with_routes(routes: &str) -> Result<Loaded, Faults> {
    alone(&[("SSEGATE_SOURCE_URL", "redis://127.0.0.1"), ("SSEGATE_ROUTES", routes)])
}

#[test]
fn every_scalar_of_a_section_has_its_variable() {
    for setting in read(MINIMAL).settings.iter().filter(|setting| setting.section != "route") {
        let name = format!("SSEGATE_{}_{}", setting.section, setting.key);
        let name = name.replace('.', "_").to_uppercase();
        let value = setting.value.trim_matches(['"', '[', ']']).replace("\", \"", ",");
        let loaded = under(&[(&name, &value)]).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(loaded.config, read(MINIMAL).config, "{name}={value}");
        assert!(
            loaded
                .settings
                .iter()
                .any(|setting| setting.location == Location::Variable(name.clone()))
        );
    }
}

#[test]
fn routes_and_source_may_come_from_the_environment_alone() {
    let loaded = with_routes("/events/{name}=events:{name};/logs=siem:logs,event=log").unwrap();
    assert_eq!(loaded.file, ConfigFile::None);
    assert_eq!(loaded.config.routes.len(), 2);
    assert!(loaded.config.routes.iter().all(|route| route.access == Access::Public));
    let toml = r#"[{ path = "/a", key = "a", access = "public", replay = 5 }]"#;
    assert_eq!(with_routes(toml).unwrap().config.routes[0].replay, Replay::Newest(5));
}

#[test]
fn routes_of_the_environment_come_in_place_of_the_files() {
    let env = env(&[("SSEGATE_ROUTES", "/b=b")]);
    let loaded = parse(MINIMAL, "gateway.toml", &env, false).unwrap();
    let paths: Vec<_> = loaded.config.routes.iter().map(|route| route.path.to_string()).collect();
    assert_eq!(paths, ["/b"]);
}

#[test]
fn a_fault_in_a_route_of_the_environment_is_told_there() {
    let told = |routes| with_routes(routes).unwrap_err().to_string();
    assert!(told("/a").contains("SSEGATE_ROUTES"), "{}", told("/a"));
    assert!(told("/a=a,akcess=public").contains("did you mean"), "{}", told("/a=a,akcess=public"));
    assert!(told("[{ path = ").contains("not TOML"), "{}", told("[{ path = "));
    assert!(told("/{a}=x;/{b}=y").contains("can match the same path"));
    for nothing in ["", "[]", ";"] {
        assert!(told(nothing).contains("route"), "{}", told(nothing));
    }
}

/// With keys that verify tokens, a route that does not say who may read it is not open to all.
#[test]
fn a_route_of_the_environment_wants_a_token_where_tokens_are_verified() {
    let text = "[source]\nurl = \"memory:\"\n[auth.jwt]\nkeys = [{ alg = \"HS256\", secret_file = \"/none\" }]\n";
    let env = env(&[("SSEGATE_ROUTES", "/a=a")]);
    let told = parse(text, "gateway.toml", &env, false).map(drop).unwrap_err().to_string();
    assert!(!told.contains("route.access"), "{told}");
}

#[test]
fn what_kubernetes_sets_for_a_service_called_ssegate_is_a_warning() {
    let loaded = alone(&[
        ("SSEGATE_SOURCE_URL", "redis://127.0.0.1"),
        ("SSEGATE_ROUTES", "/a=a"),
        ("SSEGATE_SERVICE_HOST", "10.96.0.12"),
        ("SSEGATE_SERVICE_PORT", "8080"),
        ("SSEGATE_PORT", "tcp://10.96.0.12:8080"),
        ("SSEGATE_PORT_8080_TCP", "tcp://10.96.0.12:8080"),
        ("SSEGATE_PORT_8080_TCP_PROTO", "tcp"),
        ("SSEGATE_PORT_8080_TCP_PORT", "8080"),
        ("SSEGATE_PORT_8080_TCP_ADDR", "10.96.0.12"),
    ]);
    let warnings = loaded.unwrap().warnings;
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|told| told.contains("Kubernetes sets it, 7 in all")), "{told:?}");
    let slip = [("SSEGATE_ROUTES", "/a=a"), ("SSEGATE_SERVER_LISTN", "x")];
    assert!(alone(&slip).unwrap_err().to_string().contains("did you mean SSEGATE_SERVER_LISTEN?"));
}

#[test]
fn the_url_may_be_in_a_file_with_its_password() {
    let file = std::env::temp_dir().join(format!("ssegate-url-{}", std::process::id()));
    std::fs::write(&file, "rediss://me:hunter2@redis.example:6380/1\n").unwrap();
    let name = file.to_str().unwrap();
    let loaded = alone(&[("SSEGATE_SOURCE_URL_FILE", name), ("SSEGATE_ROUTES", "/a=a")]).unwrap();
    assert_eq!(loaded.config.source.place(), "rediss://redis.example:6380/1");
    let password = loaded.config.source.password.as_ref().unwrap().current();
    assert_eq!(password.expose(), "hunter2");
    assert!(!print(&loaded).contains("hunter2"), "{}", print(&loaded));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let both = [
        ("SSEGATE_SOURCE_URL_FILE", name),
        ("SSEGATE_SOURCE_URL", "redis://h"),
        ("SSEGATE_ROUTES", "/a=a"),
    ];
    assert!(alone(&both).unwrap_err().to_string().contains("keep one of them"));
    std::fs::remove_file(&file).unwrap();
}
