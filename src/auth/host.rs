//! The host that a request is for.

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, Version};

/// The host, and the port where it is named: of the target, where that has one (over HTTP/2, and in absolute
/// form), else of the header. Empty where the request names none.
pub fn asked<B>(request: &Request<B>) -> &str {
    let header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(Authority::as_str).or_else(header).unwrap_or("")
}

/// What is wrong with how the request names its host (RFC 9112, 3.2). A proxy before us may have read another
/// name than we would.
pub fn fault<B>(request: &Request<B>) -> Option<&'static str> {
    let mut named = request.headers().get_all(HOST).iter();
    let (first, second) = (named.next(), named.next());
    let may_be = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    match first {
        None if request.version() == Version::HTTP_11 => Some("HTTP/1.1 without Host"),
        _ if second.is_some() => Some("more than one Host"),
        Some(host) if !host.as_bytes().iter().all(may_be) => Some("a malformed Host"),
        _ => None,
    }
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
    fn a_request_names_one_host() {
        let fault = |version, hosts: &[&str]| {
            let request = Request::get("/").version(version);
            let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
            fault(&request.body(()).unwrap()).is_some()
        };
        assert!(fault(Version::HTTP_11, &[]) && !fault(Version::HTTP_10, &[]));
        assert!(!fault(Version::HTTP_2, &[]) && fault(Version::HTTP_2, &["a", "a"]));
        for host in ["", "a", "[::1]:80", "a_b.example.:443"] {
            assert!(!fault(Version::HTTP_11, &[host]), "{host}");
        }
        for host in ["a b", "a/b", "me@a", "http://a", "a?"] {
            assert!(fault(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(fault(Version::HTTP_11, &["a", "b"]));
    }

    #[test]
    fn the_target_comes_before_the_header() {
        let request = |target: &str| Request::get(target).header(HOST, "b").body(()).unwrap();
        assert_eq!(asked(&request("/x")), "b");
        assert_eq!(asked(&request("http://a:1/x")), "a:1");
        assert_eq!(asked(&Request::get("/x").body(()).unwrap()), "");
    }
}
