//! Reads `[cors]`: origins as browsers write them; a wildcard excludes credentials.

use hyper::header::HeaderValue;
use url::{Origin, Url};

use super::section::Section;
use crate::config::units::WrittenValue;
use crate::config::{Cors, Origins};

/// The section.
pub(super) fn cors(mut section: Section<'_, '_>) -> Cors {
    let found = section.found("origins", WrittenValue::list([]));
    section.show(&found, found.value.to_string());
    let origins = section.list(&found, origin);
    let credentials = section.flag("credentials", false);
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
    section.end();
    let listed: Vec<HeaderValue> = origins.into_iter().flatten().collect();
    let origins = match (any, listed.is_empty()) {
        (true, _) => Origins::Any,
        (false, true) => Origins::None,
        (false, false) => Origins::Listed(listed),
    };
    Cors { origins, credentials }
}

/// One origin; `None`: any.
fn origin(text: &str) -> Result<Option<HeaderValue>, String> {
    if text == "*" {
        return Ok(None);
    }
    let expected = || {
        format!(
            "not an origin: \"{text}\"; write scheme and host, and the port unless it is the scheme's own, as in \"https://app.example\""
        )
    };
    let origin = Url::parse(text).map_err(|_| expected())?.origin();
    let written = match origin {
        Origin::Tuple(..) if !text.contains('*') => origin.ascii_serialization(),
        _ => return Err(expected()),
    };
    if written != text {
        return Err(format!("browsers write this origin as \"{written}\"; write the same"));
    }
    Ok(Some(written.parse().map_err(|_| expected())?))
}
