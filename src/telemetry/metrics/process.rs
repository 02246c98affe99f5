//! Metrics of the process, under the names that every Prometheus client uses. A value that cannot be read
//! is left out: zero would be wrong.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::unix_seconds;

/// When the process started, computed once: the clocks drift apart between two readings.
static STARTED: LazyLock<Option<SystemTime>> = LazyLock::new(|| Stat::read()?.started());

/// Appends `process_…` in Prometheus' text format.
pub(super) fn render(out: &mut String) {
    let stat = Stat::read();
    let resident = stat.map(|stat| stat.resident_bytes as f64);
    let limit = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |files| files as f64);
    let cpu = since(ClockId::ProcessCPUTime).as_secs_f64();
    let metrics = [
        ("cpu_seconds_total", "counter", "CPU time used, in user and kernel space.", Some(cpu)),
        ("open_fds", "gauge", "Open file descriptors.", open_files().map(|count| count as f64)),
        ("max_fds", "gauge", "File descriptors that may be open.", Some(limit)),
        ("resident_memory_bytes", "gauge", "Resident memory.", resident),
        ("start_time_seconds", "gauge", "When the process started.", STARTED.map(unix_seconds)),
    ];
    for (name, kind, help, value) in metrics {
        let Some(value) = value else { continue };
        let value = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
        writeln!(
            out,
            "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
        )
        .expect("writing to a String succeeds");
    }
}

/// From `/proc/self/stat` (`proc_pid_stat(5)`), which is readable under `ProcSubset=pid`, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// Clock ticks after boot.
    start_ticks: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the name of the program in parentheses; it may hold more of them.
        let (_, fields) = text.rsplit_once(')')?;
        let number = |field: usize| fields.split_whitespace().nth(field - 3)?.parse::<u64>().ok();
        let resident_bytes = number(24)?.checked_mul(page_size() as u64)?;
        Some(Self { start_ticks: number(22)?, resident_bytes })
    }

    fn started(self) -> Option<SystemTime> {
        let after_boot = self.start_ticks as f64 / clock_ticks_per_second() as f64;
        let age =
            since(ClockId::Boottime).checked_sub(Duration::try_from_secs_f64(after_boot).ok()?)?;
        SystemTime::now().checked_sub(age)
    }
}

/// The time that a clock shows.
fn since(clock: ClockId) -> Duration {
    // None of these clocks is ever negative.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Since Linux 6.2 the size of the folder is their number; before, they have to be counted.
fn open_files() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    let size = std::fs::metadata(FOLDER).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    counted_files(FOLDER)
}

fn counted_files(folder: &str) -> Option<u64> {
    // Without the descriptor of this very reading.
    Some((std::fs::read_dir(folder).ok()?.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let rest = "S 1 1 1 0 -1 0 0 0 0 0 5 6 0 0 20 0 3 0 4711 1000000 25 18446744073709551615 1";
        let stat = Stat { start_ticks: 4711, resident_bytes: 25 * page_size() as u64 };
        assert_eq!(Stat::parse(&format!("17 (ssegate) {rest}")), Some(stat));
        assert_eq!(Stat::parse(&format!("17 (a) R 2 (b) {rest}")), Some(stat));
        assert_eq!(Stat::parse("17 (ssegate) S 1"), None);
    }

    #[test]
    fn the_age_and_the_open_files_of_this_process_are_read() {
        let age = STARTED.expect("/proc is mounted").elapsed().expect("it is in the past");
        assert!(age < Duration::from_secs(24 * 3600), "{age:?}");
        let before = open_files().expect("/proc is mounted");
        let open = || std::fs::File::open("/proc/self/stat").unwrap();
        let held: Vec<_> = (0..200).map(|_| open()).collect();
        // Other tests close files meanwhile, but not by the hundred.
        assert!(open_files().unwrap() > before + 100);
        assert!(counted_files("/proc/self/fd").unwrap() > before + 100);
        drop(held);
    }
}
