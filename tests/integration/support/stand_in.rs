//! A server that stands in for Redis: it passes each command on, and answers some in its own way, as other makes,
//! proxies, managed services and newer versions do. It passes RESP2 on: where no rule says otherwise, it knows no `HELLO`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::redis::Redis;

/// What becomes of a command.
pub enum Treatment {
    /// Redis answers it.
    Pass,
    /// It gets this answer, and Redis does not hear of it.
    Answer(Vec<u8>),
    /// What Redis answers is replaced.
    Rewrite(Box<dyn Fn(Vec<u8>) -> Vec<u8>>),
    /// It gets this answer, and then the connection is closed.
    AnswerAndClose(Vec<u8>),
    /// Redis answers it; once another command has come, if it came together with the one before.
    LaterIfAlong,
}

type Rule = dyn Fn(&[String]) -> Treatment + Send + Sync;

/// The stand-in; it listens for as long as the tests run.
pub struct StandIn {
    /// `HOST:PORT`
    pub address: String,
}

impl StandIn {
    /// `rule` says how each command is treated; it may wait before it answers.
    pub fn before(
        redis: &Redis,
        rule: impl Fn(&[String]) -> Treatment + Send + Sync + 'static,
    ) -> Self {
        Self::at(Arc::new(Mutex::new(redis.socket())), rule)
    }

    /// Each connection leads to the server that is named when it is opened.
    pub fn at(
        named: Arc<Mutex<PathBuf>>,
        rule: impl Fn(&[String]) -> Treatment + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let rule: Arc<Rule> = Arc::new(rule);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (socket, rule) = (named.lock().unwrap().clone(), rule.clone());
                std::thread::spawn(move || {
                    serve(&client, &UnixStream::connect(socket).ok()?, &*rule)
                });
            }
        });
        Self { address }
    }

    /// The `[source] url` of it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

/// Until either side closes.
fn serve(client: &TcpStream, redis: &UnixStream, rule: &Rule) -> Option<()> {
    let (mut from_client, mut from_redis) = (BufReader::new(client), BufReader::new(redis));
    let (mut to_client, mut to_redis) = (client, redis);
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        let came_along = !from_client.buffer().is_empty();
        let command = value(&mut from_client)?;
        for command in std::mem::take(&mut held) {
            to_redis.write_all(&command).ok()?;
            to_client.write_all(&value(&mut from_redis)?).ok()?;
        }
        let words = words(&command);
        let treatment = match rule(&words) {
            Treatment::Pass if words.first().is_some_and(|word| word == "HELLO") => {
                Treatment::Answer(b"-ERR unknown command 'HELLO'\r\n".to_vec())
            }
            treatment => treatment,
        };
        match treatment {
            Treatment::LaterIfAlong if came_along => held.push(command),
            Treatment::Pass | Treatment::LaterIfAlong => {
                to_redis.write_all(&command).ok()?;
                to_client.write_all(&value(&mut from_redis)?).ok()?;
            }
            Treatment::Rewrite(rewrite) => {
                to_redis.write_all(&command).ok()?;
                to_client.write_all(&rewrite(value(&mut from_redis)?)).ok()?;
            }
            Treatment::Answer(answer) => to_client.write_all(&answer).ok()?,
            Treatment::AnswerAndClose(answer) => {
                to_client.write_all(&answer).ok()?;
                return None;
            }
        }
    }
}

/// The bytes of one command or answer.
fn value(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes).ok().filter(|read| *read > 0)?;
    let length = std::str::from_utf8(&bytes[1..]).ok()?.trim_end().parse::<usize>().ok();
    match (bytes[0], length) {
        (b'*', Some(length)) => {
            for _ in 0..length {
                bytes.extend(value(from)?);
            }
        }
        (b'$', Some(length)) => {
            let mut content = vec![0; length + 2];
            from.read_exact(&mut content).ok()?;
            bytes.extend(content);
        }
        _ => {}
    }
    Some(bytes)
}

/// The words of a command; its name, and that of a subcommand, in capitals.
fn words(command: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(command);
    let mut words: Vec<_> = if text.starts_with('*') {
        text.strip_suffix("\r\n")
            .unwrap_or(&text)
            .split("\r\n")
            .skip(2)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    words.iter_mut().take(2).for_each(|word| word.make_ascii_uppercase());
    words
}
