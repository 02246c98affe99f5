//! The version of this binary, for bug reports.

/// Ten digits of the commit that it was built from, with "-dirty" after uncommitted changes; "unknown"
/// without git (build.rs).
pub const COMMIT: &str = env!("BUILT_COMMIT");

/// What `--version` prints: version, commit and its day, and the features.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("BUILT_FROM"),
    "; io_uring, tls, h2",
    env!("BUILT_AS"),
    ")"
);
