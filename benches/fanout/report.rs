//! What was asked for, what came out, and how it is told: a line for the gateway, one for the
//! floor, and one with their ratio, run by run. Only the ratio means something elsewhere.

use serde_json::{Map, Value, json};

use crate::processes::Cpu;

/// One row of the benchmark: how many clients get how many events of which size.
#[derive(clap::Args)]
pub(crate) struct Scenario {
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) clients: u64,
    /// Entries per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// Length of an entry's payload: the number, the time, and padding.
    #[arg(long, default_value_t = 230, value_parser = clap::value_parser!(u64).range(80..))]
    pub(crate) entry_bytes: u64,
}

impl Scenario {
    pub(crate) fn events(&self) -> u64 {
        self.rate * self.seconds
    }
}

/// Key in JSON, name in the table, digits after the point.
const COLUMNS: [(&str, &str, usize); 8] = [
    ("deliveries_per_second", "deliveries/s", 0),
    ("cpu_us_per_delivery", "CPU us/delivery", 2),
    ("user_us_per_delivery", "of it user", 2),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("p999_ms", "p99.9 ms", 2),
    ("bytes_per_client", "bytes/client", 0),
    ("clients_cpu_percent", "clients' CPU %", 0),
];

type Columns = [f64; COLUMNS.len()];

/// A server below this share of the rate had a backlog: then latencies tell its length, and who
/// coalesces what is pending sends less often. Only `deliveries/s` compares such lines.
const KEPT_UP: f64 = 0.97;

/// What must be zero in the clients' report.
const FAULTS: [&str; 4] = ["missing", "doubled", "gaps", "closed"];

/// One run of one server.
pub(crate) struct Run {
    columns: Columns,
    clients: Value,
}

impl Run {
    /// Joins the clients' report with what the run took, in CPU seconds from before the first
    /// entry until after the last, and in bytes for each connected client.
    pub(crate) fn new(clients: Value, spent: Cpu, by_clients: Cpu, client_bytes: f64) -> Self {
        let number = |name: &str| clients[name].as_f64().unwrap_or(f64::NAN);
        let (delivered, seconds) = (number("delivered"), number("seconds"));
        let columns = [
            delivered / seconds,
            spent.total * 1e6 / delivered,
            spent.user * 1e6 / delivered,
            number("p50_ms"),
            number("p99_ms"),
            number("p999_ms"),
            client_bytes,
            by_clients.total * 100.0 / seconds,
        ];
        Self { columns, clients }
    }

    /// The clients' report, if one missed an entry, got one twice, or was told of a gap.
    pub(crate) fn fault(&self) -> Option<String> {
        let faulty = FAULTS.iter().any(|name| self.clients[*name] != 0);
        faulty.then(|| self.clients.to_string())
    }
}

/// All runs of one scenario; a server that was left out has none.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) gateway: Vec<Run>,
    pub(crate) floor: Vec<Run>,
}

impl Row {
    /// The ratio is taken run by run: the two of a pair shared the machine's mood.
    fn lines(&self) -> Vec<(&'static str, Vec<Columns>)> {
        let columns = |runs: &[Run]| runs.iter().map(|run| run.columns).collect::<Vec<_>>();
        let (gateway, floor) = (columns(&self.gateway), columns(&self.floor));
        let pairs = gateway.iter().zip(&floor);
        let ratio =
            pairs.map(|(ours, least)| std::array::from_fn(|i| ours[i] / least[i])).collect();
        let mut lines = vec![("gateway", gateway), ("floor", floor), ("ratio", ratio)];
        lines.retain(|(_, runs)| !runs.is_empty());
        lines
    }

    /// Medians, and below them the least and the most.
    pub(crate) fn print(&self) {
        let Scenario { clients, rate, seconds, entry_bytes } = self.scenario;
        println!("\n{clients} clients, {rate} entries/s of {entry_bytes} bytes for {seconds} s");
        println!("{:8}{}", "", COLUMNS.map(|(_, name, _)| format!("{name:>16}")).concat());
        for (name, runs) in self.lines() {
            let digits = |index: usize| if name == "ratio" { 2 } else { COLUMNS[index].2 };
            let medians = cells(&runs, |index, [median, _, _]| {
                let digits = digits(index);
                format!("{median:.digits$}")
            });
            let ranges = cells(&runs, |index, [_, min, max]| {
                let digits = digits(index);
                format!("{min:.digits$}-{max:.digits$}")
            });
            println!("{name:8}{medians}\n{:8}{ranges}", "");
            let [_, slowest, _] = spread(&runs, 0);
            let share = slowest / (clients * rate) as f64;
            if name != "ratio" && share < KEPT_UP {
                println!("{:8}^ fell behind, to {:.0} % of the rate", "", share * 100.0);
            }
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let Scenario { clients, rate, seconds, entry_bytes } = self.scenario;
        let mut row = json!({
            "clients": clients, "rate": rate, "seconds": seconds, "entry_bytes": entry_bytes,
        });
        for (name, runs) in self.lines() {
            let columns = COLUMNS.iter().enumerate().map(|(index, (key, _, _))| {
                let [median, min, max] = spread(&runs, index);
                ((*key).to_owned(), json!({ "median": median, "min": min, "max": max }))
            });
            row[name] = Value::Object(columns.collect::<Map<_, _>>());
        }
        row
    }
}

/// One line of the table; where the floor takes nothing there is no ratio.
fn cells(runs: &[Columns], cell: impl Fn(usize, [f64; 3]) -> String) -> String {
    let cells = std::array::from_fn::<_, { COLUMNS.len() }, _>(|index| {
        let spread = spread(runs, index);
        let known = spread.iter().all(|value| value.is_finite());
        format!(" {:>15}", if known { cell(index, spread) } else { "-".into() })
    });
    cells.concat()
}

/// Median, least and most of a column.
fn spread(runs: &[Columns], column: usize) -> [f64; 3] {
    let mut values: Vec<_> = runs.iter().map(|run| run[column]).collect();
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    [f64::midpoint(values[last / 2], values[values.len() / 2]), values[0], values[last]]
}
