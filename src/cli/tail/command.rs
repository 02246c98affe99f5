//! `ssegate tail` as a process: a signal stops it between two events.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::{Failure, Options, run};
use crate::cli::exit::{FAILED, USAGE};
use crate::cli::runtime::runtime;
use crate::cli::signals;

/// Follows until it fails or is stopped.
pub(in crate::cli) fn follow(options: Options) -> ExitCode {
    let outcome = runtime(1).and_then(|runtime| {
        let outcome = runtime.block_on(tail_until_stopped(options));
        // A write to a pipe that nobody reads would never end: it is not waited for.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            eprintln!("ssegate: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { USAGE } else { FAILED })
        }
        Err(error) => {
            eprintln!("ssegate: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn tail_until_stopped(options: Options) -> anyhow::Result<Result<(), Failure>> {
    /// How long it may take to end between two events.
    const ENDING: Duration = Duration::from_millis(500);
    let mut stop = signals::stop().context("cannot catch signals")?;
    let (stopped, stopping) = tokio::sync::oneshot::channel::<()>();
    let mut tailing = tokio::spawn(async move {
        let stopping = async { drop(stopping.await) };
        run(options, &mut std::io::stdout(), &mut std::io::stderr(), stopping).await
    });
    tokio::select! {
        ended = &mut tailing => return ended.context("tailing failed"),
        _ = stop.next() => drop(stopped),
    }
    tokio::time::timeout(ENDING, tailing).await.unwrap_or(Ok(Ok(()))).context("tailing failed")
}
