//! The chunks of an HTTP/1.1 body, decoded as they come and to the letter.

/// Where in the framing the next byte is.
#[derive(Default)]
enum State {
    /// In the line with the size.
    #[default]
    Size,
    /// So many bytes of data are to come.
    Data(usize),
    /// The line break after the data, or after the last chunk.
    End { last: bool },
    /// The body is complete.
    Complete,
}

/// An incremental decoder.
#[derive(Default)]
pub struct Chunks {
    state: State,
    /// Of the size, or of the line break.
    line: Vec<u8>,
}

impl Chunks {
    /// Whether the last chunk was there.
    pub fn complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Appends what these bytes carry to `body`; says what is wrong with the framing.
    pub fn feed(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> Result<(), String> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.state {
                State::Data(left) => {
                    let (data, other) = bytes.split_at(left.min(bytes.len()));
                    body.extend_from_slice(data);
                    bytes = other;
                    let left = left - data.len();
                    self.state =
                        if left == 0 { State::End { last: false } } else { State::Data(left) };
                    continue;
                }
                State::Complete => return Err("bytes after the last chunk".into()),
                State::Size | State::End { .. } => self.line.push(*first),
            }
            bytes = rest;
            if self.line.len() > 18 {
                return Err(format!("not the size of a chunk: {:?}", self.line));
            }
            if self.line.ends_with(b"\r\n") {
                self.end_of_line()?;
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
        self.state = match self.state {
            State::End { last: false } if text.is_empty() => State::Size,
            State::End { last: true } if text.is_empty() => State::Complete,
            State::Size => match usize::from_str_radix(&text, 16) {
                Ok(0) => State::End { last: true },
                Ok(size) => State::Data(size),
                Err(_) => return Err(format!("not the size of a chunk: {text:?}")),
            },
            _ => return Err(format!("a chunk ends with {text:?}")),
        };
        Ok(())
    }
}
