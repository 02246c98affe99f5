//! A state, as a client gets it before the entries that follow: one event, or several for a large one.

use bytes::Bytes;

use super::StreamId;
use super::line::write_line;
use super::render::{json_string, write_data};

/// The type of the events that hold a state.
pub const SNAPSHOT_EVENT: &str = "snapshot";

/// A state: what a Redis key holds, or what stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no such key.
    Missing,
    /// A string, or the text of a JSON document.
    Text(Bytes),
    /// The members of a list or a set.
    Members(Vec<Bytes>),
    /// The fields of a hash, with their values.
    Fields(Vec<(Bytes, Bytes)>),
    /// The members of a sorted set, with their scores.
    Scores(Vec<(Bytes, Bytes)>),
}

impl State {
    /// About how many bytes it has as JSON.
    pub fn size_bytes(&self) -> usize {
        let pair = |(name, value): &(Bytes, Bytes)| name.len() + value.len() + 6;
        match self {
            Self::Missing => 4,
            Self::Text(text) => text.len(),
            Self::Members(members) => members.iter().map(|member| member.len() + 3).sum(),
            Self::Fields(pairs) | Self::Scores(pairs) => pairs.iter().map(pair).sum(),
        }
    }

    /// The events that tell it, each whole. The data of one has no more than `most_bytes`, unless it is a single
    /// member. Where it takes several, the data of each is a JSON object: its number `part`, their number `of`, and
    /// its `value`, which is some of the members or a piece of the text. The last one makes `id` the client's last
    /// event id: a client that has not had all of them begins anew.
    pub fn events(&self, id: StreamId, most_bytes: usize) -> Vec<Vec<u8>> {
        let parts = self.parts(most_bytes);
        let of = parts.len();
        let mut events: Vec<Vec<u8>> = Vec::with_capacity(of);
        for (part, data) in (1..).zip(parts) {
            let data = match of {
                1 => data,
                _ => format!(r#"{{"part":{part},"of":{of},"value":{data}}}"#),
            };
            let mut event = Vec::with_capacity(data.len() + 64);
            if part == of {
                write_line(&mut event, "id", &id.to_string());
            }
            write_line(&mut event, "event", SNAPSHOT_EVENT);
            write_data(&mut event, &data);
            events.push(event);
        }
        events
    }

    /// The data of its one event, or the values of several.
    fn parts(&self, most_bytes: usize) -> Vec<String> {
        let list = |members: Vec<String>| grouped("[", &members, "]", most_bytes);
        match self {
            Self::Missing => vec!["null".into()],
            Self::Text(text) => text_parts(&String::from_utf8_lossy(text), most_bytes),
            Self::Members(members) => list(members.iter().map(|member| json(member)).collect()),
            Self::Scores(scores) => list(
                scores
                    .iter()
                    .map(|(member, score)| format!("[{},{}]", json(member), number(score)))
                    .collect(),
            ),
            Self::Fields(fields) => {
                let member =
                    |(name, value): &(Bytes, Bytes)| format!("{}:{}", json(name), json(value));
                let members: Vec<_> = fields.iter().map(member).collect();
                grouped("{", &members, "}", most_bytes)
            }
        }
    }
}

fn json(text: &[u8]) -> String {
    json_string(&String::from_utf8_lossy(text))
}

/// A score as JSON, which has no infinity.
fn number(score: &[u8]) -> String {
    let text = String::from_utf8_lossy(score);
    let is_finite = text.parse::<f64>().is_ok_and(f64::is_finite);
    if is_finite && serde_json::from_str::<serde_json::Number>(&text).is_ok() {
        text.into_owned()
    } else {
        json_string(&text)
    }
}

/// The text itself, or JSON strings of its pieces.
fn text_parts(text: &str, most_bytes: usize) -> Vec<String> {
    if text.len() <= most_bytes {
        return vec![text.to_owned()];
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = (1..=most_bytes.min(rest.len())).rev().find(|end| rest.is_char_boundary(*end));
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        parts.push(json_string(piece));
        rest = after;
    }
    parts
}

/// Lists of these members, each of about `most_bytes`; at least one.
fn grouped(open: &str, members: &[String], close: &str, most_bytes: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::from(open);
    for member in members {
        let is_first = part.len() == open.len();
        if !is_first && part.len() + member.len() + 2 > most_bytes {
            part.push_str(close);
            parts.push(std::mem::replace(&mut part, format!("{open}{member}")));
            continue;
        }
        if !is_first {
            part.push(',');
        }
        part.push_str(member);
    }
    part.push_str(close);
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StreamId = StreamId { ms: 7, seq: 1 };

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn text_of(events: &[Vec<u8>]) -> String {
        String::from_utf8(events.concat()).unwrap()
    }

    #[test]
    fn a_small_state_is_one_event() {
        let pairs = vec![(bytes("a"), bytes("1")), (bytes("b\""), bytes("2\n"))];
        let wire = |state: State| text_of(&state.events(ID, 1000));
        assert_eq!(wire(State::Missing), "id: 7-1\nevent: snapshot\ndata: null\n\n");
        assert_eq!(
            wire(State::Text(bytes("x\ny"))),
            "id: 7-1\nevent: snapshot\ndata: x\ndata: y\n\n"
        );
        let fields = wire(State::Fields(pairs));
        assert!(fields.contains(r#"data: {"a":"1","b\"":"2\n"}"#), "{fields}");
        assert!(wire(State::Members(Vec::new())).contains("data: []\n"));
        let scores = ["1.5", "1e+22", "inf", "-inf", "3"].map(|score| (bytes("m"), bytes(score)));
        let scores = wire(State::Scores(scores.into()));
        let expected = r#"[["m",1.5],["m",1e+22],["m","inf"],["m","-inf"],["m",3]]"#;
        assert!(scores.contains(expected), "{scores}");
    }

    #[test]
    fn a_large_state_comes_in_parts_of_which_the_last_has_the_id() {
        let fields: Vec<_> = (0..50).map(|n| (bytes(&format!("f{n}")), bytes("value"))).collect();
        let text = "text with ümlauts ".repeat(9);
        for (state, most) in [(State::Fields(fields), 100), (State::Text(bytes(&text)), 40)] {
            let events = state.events(ID, most);
            assert!(events.len() > 3);
            let mut together = Vec::new();
            for (index, event) in events.iter().enumerate() {
                let event = String::from_utf8(event.clone()).unwrap();
                assert_eq!(event.contains("id: 7-1\n"), index + 1 == events.len());
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                let part: serde_json::Value = serde_json::from_str(data).unwrap();
                assert_eq!(
                    (&part["part"], &part["of"]),
                    (&(index + 1).into(), &events.len().into())
                );
                together.push(part["value"].clone());
            }
            match &together[0] {
                serde_json::Value::String(_) => {
                    let joined: String =
                        together.iter().map(|part| part.as_str().unwrap()).collect();
                    assert_eq!(joined, text);
                }
                _ => assert_eq!(
                    together.iter().map(|part| part.as_object().unwrap().len()).sum::<usize>(),
                    50
                ),
            }
        }
    }
}
