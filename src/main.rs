//! The process: command line, logging, runtime, exit codes.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use ssegate::budget::Budget;
use ssegate::config::{self, Faults, Loaded};
use ssegate::http::inherited::Inherited;
use ssegate::limits::TooFewDescriptors;
use ssegate::logging::Levels;
use ssegate::notify::Manager;
use ssegate::{Gateway, logging, process, tail, version};
use tracing::{error, info, warn};

#[cfg(test)]
mod manual;

/// Failure at run time: an address that cannot be had, a second signal.
const FAILED: u8 = 1;
/// `EX_USAGE` of sysexits.
const USAGE: u8 = 64;
/// `EX_CONFIG` of sysexits.
const BAD_CONFIG: u8 = 78;

/// Tails Redis Streams and fans each one out as Server-Sent Events.
#[derive(Parser)]
#[command(version = version::LONG, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration; every fault at once, then what it may come to need
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Show each effective value and where it came from; secrets are masked
        #[arg(long)]
        print: bool,
        /// The budget as JSON
        #[arg(long, conflicts_with = "print")]
        json: bool,
        /// The budget with so many open files, as a unit allows, not with those allowed here
        #[arg(long, value_name = "N")]
        open_files: Option<usize>,
    },
    /// Follow a stream: print its events, reconnect, resume, show lag and gaps
    Tail {
        /// An http:// URL of a route
        url: String,
        /// Begin after this id
        #[arg(long, value_name = "ID")]
        last_event_id: Option<String>,
    },
}

#[derive(Args, Clone)]
struct ConfigArgs {
    /// The configuration; without it ./gateway.toml, else /etc/ssegate/gateway.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No file, no Redis: an embedded source with sample events, a page at /
    #[arg(long)]
    demo: bool,
}

fn main() -> ExitCode {
    process::give_back_large_allocations();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // Nobody is left to tell where this fails.
            let _ = error.print();
            return code;
        }
    };
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Check { config, print: true, .. }) => {
            check(&config, |loaded| Ok(config::print::print(loaded)))
        }
        Some(Command::Check { config, json, open_files, .. }) => check(&config, |loaded| {
            let open_files = open_files.unwrap_or_else(process::raise_descriptors);
            let budget = Budget::new(&loaded.config, open_files)?;
            Ok(if json { format!("{:#}\n", budget.json()) } else { budget.explain(&loaded.origin) })
        }),
        Some(Command::Tail { url, last_event_id }) => {
            follow(tail::Options { url, last_event_id, progress: std::io::stderr().is_terminal() })
        }
    }
}

fn load(args: &ConfigArgs) -> Result<Loaded, ExitCode> {
    args.read().map_err(|faults| {
        eprintln!("{faults}");
        ExitCode::from(BAD_CONFIG)
    })
}

impl ConfigArgs {
    fn read(&self) -> Result<Loaded, Faults> {
        config::load(self.config.as_deref(), self.demo, &config::environment())
    }
}

fn check(
    args: &ConfigArgs,
    words: impl FnOnce(&Loaded) -> Result<String, TooFewDescriptors>,
) -> ExitCode {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let text = match words(&loaded) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{}: {error}", loaded.origin);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn follow(options: tail::Options) -> ExitCode {
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
            ExitCode::from(if matches!(failure, tail::Failure::Usage(_)) { USAGE } else { FAILED })
        }
        Err(error) => {
            eprintln!("ssegate: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn tail_until_stopped(options: tail::Options) -> anyhow::Result<Result<(), tail::Failure>> {
    /// To end between two events and say where.
    const FAREWELL: Duration = Duration::from_millis(500);
    let mut stop = process::Stop::catch().context("cannot catch signals")?;
    let (stopped, stopping) = tokio::sync::oneshot::channel::<()>();
    let mut tailing = tokio::spawn(async move {
        let stopping = async { drop(stopping.await) };
        tail::run(options, &mut std::io::stdout(), &mut std::io::stderr(), stopping).await
    });
    tokio::select! {
        ended = &mut tailing => return ended.context("tailing failed"),
        _ = stop.next() => drop(stopped),
    }
    tokio::time::timeout(FAREWELL, tailing).await.unwrap_or(Ok(Ok(()))).context("tailing failed")
}

fn serve(args: &ConfigArgs) -> ExitCode {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let levels = logging::start(&loaded.config.log);
    let (version, commit) = (env!("CARGO_PKG_VERSION"), version::COMMIT);
    info!(version, commit, configuration = %loaded.origin, "ssegate starts");
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let descriptors = process::raise_descriptors();
    // Before there are other threads.
    let inherited = Inherited::take();
    let manager = Manager::from_environment();
    let outcome = runtime(loaded.config.server.workers).and_then(|runtime| {
        runtime.block_on(run(args, loaded, levels, inherited, descriptors, manager))
    });
    match outcome {
        Ok(code) => {
            info!("ssegate ends");
            code
        }
        Err(error) => {
            error!("{error:#}");
            code_of(&error)
        }
    }
}

async fn run(
    args: &ConfigArgs,
    Loaded { config, settings, .. }: Loaded,
    levels: Levels,
    inherited: Inherited,
    descriptors: usize,
    manager: Manager,
) -> anyhow::Result<ExitCode> {
    let mut stop = process::Stop::catch().context("cannot catch signals")?;
    let mut hangup = process::Request::hangup().context("cannot catch signals")?;
    let mut user = process::Request::user().context("cannot catch signals")?;
    let demo = config.demo;
    let gateway = Gateway::bind(config, inherited, descriptors)?;
    for address in gateway.public_addresses() {
        info!(%address, "listening for clients");
    }
    for address in gateway.admin_addresses() {
        info!(%address, "listening for the operator");
    }
    if demo {
        show_what_to_try(&gateway);
    }
    manager.ready().await;
    gateway.keep_told(&manager);
    let again = args.clone();
    let reload = gateway.reload(settings, move || again.read(), move |log| levels.set(log));
    let told = manager.clone();
    let reloading = tokio::spawn(async move {
        loop {
            hangup.next().await;
            info!("SIGHUP: reloading");
            told.reloading().await;
            reload.now().await;
            told.ready().await;
        }
    });
    let report = gateway.report();
    tokio::spawn(async move {
        loop {
            user.next().await;
            report.log();
        }
    });
    let (shutdown, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = gateway.run(async { drop(stopped.await) });
    let signals = async {
        let first = stop.next().await;
        info!(signal = first, "stopping; a second signal ends at once");
        reloading.abort();
        manager.stopping().await;
        // The gateway holds the other end until it has drained.
        let _ = shutdown.send(());
        stop.next().await
    };
    tokio::select! {
        () = served => Ok(ExitCode::SUCCESS),
        signal = signals => {
            warn!(signal, "a second signal: ending at once");
            Ok(ExitCode::from(FAILED))
        }
    }
}

fn show_what_to_try(gateway: &Gateway) {
    let Some(address) = gateway.public_addresses().into_iter().next() else { return };
    if !address.starts_with("unix:") {
        eprintln!("\n  Watch it in a browser:   http://{}/", from_here(&address));
    }
    eprintln!("  Or on the command line:  curl -N {}/events/demo", as_curl_wants(&address));
    if let Some(admin) = gateway.admin_addresses().into_iter().next() {
        let admin = as_curl_wants(&admin);
        let event = r#"'{"message":"hello"}'"#;
        eprintln!("  Add an event of yours:   curl -d {event} {admin}/publish/events:demo");
    }
    eprintln!();
}

/// An address of every interface, as one that can be connected to.
fn from_here(address: &str) -> String {
    address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

fn as_curl_wants(address: &str) -> String {
    match address.strip_prefix("unix:") {
        Some(path) => format!("--unix-socket {path} http://localhost"),
        None => format!("http://{}", from_here(address)),
    }
}

fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn code_of(error: &anyhow::Error) -> ExitCode {
    let bind = error.downcast_ref::<ssegate::BindError>();
    let configuration = bind.is_some_and(ssegate::BindError::is_configuration);
    ExitCode::from(if configuration { BAD_CONFIG } else { FAILED })
}
