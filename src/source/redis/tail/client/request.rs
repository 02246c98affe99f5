//! A request: one or more commands that go to Redis in one write.

use super::resp::write_command;

/// Commands for one write, encoded.
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// Where each command begins.
    starts: Vec<usize>,
    max_answer_bytes: usize,
    repeats_last: bool,
}

impl Request {
    pub(crate) fn new(words: &[&[u8]]) -> Self {
        let length: usize = words.iter().map(|word| word.len() + 16).sum();
        Self {
            bytes: Vec::with_capacity(length),
            starts: Vec::with_capacity(2),
            max_answer_bytes: usize::MAX,
            repeats_last: false,
        }
        .and(words)
    }

    /// Several commands.
    pub(crate) fn all<'a>(commands: impl IntoIterator<Item = Vec<&'a [u8]>>) -> Self {
        let none = Self {
            bytes: Vec::new(),
            starts: Vec::new(),
            max_answer_bytes: usize::MAX,
            repeats_last: false,
        };
        commands.into_iter().fold(none, |request, words| request.and(&words))
    }

    /// Adds a command.
    pub(crate) fn and(mut self, words: &[&[u8]]) -> Self {
        self.starts.push(self.bytes.len());
        write_command(&mut self.bytes, words);
        self
    }

    /// Limits the memory that all answers together may take; larger ones are abandoned.
    pub(crate) fn with_max_answer_bytes(mut self, max_bytes: usize) -> Self {
        self.max_answer_bytes = max_bytes;
        self
    }

    /// Its last command changes nothing, and is sent once more if the server does not begin to answer it when it
    /// has answered those before.
    pub(crate) fn repeating_last(mut self) -> Self {
        self.repeats_last = self.starts.len() > 1;
        self
    }

    /// What to send once more after so many answers, if the next one is late; never the first command.
    pub(super) fn repeated(&self, answered: usize) -> Option<&[u8]> {
        let last = self.starts.len() - 1;
        (self.repeats_last && last > 0 && answered == last)
            .then(|| &self.bytes[self.starts[last]..])
    }

    pub(crate) fn max_answer_bytes(&self) -> usize {
        self.max_answer_bytes
    }

    /// All commands, as they go on the wire.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of commands, and so of answers.
    pub(super) fn commands(&self) -> usize {
        self.starts.len()
    }

    /// The same commands, with an `ASKING` before each.
    pub(super) fn asking(&self) -> Self {
        let mut asking = Self {
            bytes: Vec::new(),
            starts: Vec::new(),
            max_answer_bytes: self.max_answer_bytes,
            repeats_last: false,
        };
        let end = self.bytes.len();
        let ends = self.starts.iter().skip(1).chain(std::iter::once(&end));
        for (start, end) in self.starts.iter().zip(ends) {
            asking = asking.and(&[b"ASKING"]);
            asking.starts.push(asking.bytes.len());
            asking.bytes.extend_from_slice(&self.bytes[*start..*end]);
        }
        asking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_goes_before_each_command() {
        let asking = Request::new(&[b"A"]).and(&[b"B", b"c"]).asking();
        let ask = "*1\r\n$6\r\nASKING\r\n";
        let written = format!("{ask}*1\r\n$1\r\nA\r\n{ask}*2\r\n$1\r\nB\r\n$1\r\nc\r\n");
        assert_eq!(std::str::from_utf8(asking.bytes()).unwrap(), written);
        assert_eq!(asking.commands(), 4);
    }
}
