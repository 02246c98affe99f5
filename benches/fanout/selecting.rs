//! The rows of clients that get only some entries of a stream.

use anyhow::Result;

use crate::measure::Server;
use crate::rows::{Stage, cpu_beside_floor};
use crate::scenario::{Follows, Scenario};
use crate::table::{Figure, Goal};

/// Each of many tenants has one client, and each entry is for one tenant.
pub(crate) fn tenants(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    /// Beside each entry that a client gets.
    const UNSEEN: u64 = 9;
    let clients = if stage.quick { 100 } else { 5_000 };
    let scenario = Scenario {
        clients,
        keys: clients,
        follows: Follows::Selected,
        rate: 2_000.0,
        ..Scenario::default()
    };
    let gateway = stage.measure_on_time(scenario, Server::Gateway)?;
    let floor = stage.measure_on_time(scenario, Server::Floor(1))?;
    // Many in each read, with them and without: a read costs more than all of its entries.
    let scenario = Scenario { pipeline: 100, ..scenario };
    let few = stage.measure(scenario, Server::Gateway)?;
    let many = stage.measure(Scenario { unseen: UNSEEN, ..scenario }, Server::Gateway)?;
    let unseen_us = many.cpu_us_per_delivery() - few.cpu_us_per_delivery();
    let few_floor = stage.measure(scenario, Server::Floor(1))?;
    let mut figures = cpu_beside_floor(&gateway, &floor, Goal::RatioAtMost(2.0));
    figures.extend([
        Figure::new("p99 ms", 2, gateway.p99_ms()).beside("floor", floor.p99_ms()),
        Figure::new("CPU us/delivery, a hundred in a read", 2, few.cpu_us_per_delivery())
            .beside("floor", few_floor.cpu_us_per_delivery()),
        Figure::new("CPU us/entry that nobody gets", 2, unseen_us / UNSEEN as f64)
            .goal(Goal::AtMost(2.0)),
        Figure::new("PSS bytes/client", 0, gateway.bytes_per_client()),
    ]);
    Ok(figures)
}

/// A thousand clients of one stream, a tenth of which each entry is for.
pub(crate) fn filters(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let scenario = Scenario { keys: 10, follows: Follows::Selected, ..Scenario::default() };
    let gateway = stage.measure_on_time(scenario, Server::Gateway)?;
    let floor = stage.measure_on_time(scenario, Server::Floor(1))?;
    let mut figures = cpu_beside_floor(&gateway, &floor, Goal::RatioAtMost(1.15));
    figures.push(Figure::new("p99 ms", 2, gateway.p99_ms()).beside("floor", floor.p99_ms()));
    Ok(figures)
}
