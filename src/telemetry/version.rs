//! What this binary is, for whoever reports a fault of it.

/// Of the commit that it was built from, ten digits, with "-dirty" where what was built was not
/// committed; "unknown" where nothing told (build.rs).
pub const COMMIT: &str = env!("BUILT_COMMIT");

/// Version, commit and its day, and what is built in: what `--version` tells.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("BUILT_FROM"),
    "; io_uring, tls, h2",
    env!("BUILT_AS"),
    ")"
);
