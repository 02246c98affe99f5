//! The seed of every random choice that a test makes. It is the same in each run, so that what failed fails
//! again, and a test that fails prints it. `SEED=7 ./test NAME` makes other choices.
//!
//! The unit tests share this file (src/lib.rs).

use proptest::test_runner::{Config, RngSeed};

const USUAL: u64 = 1;

/// The seed of this run. To print it is to show it where the test fails: output is kept back otherwise.
pub(crate) fn seed() -> u64 {
    let seed = of_environment().unwrap_or(USUAL);
    println!("SEED={seed}");
    seed
}

/// The seed that the environment asks for.
pub(crate) fn of_environment() -> Option<u64> {
    let text = std::env::var("SEED").ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("SEED={text}: {error}")))
}

/// For choices of the test's own.
pub(crate) fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(seed())
}

/// For `proptest!` and its runner: as many cases as it makes by default.
pub(crate) fn cases() -> Config {
    Config { rng_seed: RngSeed::Fixed(seed()), failure_persistence: None, ..Config::default() }
}

/// So many cases.
pub(crate) fn cases_of(count: u32) -> Config {
    Config { cases: count, ..cases() }
}
