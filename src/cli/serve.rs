//! `ssegate` without a subcommand: the gateway as a process, with its log, its runtime and its signals.

use std::process::ExitCode;

use anyhow::Context;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::SignalStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::exit::{BAD_CONFIG, FAILED};
use super::options::ConfigArgs;
use super::runtime::runtime;
use super::signals;
use crate::admin::report::Report;
use crate::config::Loaded;
use crate::gateway::systemd::Manager;
use crate::gateway::{BindError, Gateway, Reload, process};
use crate::http::inherited::Inherited;
use crate::telemetry::log::{self, Levels};
use crate::telemetry::version;

/// Serves until a signal stops the gateway and it has drained.
pub(super) fn serve(args: &ConfigArgs) -> ExitCode {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    // Before there are other threads: it changes the environment.
    let inherited = Inherited::take();
    let (levels, _last_lines) = log::start(&loaded.config.log);
    log_start(&loaded);
    let workers = loaded.config.server.workers;
    let process = Process {
        args: args.clone(),
        levels,
        descriptors: process::raise_descriptors(),
        inherited,
        manager: Manager::from_environment(),
    };
    let outcome = runtime(workers).and_then(|runtime| runtime.block_on(process.run(loaded)));
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

fn log_start(loaded: &Loaded) {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), version::COMMIT);
    info!(version, commit, configuration = %loaded.file, "ssegate starts");
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
}

fn code_of(error: &anyhow::Error) -> ExitCode {
    let bind = error.downcast_ref::<BindError>();
    let configuration = bind.is_some_and(BindError::is_configuration);
    ExitCode::from(if configuration { BAD_CONFIG } else { FAILED })
}

/// What the process was started with.
struct Process {
    args: ConfigArgs,
    levels: Levels,
    descriptors: usize,
    inherited: Inherited,
    manager: Manager,
}

impl Process {
    async fn run(self, Loaded { config, settings, .. }: Loaded) -> anyhow::Result<ExitCode> {
        let Self { args, levels, descriptors, mut inherited, manager } = self;
        // Before anybody can take the gateway for ready and send one.
        let uncaught = "cannot catch signals";
        let mut stop = signals::stop().context(uncaught)?;
        let reloads = signals::reload().context(uncaught)?;
        let reports = signals::report().context(uncaught)?;

        let demo = config.demo;
        Gateway::close_unwanted(&config, &mut inherited, &manager).await;
        let gateway = Gateway::bind(config, inherited, descriptors)?;
        log_addresses(&gateway);
        if demo {
            show_what_to_try(&gateway);
        }
        gateway.keep_listeners(&manager).await;
        manager.ready().await;
        gateway.report_to(&manager);

        let reload = gateway.reload(settings, move || args.read(), move |log| levels.set(log));
        let reloading = reload_at(reloads, reload, manager.clone());
        report_at(reports, gateway.report());

        let shutdown = CancellationToken::new();
        let served = gateway.run(shutdown.clone().cancelled_owned());
        let second_signal = async {
            let signal = stop.next().await;
            info!(signal, "stopping; a second signal ends at once");
            reloading.abort();
            manager.stopping().await;
            shutdown.cancel();
            stop.next().await
        };
        tokio::select! {
            () = served => Ok(ExitCode::SUCCESS),
            signal = second_signal => {
                warn!(signal, "a second signal ends the gateway at once; clients resume");
                Ok(ExitCode::from(FAILED))
            }
        }
    }
}

/// Reloads at each signal.
fn reload_at(mut signals: SignalStream, reload: Reload, manager: Manager) -> AbortHandle {
    let reloading = async move {
        while signals.next().await.is_some() {
            info!("SIGHUP: reloading the configuration");
            manager.reloading().await;
            reload.now().await;
            manager.ready().await;
        }
    };
    tokio::spawn(reloading).abort_handle()
}

/// Logs a report at each signal.
fn report_at(mut signals: SignalStream, report: Report) {
    tokio::spawn(async move {
        while signals.next().await.is_some() {
            report.log();
        }
    });
}

fn log_addresses(gateway: &Gateway) {
    for address in gateway.public_addresses() {
        info!(%address, "listening for clients");
    }
    for address in gateway.admin_addresses() {
        info!(%address, "listening for the operator");
    }
}

fn show_what_to_try(gateway: &Gateway) {
    let Some(address) = gateway.public_addresses().into_iter().next() else { return };
    if !address.starts_with("unix:") {
        eprintln!("\n  Watch it in a browser:   http://{}/", from_here(&address));
    }
    eprintln!("  Or on the command line:  curl -N {}/events/demo", for_curl(&address));
    if let Some(admin) = gateway.admin_addresses().into_iter().next() {
        let admin = for_curl(&admin);
        let event = r#"'{"message":"hello"}'"#;
        eprintln!("  Publish your own event:  curl -d {event} {admin}/publish/events:demo");
    }
    eprintln!();
}

/// An address that this machine can connect to: none can connect to "every interface".
fn from_here(address: &str) -> String {
    address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

fn for_curl(address: &str) -> String {
    match address.strip_prefix("unix:") {
        Some(path) => format!("--unix-socket {path} http://localhost"),
        None => format!("http://{}", from_here(address)),
    }
}
