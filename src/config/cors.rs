//! `[cors]`: which pages of other origins may read, and what they may send.

use hyper::header::{HeaderName, HeaderValue};

/// `[cors]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// The origins whose pages may read.
    pub origins: Origins,
    /// Whether they may read with a browser's cookies.
    pub credentials: bool,
    /// Request headers that they may send, besides those that clients of streams send.
    pub headers: Vec<HeaderName>,
}

/// Origins whose pages may read, besides our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// No other.
    None,
    /// Any, without credentials.
    Any,
    /// These.
    Listed(Vec<AllowedOrigin>),
}

/// An origin that is listed. It is compared as text: a browser writes each origin in one way only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// This one.
    Exact(HeaderValue),
    /// Each that has one label of a domain between these two.
    Subdomains {
        /// The scheme, up to the label.
        before: String,
        /// The domain with the dot before it, and the port.
        after: String,
    },
}

impl Origins {
    /// Whether `origin` is listed.
    pub fn lists(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Listed(listed) => listed.iter().any(|allowed| allowed.matches(origin)),
            Self::None | Self::Any => false,
        }
    }
}

impl AllowedOrigin {
    fn matches(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Exact(allowed) => allowed == origin,
            Self::Subdomains { before, after } => {
                let rest = origin.as_bytes().strip_prefix(before.as_bytes());
                rest.and_then(|rest| rest.strip_suffix(after.as_bytes())).is_some_and(is_label)
            }
        }
    }
}

/// Whether this is one label of a domain, as browsers write it.
fn is_label(text: &[u8]) -> bool {
    const MOST_BYTES: usize = 63;
    let may_be =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    (1..=MOST_BYTES).contains(&text.len()) && text.iter().all(may_be)
}
