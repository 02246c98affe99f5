//! The host that a request is for.

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::Request;

/// The host, and the port where it is named: of the target, where that has one (over HTTP/2, and in absolute
/// form), else of the header. Empty where the request names none.
pub fn asked<B>(request: &Request<B>) -> &str {
    let header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(Authority::as_str).or_else(header).unwrap_or("")
}

/// The name, without the dot of the root that may end it, and the port; a scheme's own port counts as none.
pub fn parts<'a>(host: &'a str, own_port: &str) -> (&'a str, Option<&'a str>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (host, None),
    };
    let port = port.filter(|port| !port.is_empty() && *port != own_port);
    (name.strip_suffix('.').unwrap_or(name), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_and_perhaps_a_port() {
        for (host, expected) in [
            ("events.example.com", ("events.example.com", None)),
            ("events.example.com.", ("events.example.com", None)),
            ("events.example.com.:8443", ("events.example.com", Some("8443"))),
            ("events.example.com:443", ("events.example.com", None)),
            ("events.example.com:", ("events.example.com", None)),
            ("[::1]", ("[::1]", None)),
            ("[::1]:80", ("[::1]", Some("80"))),
            ("", ("", None)),
        ] {
            assert_eq!(parts(host, "443"), expected, "{host:?}");
        }
    }

    #[test]
    fn the_target_comes_before_the_header() {
        let request = |target: &str| Request::get(target).header(HOST, "b").body(()).unwrap();
        assert_eq!(asked(&request("/x")), "b");
        assert_eq!(asked(&request("http://a:1/x")), "a:1");
        assert_eq!(asked(&Request::get("/x").body(()).unwrap()), "");
    }
}
