//! `ssegate tail` as a process: it ends between two events when it is stopped.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::{Failure, Options, run};
use crate::cli::signals::Stop;
use crate::cli::{FAILED, USAGE, runtime};

/// Follows until it fails or is stopped.
pub(in crate::cli) fn follow(options: Options) -> ExitCode {
    let outcome = runtime(1).and_then(|runtime| {
        let outcome = runtime.block_on(tail_until_stopped(options));
        // A write to a reader that reads no more may be under way, and would never end.
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
    /// To end between two events and say where.
    const FAREWELL: Duration = Duration::from_millis(500);
    let mut stop = Stop::catch().context("cannot catch signals")?;
    let (stopped, stopping) = tokio::sync::oneshot::channel::<()>();
    let mut tailing = tokio::spawn(async move {
        let stopping = async { drop(stopping.await) };
        run(options, &mut std::io::stdout(), &mut std::io::stderr(), stopping).await
    });
    tokio::select! {
        ended = &mut tailing => return ended.context("tailing failed"),
        _ = stop.next() => drop(stopped),
    }
    tokio::time::timeout(FAREWELL, tailing).await.unwrap_or(Ok(Ok(()))).context("tailing failed")
}
