//! The results, and how they are printed: a line for each figure of a row, with medians, ranges and
//! ratios, its goal, and whether that is met. Only a ratio means something on another machine.

use serde_json::{Value, json};

/// What a figure has to reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// The ratio to what stands beside it.
    RatioAtMost(f64),
    /// The median lies within the range of what stands beside it, or below.
    NoWorse,
}

/// One figure of one run.
#[derive(Clone)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) digits: usize,
    pub(crate) value: f64,
    /// The same of something else in the same run.
    pub(crate) beside: Option<(&'static str, f64)>,
    pub(crate) goal: Option<Goal>,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, digits: usize, value: f64) -> Self {
        Self { what: what.into(), digits, value, beside: None, goal: None }
    }

    pub(crate) fn beside(self, name: &'static str, value: f64) -> Self {
        Self { beside: Some((name, value)), ..self }
    }

    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

/// A row: all its figures in all its runs, and what a reader has to know about it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Each has the same figures in the same order.
    pub(crate) runs: Vec<Vec<Figure>>,
    pub(crate) notes: Vec<String>,
}

/// Median, least and most of the runs.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let median = f64::midpoint(values[last / 2], values[values.len() / 2]);
        Self { median, min: values[0], max: values[last] }
    }

    fn text(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        if !median.is_finite() {
            return "-".into();
        }
        let range = format!("({min:.digits$} to {max:.digits$})");
        format!("{median:.digits$} {}", if min < max { range } else { String::new() })
    }

    fn to_json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// A figure over all runs.
struct Line<'a> {
    first: &'a Figure,
    value: Spread,
    beside: Option<(&'static str, Spread)>,
    /// Taken run by run: the two of a pair shared the state of the machine.
    ratio: Option<Spread>,
}

impl Line<'_> {
    fn is_met(&self) -> Option<bool> {
        Some(match self.first.goal? {
            Goal::AtMost(most) => self.value.median <= most,
            Goal::AtLeast(least) => self.value.median >= least,
            Goal::RatioAtMost(most) => self.ratio.is_some_and(|ratio| ratio.median <= most),
            // One run has no range.
            Goal::NoWorse => {
                let (_, beside) = self.beside.filter(|(_, beside)| beside.min < beside.max)?;
                self.value.median <= beside.max
            }
        })
    }

    fn goal(&self) -> String {
        let digits = self.first.digits;
        match self.first.goal {
            None => String::new(),
            Some(Goal::AtMost(most)) => format!("<= {most:.digits$}"),
            Some(Goal::AtLeast(least)) => format!(">= {least:.digits$}"),
            Some(Goal::RatioAtMost(most)) => format!("ratio <= {most}"),
            Some(Goal::NoWorse) => "within its range".into(),
        }
    }

    fn print(&self, row: &str) {
        let digits = self.first.digits;
        let what = &self.first.what;
        let value = self.value.text(digits);
        let beside = self.beside.map(|(name, spread)| format!("{name}: {}", spread.text(digits)));
        let ratio = self.ratio.map(|ratio| ratio.text(2));
        let (beside, ratio) = (beside.unwrap_or_default(), ratio.unwrap_or_default());
        let goal = self.goal();
        let met = self.is_met().map_or("", |met| if met { "yes" } else { "NO" });
        println!("{row:15}{what:34}{value:30}{beside:32}{ratio:22}{goal:18}{met}");
    }

    fn to_json(&self) -> Value {
        let mut line = json!({ "what": self.first.what, "value": self.value.to_json() });
        if let (Some((name, beside)), Some(ratio)) = (self.beside, self.ratio) {
            line["beside"] = json!({ "what": name, "value": beside.to_json() });
            line["ratio"] = ratio.to_json();
        }
        if let Some(met) = self.is_met() {
            line["goal"] = self.goal().into();
            line["met"] = met.into();
        }
        line
    }
}

impl Row {
    fn lines(&self) -> Vec<Line<'_>> {
        let Some(first_run) = self.runs.first() else { return Vec::new() };
        let lines = first_run.iter().enumerate().map(|(index, first)| {
            let figures = || self.runs.iter().map(|run| &run[index]);
            let beside = || figures().filter_map(|figure| figure.beside);
            let pairs = figures().zip(beside());
            let ratios = pairs.map(|(figure, (_, beside))| figure.value / beside);
            let value = Spread::of(figures().map(|figure| figure.value));
            let named = first.beside.map(|(name, _)| name);
            Line {
                first,
                value,
                beside: named.map(|name| (name, Spread::of(beside().map(|(_, value)| value)))),
                ratio: named.map(|_| Spread::of(ratios)),
            }
        });
        lines.collect()
    }

    pub(crate) fn print(&self) {
        for (index, line) in self.lines().iter().enumerate() {
            line.print(if index == 0 { self.name } else { "" });
        }
        for note in &self.notes {
            println!("{:15}^ {note}", "");
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let lines: Vec<_> = self.lines().iter().map(Line::to_json).collect();
        json!({ "row": self.name, "runs": self.runs.len(), "figures": lines, "notes": self.notes })
    }
}

pub(crate) fn print_header() {
    println!(
        "{:15}{:34}{:30}{:32}{:22}{:18}met",
        "row", "what", "measured", "beside it", "ratio", "goal"
    );
}
