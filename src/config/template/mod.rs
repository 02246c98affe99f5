//! Path templates, which requests match, and key templates, which name the stream key they read.
//!
//! Clients never name a Redis key: they choose only the values of variables, which consist of a small set
//! of characters.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use percent_encoding::percent_decode_str;

/// The longest value of a variable.
const VARIABLE_MAX_BYTES: usize = 128;

/// What is wrong with a template, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTemplate(String);

/// What requests match: `/`, or segments of which each is a literal or one `{variable}`.
///
/// Literals are not percent-encoded; a segment of a request is decoded once before it is compared, so
/// `/%65vents` is `/events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Variable(String),
}

impl PathTemplate {
    /// Reads a template as written in a route.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(bad("begins without a slash; write it as in \"/events/{name}\""));
        };
        let segments = match rest {
            "" => Vec::new(),
            _ => rest.split('/').map(Segment::parse).collect::<Result<_, _>>()?,
        };
        let template = Self { text: text.to_owned(), segments };
        let names: Vec<&str> = template.variables().collect();
        match names.iter().enumerate().find(|&(i, name)| names[..i].contains(name)) {
            Some((_, name)) => Err(bad(&format!(
                "has the variable {{{name}}} twice; give one of them another name"
            ))),
            None => Ok(template),
        }
    }

    /// The names of its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Names and values of the variables, if `path` matches; it is raw and has no query.
    ///
    /// Each segment is percent-decoded exactly once. A variable takes one whole segment of
    /// `[A-Za-z0-9._-]{1,128}` other than `.` and `..`.
    pub fn matches(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut rest = Some(path.strip_prefix('/')?).filter(|rest| !rest.is_empty());
        let mut variables = Vec::new();
        for segment in &self.segments {
            let (raw, after) = match rest?.split_once('/') {
                Some((raw, after)) => (raw, Some(after)),
                None => (rest?, None),
            };
            rest = after;
            let value = decoded(raw)?;
            match segment {
                Segment::Literal(literal) if *literal == value => {}
                Segment::Variable(name) if is_value(&value) => {
                    variables.push((name.clone(), value.into_owned()));
                }
                _ => return None,
            }
        }
        rest.is_none().then_some(variables)
    }

    /// Puts the more specific of two templates first: the first that matches a path serves it.
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let is_variable = |segment: &Segment| matches!(segment, Segment::Variable(_));
        let ours = self.segments.iter().map(is_variable);
        ours.cmp(other.segments.iter().map(is_variable))
    }

    /// Whether one path can match both, and neither is more specific: where they differ, each has a
    /// variable once.
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        if self.segments.len() != other.segments.len() {
            return false;
        }
        let (mut ours, mut theirs) = (false, false);
        for pair in self.segments.iter().zip(&other.segments) {
            match pair {
                (Segment::Literal(a), Segment::Literal(b)) if a != b => return false,
                (Segment::Literal(a), Segment::Variable(_)) if !is_value(a) => return false,
                (Segment::Variable(_), Segment::Literal(b)) if !is_value(b) => return false,
                (Segment::Literal(_), Segment::Variable(_)) => ours = true,
                (Segment::Variable(_), Segment::Literal(_)) => theirs = true,
                _ => {}
            }
        }
        ours == theirs
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, BadTemplate> {
        if text.is_empty() {
            return Err(bad("has an empty segment; drop the doubled or trailing slash"));
        }
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return variable_name(name).map(Self::Variable);
        }
        if text.contains(['{', '}']) {
            return Err(bad(&format!(
                "has the segment \"{text}\"; a variable is a whole segment, as in \"/events/{{name}}\""
            )));
        }
        if text == "." || text == ".." {
            return Err(bad(
                "has a segment \".\" or \"..\", which clients resolve before they ask",
            ));
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || "%?#".contains(c)) {
            return Err(bad(&format!(
                "has the segment \"{text}\"; write it without spaces, \"%\", \"?\" and \"#\" (it is compared decoded)"
            )));
        }
        Ok(Self::Literal(text.to_owned()))
    }
}

/// The stream key that a route reads: text with `{variable}` anywhere; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    text: String,
    /// Literals and variables as they follow each other.
    parts: Vec<Segment>,
}

impl KeyTemplate {
    /// Reads a template as written in a route.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        if text.is_empty() {
            return Err(bad("is empty; write a stream key, as in \"events:{name}\""));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                rest = &rest[2..];
                continue;
            }
            let (name, after) = rest[1..].split_once('}').filter(|_| rest.starts_with('{')).ok_or_else(
                || bad("has a brace without its other half; write a literal brace twice: \"{{\" or \"}}\""),
            )?;
            push_literal(&mut parts, &mut literal);
            parts.push(Segment::Variable(variable_name(name)?));
            rest = after;
        }
        literal.push_str(rest);
        push_literal(&mut parts, &mut literal);
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The names of its variables, in order; one may repeat.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Segment::Variable(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Whether the key consists of variables only, so that clients could name any key.
    pub fn is_bare(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Segment::Variable(_)))
    }

    /// Whether some values of the variables make it this key. (A variable that occurs twice counts as two,
    /// so the answer is yes for a few keys too many.)
    pub fn may_be(&self, key: &str) -> bool {
        let bytes = key.as_bytes();
        // Where in the key the parts so far can end.
        let mut ends = vec![false; bytes.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            let mut next = vec![false; ends.len()];
            for from in (0..ends.len()).filter(|from| ends[*from]) {
                let rest = &bytes[from..];
                match part {
                    Segment::Literal(literal) if rest.starts_with(literal.as_bytes()) => {
                        next[from + literal.len()] = true;
                    }
                    Segment::Literal(_) => {}
                    Segment::Variable(_) => {
                        let longest = rest.iter().take(VARIABLE_MAX_BYTES);
                        let longest = longest.take_while(|byte| may_be_in_value(**byte)).count();
                        next[from + 1..=from + longest].fill(true);
                    }
                }
            }
            ends = next;
        }
        ends[bytes.len()]
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The stream key for what [`PathTemplate::matches`] found.
    pub fn key(&self, variables: &[(String, String)]) -> String {
        let value = |name: &str| {
            let (_, value) = variables
                .iter()
                .find(|(variable, _)| variable == name)
                .expect("every variable of a key is in its path: the configuration was checked");
            value.as_str()
        };
        self.parts
            .iter()
            .map(|part| match part {
                Segment::Literal(literal) => literal.as_str(),
                Segment::Variable(name) => value(name),
            })
            .collect()
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn push_literal(parts: &mut Vec<Segment>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Segment::Literal(std::mem::take(literal)));
    }
}

fn bad(message: &str) -> BadTemplate {
    BadTemplate(message.to_owned())
}

pub(super) fn variable_name(name: &str) -> Result<String, BadTemplate> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(name.to_owned());
    }
    Err(bad(&format!("has a variable \"{name}\"; name it with letters, digits and \"_\"")))
}

fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok()
}

/// Whether a variable may have this value.
pub(crate) fn is_value(text: &str) -> bool {
    (1..=VARIABLE_MAX_BYTES).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(may_be_in_value)
}

fn may_be_in_value(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

#[cfg(test)]
mod tests;
