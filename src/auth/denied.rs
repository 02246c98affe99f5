//! Why a request is refused for its token.

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has no token.
    Missing,
    /// It has several tokens in one place, and nothing says which one counts.
    Ambiguous,
    /// The token is in a cookie that a browser has added to the request of another site's page.
    Foreign,
    /// It is no signed token (RFC 7515); `alg` "none" is such a case.
    Malformed,
    /// The token's header has extensions that must be understood (`crit`); we understand none.
    Critical,
    /// No key may be used with its algorithm.
    Algorithm,
    /// No key has its key id.
    Key,
    /// No key has made its signature.
    Signature,
    /// It has expired.
    Expired,
    /// It is not valid yet (`nbf`).
    NotYet,
    /// Its issuer is unknown, or another issuer's key has signed it.
    Issuer,
    /// It is meant for another audience.
    Audience,
    /// A claim is missing, or has the wrong type.
    Claim,
    /// It is good, but not for this path.
    Match,
    /// The keys that may have signed it could not be fetched.
    Keys,
}

impl Denied {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 15] = [
        Self::Missing,
        Self::Ambiguous,
        Self::Foreign,
        Self::Malformed,
        Self::Critical,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::Issuer,
        Self::Audience,
        Self::Claim,
        Self::Match,
        Self::Keys,
    ];

    /// Its name in metrics and the log. The client does not see it: it would help an attacker to guess.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::Match => "match",
            Self::Keys => "keys",
        }
    }
}
