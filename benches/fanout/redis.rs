//! As much of the Redis protocol as the writer and the floor need, on a bare socket: a client
//! library would add its own cost to the floor, and its own bugs to the proof.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The `nth` stream key of a run.
pub(crate) fn key(nth: u64) -> String {
    format!("events:{nth}")
}

/// A number that `INFO` tells.
pub(crate) fn info(path: &Path, name: &str) -> Result<f64> {
    let mut redis = Redis::connect(path)?;
    redis.queue(&[b"INFO"]);
    redis.flush()?;
    let text = String::from_utf8_lossy(&redis.reply()?.text()).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .with_context(|| format!("INFO does not tell {name}"))?
        .trim()
        .parse()
        .context("not a number")
}

/// CPU seconds of the server so far.
pub(crate) fn cpu_seconds(path: &Path) -> Result<f64> {
    Ok(info(path, "used_cpu_sys")? + info(path, "used_cpu_user")?)
}

/// A reply; nil is an empty text.
pub(crate) enum Reply {
    Text(Vec<u8>),
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn array(self) -> std::vec::IntoIter<Reply> {
        if let Reply::Array(items) = self { items.into_iter() } else { Vec::new().into_iter() }
    }

    pub(crate) fn text(self) -> Vec<u8> {
        if let Reply::Text(text) = self { text } else { Vec::new() }
    }
}

/// A blocking connection.
pub(crate) struct Redis {
    pub(crate) socket: BufReader<UnixStream>,
    unsent: Vec<u8>,
}

impl Redis {
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path)
            .with_context(|| format!("cannot reach Redis at {}", path.display()))?;
        Ok(Self { socket: BufReader::with_capacity(64 << 10, socket), unsent: Vec::new() })
    }

    /// Queues a command; [`Redis::flush`] sends all that are queued.
    pub(crate) fn queue(&mut self, words: &[&[u8]]) {
        self.unsent.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.unsent.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.unsent.extend_from_slice(word);
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.socket.get_mut().write_all(&self.unsent).context("writing to Redis")?;
        self.unsent.clear();
        Ok(())
    }

    pub(crate) fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.socket.read_line(&mut line).context("reading from Redis")?;
        let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
            bail!("Redis closed the connection");
        };
        match kind {
            "$" | "*" if rest == "-1" => Ok(Reply::Text(Vec::new())),
            "+" | ":" => Ok(Reply::Text(rest.into())),
            "$" => {
                let mut text = vec![0; rest.parse::<usize>()? + 2];
                self.socket.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                Ok(Reply::Text(text))
            }
            "*" => {
                let items = (0..rest.parse::<usize>()?).map(|_| self.reply());
                Ok(Reply::Array(items.collect::<Result<_>>()?))
            }
            _ => bail!("Redis said: {line}"),
        }
    }
}
