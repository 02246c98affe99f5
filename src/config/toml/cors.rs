//! Reads `[cors]`: origins as browsers write them, or all subdomains of one; a wildcard for any excludes
//! credentials.

use hyper::header::{HeaderName, HeaderValue};
use url::{Host, Origin, Url};

use super::section::Section;
use crate::config::units::WrittenValue;
use crate::config::{AllowedOrigin, Cors, Origins};

/// The section.
pub(super) fn cors(mut section: Section<'_, '_>) -> Cors {
    let found = section.found("origins", WrittenValue::list([]));
    section.show(&found, found.value.to_string());
    let origins = section.list(&found, origin);
    let credentials = section.flag("credentials", false);
    let headers = section.listed("headers", &[], header_name);
    let any = origins.iter().any(Option::is_none);
    if any && origins.len() > 1 {
        section.fault(&found, "\"*\" is any origin already; write it alone, or remove it");
    }
    if any && credentials {
        section.fault(
            &found,
            "with cors.credentials, every page on the web could read with the cookies of its visitors; list the origins",
        );
    }
    let listed: Vec<AllowedOrigin> = origins.into_iter().flatten().collect();
    for (name, pages) in OF_NO_SITE {
        if listed.contains(&AllowedOrigin::Exact(HeaderValue::from_static(name))) {
            section.warn(
                &found,
                format!("\"{name}\" is the origin of {pages}: any of them can read what its visitors can read here; list origins that are yours"),
            );
        }
    }
    section.end();
    let origins = match (any, listed.is_empty()) {
        (true, _) => Origins::Any,
        (false, true) => Origins::None,
        (false, false) => Origins::Listed(listed),
    };
    Cors { origins, credentials, headers }
}

/// Origins that pages of anybody have, and which pages these are.
const OF_NO_SITE: [(&str, &str); 2] = [
    ("null", "every page in a sandbox and every file, whoever wrote it"),
    ("file://", "every file that an app opens, whoever wrote it"),
];

/// One origin, or one label's subdomains; `None`: any.
fn origin(text: &str) -> Result<Option<AllowedOrigin>, String> {
    if text == "*" {
        return Ok(None);
    }
    if OF_NO_SITE.iter().any(|(name, _)| *name == text) {
        return Ok(Some(exact(text)?));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Err(expected(text)) };
    let Some(domain) = rest.strip_prefix("*.") else {
        check_spelling(text)?;
        return Ok(Some(exact(text)?));
    };
    check_spelling(&format!("{scheme}://{domain}"))?;
    check_domain(scheme, domain)?;
    let (before, after) = (format!("{scheme}://"), format!(".{domain}"));
    Ok(Some(AllowedOrigin::Subdomains { before, after }))
}

fn expected(text: &str) -> String {
    format!(
        "not an origin: \"{text}\"; write scheme and host, and the port unless it is the scheme's own, as in \"https://app.example\", \"https://*.app.example\" or \"capacitor://localhost\""
    )
}

fn exact(text: &str) -> Result<AllowedOrigin, String> {
    text.parse().map(AllowedOrigin::Exact).map_err(|_| expected(text))
}

/// Whether a browser writes the origin like this. Of schemes that are not the web's it keeps what the app has.
fn check_spelling(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|_| expected(text))?;
    let written = match url.origin() {
        _ if text.contains(['*', '@', '?', '#']) => return Err(expected(text)),
        Origin::Tuple(..) => url.origin().ascii_serialization(),
        Origin::Opaque(_) => match (url.host_str(), url.port()) {
            (None | Some(""), _) => return Err(expected(text)),
            (Some(host), None) => format!("{}://{host}", url.scheme()),
            (Some(host), Some(port)) => format!("{}://{host}:{port}", url.scheme()),
        },
    };
    if written != text {
        return Err(format!("browsers write this origin as \"{written}\"; write the same"));
    }
    Ok(())
}

/// Labels under which countries let anybody register, as `co` in `co.uk`.
const OF_REGISTRIES: [&str; 18] = [
    "ac", "co", "com", "edu", "firm", "gen", "go", "gov", "id", "info", "ltd", "me", "ne", "net",
    "nom", "or", "org", "web",
];
/// Hosts under which anybody gets a name.
const OF_HOSTERS: [&str; 16] = [
    "amazonaws.com",
    "appspot.com",
    "azurewebsites.net",
    "blogspot.com",
    "cloudfront.net",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "netlify.app",
    "onrender.com",
    "pages.dev",
    "vercel.app",
    "web.app",
    "workers.dev",
];

/// The domain of a wildcard must be somebody's: under a public suffix each subdomain has another owner. This
/// refuses the common ones; no short rule knows all of them.
fn check_domain(scheme: &str, domain: &str) -> Result<(), String> {
    let host = Url::parse(&format!("{scheme}://{domain}")).ok();
    let host = host.as_ref().and_then(Url::host);
    let (true, Some(Host::Domain(name))) = (matches!(scheme, "https" | "http"), host) else {
        return Err("only a domain of https or http has subdomains; list each origin".into());
    };
    let labels: Vec<&str> = name.split('.').collect();
    let is_suffix = match *labels.as_slice() {
        ["localhost"] => false,
        [_] => true,
        [second, country] => country.len() == 2 && OF_REGISTRIES.contains(&second),
        _ => false,
    };
    if is_suffix || OF_HOSTERS.contains(&name) {
        return Err(format!(
            "anybody can get a name under \"{name}\"; write a wildcard only before a domain that is yours, as in \"https://*.app.example\""
        ));
    }
    Ok(())
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    // Beside credentials it would be a name; without them it stands for all but `authorization`.
    let name = if text == "*" { None } else { text.parse().ok() };
    name.ok_or_else(|| "not a header's name; list each, as in \"traceparent\"".into())
}
