//! Variables of the environment that are none of a key's: those that Kubernetes sets, and `SSEGATE_ROUTES`.

/// Whether Kubernetes sets a variable like this in every pod, for a Service whose name begins with `ssegate`.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
pub(super) fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && is_url
        || is_of_one_port(name)
}

/// `…_PORT_8080_TCP`, or that with `_PROTO`, `_PORT` or `_ADDR`.
fn is_of_one_port(name: &str) -> bool {
    let bare = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end));
    let mut words = bare.unwrap_or(name).rsplit('_');
    let is_protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
    let is_number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    is_protocol && is_number && words.next() == Some("PORT")
}

/// The routes of `SSEGATE_ROUTES` as a TOML document: the text is a TOML array of tables, or routes like
/// `/events/{name}=events:{name};/logs=siem:logs,event=log`.
pub(super) fn routes_toml(text: &str) -> String {
    if text.trim_start().starts_with('[') {
        return format!("route = {text}");
    }
    let written = text.split(';').map(str::trim).filter(|route| !route.is_empty());
    let tables: Vec<_> = written.map(route_toml).collect();
    format!("route = [{}]", tables.join(", "))
}

fn route_toml(text: &str) -> String {
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let (path, key) = first.split_once('=').unwrap_or((first, ""));
    let mut settings = vec![("path", path), ("key", key)];
    settings.extend(parts.map(|part| part.split_once('=').unwrap_or((part, ""))));
    let settings = settings.iter().map(|(name, value)| {
        let name = toml::Value::from(name.trim());
        // A count is a number in TOML; everything else is a text.
        let value = value.trim();
        match value.parse::<u32>() {
            Ok(number) => format!("{name} = {number}"),
            Err(_) => format!("{name} = {}", toml::Value::from(value)),
        }
    });
    format!("{{ {} }}", settings.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_a_service_is_known() {
        for (name, value) in [
            ("SSEGATE_SERVICE_HOST", "10.0.0.1"),
            ("SSEGATE_SERVICE_PORT", "8080"),
            ("SSEGATE_SERVICE_PORT_HTTP", "8080"),
            ("SSEGATE_PORT", "tcp://10.0.0.1:8080"),
            ("SSEGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("SSEGATE_PORT_8080_TCP_PROTO", "tcp"),
            ("SSEGATE_PORT_8080_TCP_PORT", "8080"),
            ("SSEGATE_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("SSEGATE_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("SSEGATE_SOURCE_PORT", "tcp://10.0.0.1:6379"),
        ] {
            assert!(is_of_kubernetes(name, value), "{name}");
        }
        for name in
            ["SSEGATE_PORT", "SSEGATE_SERVER_LISTEN", "SSEGATE_PORT_X_TCP", "SSEGATE_SOURCE_PORT"]
        {
            assert!(!is_of_kubernetes(name, "8080"), "{name}");
        }
    }

    #[test]
    fn routes_may_be_written_short_or_as_toml() {
        let short =
            routes_toml("/events/{name}=events:{name}; /logs=siem:logs,event=log,replay=5;");
        let toml = r#"[{ "path" = "/events/{name}", "key" = "events:{name}" }, { "path" = "/logs", "key" = "siem:logs", "event" = "log", "replay" = 5 }]"#;
        assert_eq!(short, format!("route = {toml}"));
        assert_eq!(routes_toml(toml), format!("route = {toml}"));
        assert_eq!(routes_toml("/a"), r#"route = [{ "path" = "/a", "key" = "" }]"#);
    }
}
