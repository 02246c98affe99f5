//! The exit codes of the process; ssegate(8) lists them for the operator.

/// Failure at run time: an address in use, a second signal.
pub(super) const FAILED: u8 = 1;
/// `EX_USAGE` of sysexits.
pub(super) const USAGE: u8 = 64;
/// `EX_UNAVAILABLE` of sysexits: `check --connect` cannot ask a server.
pub(super) const UNAVAILABLE: u8 = 69;
/// `EX_CONFIG` of sysexits.
pub(super) const BAD_CONFIG: u8 = 78;
