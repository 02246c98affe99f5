//! A scenario as asked for on the command line, outside the rows: every figure of the gateway
//! beside the floor's.

use anyhow::{Result, bail};

use crate::measure::{Run, Server};
use crate::rows::Stage;
use crate::scenario::Scenario;
use crate::table::Figure;

/// Any of these asks for a scenario instead of the rows; the others are then the default's.
#[derive(Default, clap::Args)]
pub(crate) struct Free {
    /// On all stream keys together.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    clients: Option<u64>,
    /// Entries per second, on all stream keys together.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Length of an entry's payload.
    #[arg(long, value_parser = clap::value_parser!(u64).range(80..))]
    entry_bytes: Option<u64>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    /// Threads of the clients' process.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    client_threads: Option<u64>,
    /// Leave the other one out.
    #[arg(long)]
    only: Option<Only>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    floor_threads: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Only {
    Gateway,
    Floor,
}

fn positive(text: &str) -> Result<f64> {
    let rate: f64 = text.parse()?;
    if !(1e-3..=1e9).contains(&rate) {
        bail!("a rate is between 0.001 and 1e9");
    }
    Ok(rate)
}

/// Title, digits after the point, and where it is in a run.
type Column = (&'static str, usize, fn(&Run) -> f64);

const COLUMNS: [Column; 8] = [
    ("deliveries/s", 0, Run::deliveries_per_second),
    ("CPU us/delivery", 2, Run::cpu_us_per_delivery),
    ("of it user", 2, Run::user_us_per_delivery),
    ("p50 ms", 2, Run::p50_ms),
    ("p99 ms", 2, Run::p99_ms),
    ("p99.9 ms", 2, Run::p999_ms),
    ("anonymous bytes/client", 0, Run::anonymous_bytes_per_client),
    ("clients' CPU %", 0, Run::clients_cpu_percent),
];

impl Free {
    pub(crate) fn is_asked_for(&self) -> bool {
        let Self { clients, rate, seconds, entry_bytes, keys, only, .. } = self;
        let Self { client_threads, floor_threads, .. } = self;
        let numbers = [clients, seconds, entry_bytes, keys, client_threads, floor_threads];
        numbers.iter().any(|number| number.is_some()) || rate.is_some() || only.is_some()
    }

    fn scenario(&self) -> Scenario {
        let default = Scenario::default();
        Scenario {
            clients: self.clients.unwrap_or(default.clients),
            keys: self.keys.unwrap_or(default.keys),
            rate: self.rate.unwrap_or(default.rate),
            seconds: self.seconds.unwrap_or(default.seconds),
            entry_bytes: self.entry_bytes.unwrap_or(default.entry_bytes),
            client_threads: self.client_threads.unwrap_or(default.client_threads),
            ..default
        }
    }

    /// One run.
    pub(crate) fn run(&self, stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
        let floor = Server::Floor(self.floor_threads.unwrap_or(1));
        let mut measure = |server, left_out| {
            let wanted = self.only != Some(left_out);
            wanted.then(|| stage.measure_on_time(self.scenario(), server)).transpose()
        };
        let gateway = measure(Server::Gateway, Only::Floor)?;
        let floor_run = measure(floor, Only::Gateway)?;
        let figure = |(what, digits, value): Column| match (&gateway, &floor_run) {
            (Some(gateway), Some(least)) => {
                Figure::new(what, digits, value(gateway)).beside(floor.name(), value(least))
            }
            (Some(alone), None) | (None, Some(alone)) => Figure::new(what, digits, value(alone)),
            (None, None) => Figure::new(what, digits, f64::NAN),
        };
        Ok(COLUMNS.map(figure).into())
    }
}
