//! Latencies in fixed logarithmic buckets: constant memory and no allocation while measuring,
//! each value known to 3 %.

/// Buckets per power of two.
const STEPS: u64 = 32;
const BUCKETS: usize = 64 * 32;

/// Counts of nanoseconds by size.
pub(crate) struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0[bucket(nanoseconds)] += 1;
    }

    /// How many samples there are above `nanoseconds`.
    pub(crate) fn longer_than(&self, nanoseconds: u64) -> u64 {
        self.0[bucket(nanoseconds) + 1..].iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours += theirs;
        }
    }

    /// What a share of `quantile` of the samples does not exceed.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let rank = self.0.iter().sum::<u64>() as f64 * quantile;
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen as f64 >= rank
        });
        let bucket = bucket.unwrap_or_default() as u64;
        let shift = (bucket / STEPS).saturating_sub(1);
        ((bucket - shift * STEPS + 1) << shift) as f64 / 1e6
    }
}

/// Small values have a bucket each; above, the leading bits choose.
fn bucket(nanoseconds: u64) -> usize {
    let shift = nanoseconds.max(STEPS).ilog2() - STEPS.ilog2();
    let bucket = u64::from(shift) * STEPS + (nanoseconds >> shift);
    usize::try_from(bucket).expect("buckets must be few")
}
