//! The results: a row for each fault, and what was violated.

use std::time::Duration;

use crate::checker::Findings;

/// The runs of one fault.
pub struct Row {
    pub name: &'static str,
    /// By seed.
    pub runs: Vec<(u64, Findings)>,
}

/// The table's head, in Markdown like the rows.
pub fn head() -> String {
    let titles = ["fault", "seeds", "entries", "deliveries", "gaps told", "lost", "doubled"];
    let titles = titles.join(" | ");
    format!("| {titles} | recovery, ms | |\n|---|---|---:|---:|---:|---:|---:|---:|---|")
}

impl Row {
    /// Whether nothing was violated.
    pub fn holds(&self) -> bool {
        self.runs.iter().all(|(_, findings)| findings.violations.is_empty())
    }

    /// Whether it would hold but for the time of its recovery.
    pub fn is_only_late(&self) -> bool {
        let wrong = |findings: &Findings| !findings.violations.is_empty() && !findings.only_late;
        !self.holds() && !self.runs.iter().any(|(_, findings)| wrong(findings))
    }

    /// Sums over the seeds; of the recovery the median and the longest.
    pub fn line(&self) -> String {
        let sum = |of: fn(&Findings) -> usize| {
            self.runs.iter().map(|(_, findings)| of(findings)).sum::<usize>()
        };
        let seeds: Vec<_> = self.runs.iter().map(|(seed, _)| seed.to_string()).collect();
        let mut recoveries: Vec<Duration> =
            self.runs.iter().map(|(_, findings)| findings.recovery).collect();
        recoveries.sort();
        let recovery = match &*recoveries {
            [] => String::new(),
            [one] => one.as_millis().to_string(),
            [.., longest] => {
                let median = recoveries[recoveries.len() / 2];
                format!("{} – {}", median.as_millis(), longest.as_millis())
            }
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {recovery} | {} |",
            self.name,
            seeds.join(","),
            sum(|findings| findings.entries),
            sum(|findings| findings.deliveries),
            sum(|findings| findings.gaps),
            sum(|findings| findings.lost),
            sum(|findings| findings.doubled),
            if self.holds() { "" } else { "FAILED" }
        )
    }

    /// What was violated, how to repeat it, and what was logged meanwhile.
    pub fn complaint(&self, how: impl Fn(u64) -> String) -> String {
        let mut text = String::new();
        for (seed, findings) in &self.runs {
            if findings.violations.is_empty() {
                continue;
            }
            text += &format!("\n{}, seed {seed}; again: {}\n", self.name, how(*seed));
            for violation in &findings.violations {
                text += &format!("  {violation}\n");
            }
            text += &findings.evidence;
        }
        text
    }
}
