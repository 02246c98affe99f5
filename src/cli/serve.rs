//! `ssegate`: the gateway as a process, with its log, its runtime and its signals.

use std::process::ExitCode;

use anyhow::Context;
use tracing::{error, info, warn};

use super::signals::{Request, Stop};
use super::{BAD_CONFIG, ConfigArgs, FAILED, load, runtime};
use crate::config::Loaded;
use crate::gateway::systemd::Manager;
use crate::gateway::{BindError, Gateway, process};
use crate::http::inherited::Inherited;
use crate::telemetry::log::{self, Levels};
use crate::telemetry::version;

/// Serves until it is stopped and has drained.
pub(super) fn serve(args: &ConfigArgs) -> ExitCode {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let levels = log::start(&loaded.config.log);
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
    let mut stop = Stop::catch().context("cannot catch signals")?;
    let mut hangup = Request::hangup().context("cannot catch signals")?;
    let mut user = Request::user().context("cannot catch signals")?;
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

fn code_of(error: &anyhow::Error) -> ExitCode {
    let bind = error.downcast_ref::<BindError>();
    let configuration = bind.is_some_and(BindError::is_configuration);
    ExitCode::from(if configuration { BAD_CONFIG } else { FAILED })
}
