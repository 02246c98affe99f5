//! The runtime that a subcommand runs in.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

pub(super) fn runtime(workers: usize) -> anyhow::Result<Runtime> {
    let built = Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    built.context("cannot start the runtime")
}
