//! Which metrics and labels an expression names, as far as ours need it.

use std::collections::{HashMap, HashSet};

/// Each metric's labels, by its name.
pub type Exported = HashMap<String, HashSet<String>>;

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub struct Named {
    /// Each metric with the labels that it is selected by.
    pub metrics: Vec<(String, Vec<String>)>,
    /// Labels that are grouped or matched by.
    pub grouped: Vec<String>,
}

/// Labels that Prometheus itself gives to whatever it scrapes.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

impl Named {
    pub fn by(expression: &str) -> Self {
        let (mut named, mut rest) = (Self::default(), expression);
        while let Some(first) = rest.chars().next() {
            rest = match first {
                '"' => &rest[1 + end_of_string(&rest[1..])..],
                '[' => &rest[rest.find(']').expect(expression)..],
                '{' => {
                    let (labels, after) = labels_until('}', &rest[1..]);
                    named.metrics.last_mut().expect(expression).1.extend(labels);
                    after
                }
                first if first.is_ascii_digit() => rest.trim_start_matches(is_of_word),
                first if is_of_word(first) => named.word(rest),
                first => &rest[first.len_utf8()..],
            };
        }
        named
    }

    /// Takes the word at the beginning; what follows it.
    fn word<'a>(&mut self, text: &'a str) -> &'a str {
        let after = text.trim_start_matches(is_of_word);
        let word = &text[..text.len() - after.len()];
        let list = after.trim_start().strip_prefix('(');
        match (word, list) {
            ("by" | "without" | "on" | "ignoring" | "group_left" | "group_right", Some(list)) => {
                let (labels, after) = labels_until(')', list);
                self.grouped.extend(labels);
                return after;
            }
            ("and" | "or" | "unless" | "bool", _) | (_, Some(_)) => {}
            // With a grouping before what they are of.
            ("sum" | "min" | "max" | "avg" | "count", None) => {}
            (metric, None) => self.metrics.push((metric.to_owned(), Vec::new())),
        }
        after
    }

    /// What of it there is not.
    pub fn faults(&self, exported: &Exported) -> Vec<String> {
        let mut faults = Vec::new();
        let mut known: HashSet<&str> = OF_TARGETS.into();
        for (metric, labels) in &self.metrics {
            let Some(of_metric) = exported.get(metric) else {
                faults.push(format!("no metric {metric}"));
                continue;
            };
            let has =
                |label: &String| of_metric.contains(label) || OF_TARGETS.contains(&label.as_str());
            let missing = labels.iter().filter(|label| !has(label));
            faults.extend(missing.map(|label| format!("{metric} has no label {label}")));
            known.extend(of_metric.iter().map(String::as_str));
        }
        let unknown = self.grouped.iter().filter(|label| !known.contains(label.as_str()));
        faults.extend(unknown.map(|label| format!("no metric has a label {label}")));
        faults
    }
}

/// The metrics of an exposition.
pub fn exported(text: &str) -> Exported {
    let mut exported = Exported::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = &line[..line.len() - line.trim_start_matches(is_of_word).len()];
        let labels = line[name.len()..].strip_prefix('{').map(|list| labels_until('}', list).0);
        exported.entry(name.to_owned()).or_default().extend(labels.unwrap_or_default());
    }
    exported
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}

/// Where what follows a string's end begins.
fn end_of_string(text: &str) -> usize {
    text.find('"').expect("a string ends") + 1
}

/// The labels up to an end, their values left out; and what follows it.
fn labels_until(end: char, text: &str) -> (Vec<String>, &str) {
    let (mut labels, mut rest) = (Vec::new(), text);
    loop {
        let first = rest.chars().next().expect("it has an end");
        if first == end {
            return (labels, &rest[1..]);
        }
        let after = rest.trim_start_matches(is_of_word);
        let word = &rest[..rest.len() - after.len()];
        if !word.is_empty() {
            labels.push(word.to_owned());
        }
        rest = match first {
            '"' => &rest[1 + end_of_string(&rest[1..])..],
            first if word.is_empty() => &rest[first.len_utf8()..],
            _ => after,
        };
    }
}

#[test]
fn the_names_in_an_expression_are_found_even_invented_ones() {
    let named = Named::by(
        "histogram_quantile(0.99, sum by (le) (rate(a_bucket{x=~\"{y\", z=\"1\"}[5m]))) > 0.5 * 60 and on (job) time() - b:c",
    );
    let metrics = [("a_bucket".into(), vec!["x".into(), "z".into()]), ("b:c".into(), vec![])];
    assert_eq!(named.metrics, metrics);
    assert_eq!(named.grouped, ["le", "job"]);
    let faults = |exposition| named.faults(&exported(exposition));
    assert_eq!(faults("a_bucket{x=\"}\",z=\"2\",le=\"1\"} 1\n# HELP x y\n\nb:c 2"), [""; 0]);
    let all = ["a_bucket has no label z", "no metric b:c", "no metric has a label le"];
    assert_eq!(faults("a_bucket{x=\"1\"} 1"), all);
}
