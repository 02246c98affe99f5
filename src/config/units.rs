//! Values as written in gateway.toml or in an environment variable, and the functions that read them. A
//! reading function returns the value, or a message that says what is wrong and what would be right.

use std::fmt;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum WrittenValue {
    Text(String),
    Integer(i128),
    Flag(bool),
    /// Elements with their offsets in the file.
    List(Vec<(usize, WrittenValue)>),
    Table(Vec<Item>),
    /// What no key takes: floats and dates.
    Other(&'static str),
}

/// A key and its value in a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) name: String,
    /// Offset of the key, or of a section's header, in the file.
    pub(super) name_at: usize,
    /// Offset of the value in the file.
    pub(super) at: usize,
    pub(super) value: WrittenValue,
}

/// The items of a table in the order of the file.
pub(super) fn items(table: &DeTable<'_>) -> Vec<Item> {
    let mut items: Vec<Item> = table
        .iter()
        .map(|(name, value)| Item {
            name: name.get_ref().to_string(),
            name_at: name.span().start,
            at: value.span().start,
            value: WrittenValue::from_toml(value.get_ref()),
        })
        .collect();
    items.sort_by_key(|item| item.name_at);
    items
}

/// Takes the item `name` out of `items`.
pub(super) fn take(items: &mut Vec<Item>, name: &str) -> Option<Item> {
    let at = items.iter().position(|item| item.name == name)?;
    Some(items.remove(at))
}

impl WrittenValue {
    fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("a number out of range"), Self::Integer),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Array(elements) => Self::List(
                elements
                    .iter()
                    .map(|element| (element.span().start, Self::from_toml(element.get_ref())))
                    .collect(),
            ),
            DeValue::Table(table) => Self::Table(items(table)),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Datetime(_) => Self::Other("a date"),
        }
    }

    /// The value of an environment variable, in the form of the key's default: lists take commas, numbers
    /// and flags are plain. A text that does not fit the form stays a text.
    pub(super) fn from_variable(text: &str, default: &Self) -> Self {
        let plain = || Self::Text(text.to_owned());
        match default {
            Self::Integer(_) => text.parse().map_or_else(|_| plain(), Self::Integer),
            Self::Flag(_) => text.parse().map_or_else(|_| plain(), Self::Flag),
            Self::List(_) => Self::list(text.split(',').map(str::trim).filter(|t| !t.is_empty())),
            _ => plain(),
        }
    }

    /// A list of texts that is not in a file.
    pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::List(texts.into_iter().map(|text| (0, Self::from(text))).collect())
    }
}

impl From<&str> for WrittenValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// As TOML.
impl fmt::Display for WrittenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::List(elements) => {
                let elements: Vec<String> = elements.iter().map(|(_, e)| e.to_string()).collect();
                write!(f, "[{}]", elements.join(", "))
            }
            Self::Table(items) if items.is_empty() => f.write_str("{}"),
            Self::Table(items) => {
                let item = |item: &Item| format!("{} = {}", key(&item.name), item.value);
                let items: Vec<String> = items.iter().map(item).collect();
                write!(f, "{{ {} }}", items.join(", "))
            }
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// A key of a table, in quotes where TOML asks for them.
fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A basic string of TOML, on one line. JSON escapes all that TOML requires, except DEL.
fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string is always JSON");
    json.replace('\u{7f}', "\\u007F")
}

pub(super) fn text(written: &WrittenValue) -> Result<String, String> {
    match written {
        WrittenValue::Text(text) => Ok(text.clone()),
        _ => Err("not a text; write it in quotes".into()),
    }
}

/// The name of an entry's field.
pub(super) fn field(written: &WrittenValue) -> Result<String, String> {
    match written {
        WrittenValue::Text(name) if !name.is_empty() => Ok(name.clone()),
        _ => Err("not an entry's field; write its name, as in \"payload\"".into()),
    }
}

pub(super) fn flag(written: &WrittenValue) -> Result<bool, String> {
    match written {
        WrittenValue::Flag(flag) => Ok(*flag),
        _ => Err("neither true nor false; write one of them, without quotes".into()),
    }
}

pub(super) fn count(written: &WrittenValue) -> Result<u64, String> {
    match written {
        WrittenValue::Integer(number) => {
            u64::try_from(*number).map_err(|_| "out of range; write a number from 0 up".into())
        }
        _ => Err("not a whole number; write it in digits, without quotes".into()),
    }
}

/// `"250ms"`, `"15s"`, `"5m"`, `"1h"`, `"1d"`.
pub(super) fn duration(written: &WrittenValue) -> Result<Duration, String> {
    let wrong =
        || String::from("not a duration; write a number and a unit, as in \"15s\" or \"250ms\"");
    let WrittenValue::Text(text) = written else { return Err(wrong()) };
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// `"128KiB"`, `"8MiB"`, `"1GiB"`, `"512B"`; without a unit, or as a number: bytes.
pub(super) fn size_bytes(written: &WrittenValue) -> Result<usize, String> {
    let wrong =
        || String::from("not a size; write a number and a unit, as in \"128KiB\" or \"8MiB\"");
    let (number, unit) = match written {
        WrittenValue::Integer(number) => (u64::try_from(*number).map_err(|_| wrong())?, ""),
        WrittenValue::Text(text) => number_and_unit(text).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let unit_bytes: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = number.checked_mul(unit_bytes).ok_or_else(wrong)?;
    usize::try_from(bytes).map_err(|_| wrong())
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

/// Reads `written`, which has to be between `least` and `most`.
pub(super) fn within<T: PartialOrd>(
    written: &WrittenValue,
    read: fn(&WrittenValue) -> Result<T, String>,
    least: &WrittenValue,
    most: &WrittenValue,
) -> Result<T, String> {
    let value = read(written)?;
    let bound = |bound| read(bound).expect("the bounds are written correctly");
    if bound(least) <= value && value <= bound(most) {
        return Ok(value);
    }
    Err(format!("out of range; write a value from {least} to {most}"))
}
