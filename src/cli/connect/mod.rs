//! `ssegate check --connect`: what the servers say to what the gateway needs of them.
//!
//! - `topology`: which servers there are; `server`, `access`: the questions to one of them
//! - `judge`: what the answers mean; `finding`: how that is told

use std::process::ExitCode;

use serde_json::Value;

use super::budget::Budget;
use super::exit::{BAD_CONFIG, UNAVAILABLE};
use crate::config::{Address, Config};
use crate::source::{Inspector, ServerKind};

mod access;
mod finding;
mod judge;
mod server;
mod shared_reads;
mod topology;

use finding::{Finding, Level, about};
use server::Needs;

/// Everything that was found about the servers of a configuration.
pub(super) struct Findings(Vec<Finding>);

/// Asks all servers, one after another; no question takes longer than 2 s.
pub(super) async fn connect(config: &Config, budget: &Budget) -> Findings {
    let needs =
        Needs { connections: budget.connections_to_each(), reply_bytes: budget.reply_bytes() };
    let (servers, mut findings) = topology::servers(config).await;
    for address in servers {
        findings.extend(of_server(config, &address, needs).await);
    }
    Findings(findings)
}

async fn of_server(config: &Config, address: &Address, needs: Needs) -> Vec<Finding> {
    match open(config, address, ServerKind::Data).await {
        Ok(inspector) => {
            about(&address.to_string(), server::server(&inspector, config, needs).await)
        }
        Err(findings) => findings,
    }
}

/// Connects to a server, or finds that it cannot be asked.
async fn open(
    config: &Config,
    address: &Address,
    kind: ServerKind,
) -> Result<Inspector, Vec<Finding>> {
    let opened = Inspector::open(&config.source, address, kind).await;
    opened.map_err(|error| about(&address.to_string(), [judge::unreachable(&error)]))
}

impl Findings {
    /// 0, 78 where something is wrong, 69 where otherwise a server cannot be asked.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self.0.iter().map(|finding| finding.level).max() {
            Some(Level::Wrong) => BAD_CONFIG.into(),
            Some(Level::Unreachable) => UNAVAILABLE.into(),
            _ => ExitCode::SUCCESS,
        }
    }

    /// A line for each, under the name of its server.
    pub(super) fn explain(&self) -> String {
        if self.0.is_empty() {
            return "\nThe source is in this process: there is no server to ask.\n".into();
        }
        let by_server = self.0.chunk_by(|one, next| one.server == next.server);
        let told = by_server.map(|findings| {
            let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
            format!("\n{}\n  {}\n", findings[0].server, lines.join("\n  "))
        });
        told.collect()
    }

    pub(super) fn json(&self) -> Value {
        self.0.iter().map(Finding::json).collect()
    }
}
