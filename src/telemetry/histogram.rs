//! Histograms with fixed buckets: many equal observations cost one addition, and none costs memory.
//!
//! (Those of the metrics crate's exporter keep every value until the next scrape.)

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From a tenth of a millisecond to ten seconds: our own work, and the answers of Redis.
pub const WORK_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// From a tenth of a second to a day: the duration of streams.
pub const LIFE_SECONDS: &[f64] =
    &[0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];

/// The number of values in each bucket, and their sum.
pub struct Histogram {
    /// The greatest value of each bucket; the last one has none.
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

impl Histogram {
    /// No values yet; `bounds` are in seconds and ascend.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_micros: AtomicU64::new(0) }
    }

    /// Counts `times` observations of the same value.
    pub fn observe(&self, value: Duration, times: u64) {
        let seconds = value.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }

    /// The number of values in each bucket so far.
    pub fn counts(&self) -> Counts {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        Counts { bounds: self.bounds, counts: counts.collect() }
    }

    /// Appends it in Prometheus' text format.
    pub fn render(&self, name: &str, help: &str, out: &mut String) {
        let mut count = 0;
        let mut lines = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = self.bounds.get(index).map_or("+Inf".into(), f64::to_string);
            writeln!(lines, "{name}_bucket{{le=\"{bound}\"}} {count}")
                .expect("writing to a String succeeds");
        }
        let sum = self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(lines, "{name}_sum {sum}\n{name}_count {count}\n")
            .expect("writing to a String succeeds");
        out.push_str(&lines);
    }
}

/// The number of values in each bucket at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    bounds: &'static [f64],
    counts: Vec<u64>,
}

impl Counts {
    /// The values since `earlier` in the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = |(now, then): (&u64, &u64)| now.saturating_sub(*then);
        Self {
            bounds: self.bounds,
            counts: self.counts.iter().zip(&earlier.counts).map(new).collect(),
        }
    }

    /// All values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value below which this share of the values lies, if those of a bucket are spread evenly; `None`
    /// without values. A value beyond the last bound counts as that bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.total();
        let rank = share * total as f64;
        let mut below = 0.0;
        for (index, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let from = if index == 0 { 0.0 } else { self.bounds[index - 1] };
                let to = self.bounds.get(index).copied().unwrap_or(from);
                return Some(from + (to - from) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for (millis, times) in [(500, 1), (501, 2), (1000, 3), (1500, 4)] {
            histogram.observe(Duration::from_millis(millis), times);
        }
        let mut text = String::new();
        histogram.render("x_seconds", "Of x.", &mut text);
        let expected = "# HELP x_seconds Of x.
# TYPE x_seconds histogram
x_seconds_bucket{le=\"0.5\"} 1
x_seconds_bucket{le=\"1\"} 6
x_seconds_bucket{le=\"+Inf\"} 10
x_seconds_sum 10.502
x_seconds_count 10

";
        assert_eq!(text, expected);
    }

    #[test]
    fn quantiles_are_of_new_values_and_lie_within_their_bucket() {
        let histogram = Histogram::new(&[0.5, 1.0, 2.0]);
        histogram.observe(Duration::from_secs(9), 50);
        let before = histogram.counts();
        assert_eq!(before.since(&before).quantile(0.99), None);
        histogram.observe(Duration::from_millis(600), 98);
        histogram.observe(Duration::from_millis(1500), 2);
        let new = histogram.counts().since(&before);
        assert_eq!(new.total(), 100);
        assert_eq!(new.quantile(0.49), Some(0.75));
        assert_eq!(new.quantile(0.99), Some(1.5));
        histogram.observe(Duration::from_secs(9), 100);
        assert_eq!(histogram.counts().since(&before).quantile(0.99), Some(2.0));
    }
}
