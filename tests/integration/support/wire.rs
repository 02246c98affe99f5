//! A TCP proxy in front of Redis whose connections die as they do on a network: reset, ended, or silent
//! in one way or both, at once or in the middle of an answer; or its address answers no more.

use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::redis::Redis;
use super::{DEADLINE, within};

/// How often a silent connection is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A command that is not answered for so long on this machine will not be.
const UNANSWERED: Duration = Duration::from_millis(200);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// A way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToRedis,
    FromRedis,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    Fin,
    Rst,
}

/// The proxy; its connections end with it.
pub struct Wire {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    port: u16,
}

struct Shared {
    redis: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connections: usize,
    /// Ways of connections that are open.
    open: usize,
    /// What is taken and not passed on.
    held: Vec<Way>,
    /// So many bytes from Redis pass before that way is held.
    until_held: Option<usize>,
    /// Connections up to this one never pass anything again.
    lost: usize,
    /// Connections up to this one are closed, and new ones refused.
    closed: Option<(usize, Close)>,
    /// No connection is accepted.
    absent: bool,
    over: bool,
}

impl Wire {
    pub fn to(redis: &Redis) -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let state = Mutex::default();
        let shared = Arc::new(Shared { redis: redis.socket(), state, changed: Condvar::new() });
        let accepting = (shared.clone(), listener.clone());
        std::thread::spawn(move || accepting.0.accept(&accepting.1));
        Self { shared, listener, port }
    }

    /// The `[source] url` of Redis behind it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Takes what comes these ways and passes nothing on.
    pub fn hold(&self, ways: &[Way]) {
        self.change(|state| state.held = ways.to_vec());
    }

    /// Passes so many more bytes from Redis, and then none.
    pub fn hold_answers_after(&self, bytes: usize) {
        self.change(|state| state.until_held = Some(bytes));
    }

    /// Loses all open connections, silently for both sides; new ones are served.
    pub fn lose(&self) {
        self.change(|state| state.lost = state.connections);
    }

    /// Loses all connections, and answers no new one.
    pub fn vanish(&self) {
        self.change(|state| (state.lost, state.absent) = (state.connections, true));
        self.keep_waiting(0);
        // Even then it keeps a few.
        let address = self.listener.local_addr().unwrap();
        while TcpStream::connect_timeout(&address, UNANSWERED).is_ok() {}
    }

    fn keep_waiting(&self, connections: i32) {
        SockRef::from(&*self.listener).listen(connections).unwrap();
    }

    /// Closes all connections, and new ones as soon as they come.
    pub fn close(&self, how: Close) {
        self.change(|state| state.closed = Some((state.connections, how)));
        within(DEADLINE, "all connections are closed", || self.shared.state().open == 0);
    }

    /// Everything is passed on from now on, what was held first.
    pub fn mend(&self) {
        self.keep_waiting(BACKLOG);
        self.change(|state| {
            state.absent = false;
            state.held.clear();
            state.until_held = None;
            state.closed = None;
        });
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.change(|state| state.over = true);
        // The accepting thread looks up once more.
        self.keep_waiting(BACKLOG);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for gateway in listener.incoming() {
            let absent = |state: &mut State| state.absent && !state.over;
            let mut state = self.changed.wait_while(self.state(), absent).unwrap();
            if state.over {
                return;
            }
            let Ok(gateway) = gateway else { continue };
            let Ok(redis) = UnixStream::connect(&self.redis) else { continue };
            state.connections += 1;
            if state.closed.is_some() {
                continue;
            }
            let number = state.connections;
            state.open += 2;
            drop(state);
            gateway.set_nodelay(true).unwrap();
            let (gateway, redis) = (Socket::from(gateway), Socket::from(redis));
            for (way, from, to) in
                [(Way::ToRedis, &gateway, &redis), (Way::FromRedis, &redis, &gateway)]
            {
                from.set_read_timeout(Some(LOOK)).unwrap();
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let shared = self.clone();
                std::thread::spawn(move || shared.pump(number, way, from, to));
            }
        }
    }

    /// Passes on what comes one way until either side, or the test, closes the connection.
    fn pump(&self, number: usize, way: Way, mut from: Socket, mut to: Socket) {
        let mut buffer = [0; 16 << 10];
        let how = loop {
            if let Some(how) = self.state().closes(number) {
                break how;
            }
            match from.read(&mut buffer) {
                Ok(0) => break Close::Fin,
                Ok(length) => {
                    if self.pass(number, way, &buffer[..length], &mut to).is_err() {
                        break Close::Rst;
                    }
                }
                Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => {}
                Err(_) => break Close::Rst,
            }
        };
        // The last of the two that closes the socket says how.
        let gateway = if way == Way::ToRedis { &from } else { &to };
        let _ = match how {
            Close::Fin => gateway.shutdown(Shutdown::Both),
            Close::Rst => gateway.set_linger(Some(Duration::ZERO)),
        };
        drop((from, to));
        self.state().open -= 1;
    }

    fn pass(
        &self,
        number: usize,
        way: Way,
        mut bytes: &[u8],
        to: &mut Socket,
    ) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let waits =
                |state: &mut State| state.closes(number).is_none() && state.room(number, way) == 0;
            let mut state = self.changed.wait_while(self.state(), waits).unwrap();
            let may = state.room(number, way).min(bytes.len());
            if may == 0 {
                return Ok(());
            }
            if let (Way::FromRedis, Some(left)) = (way, &mut state.until_held) {
                *left -= may;
            }
            drop(state);
            to.write_all(&bytes[..may])?;
            bytes = &bytes[may..];
        }
        Ok(())
    }
}

impl State {
    /// How this connection is to be closed now, if it is.
    fn closes(&self, number: usize) -> Option<Close> {
        let of_all = self.over.then_some(Close::Fin);
        of_all.or(self.closed.filter(|(last, _)| number <= *last).map(|(_, how)| how))
    }

    /// How many bytes may pass now.
    fn room(&self, number: usize, way: Way) -> usize {
        if number <= self.lost || self.held.contains(&way) {
            return 0;
        }
        let limit = self.until_held.filter(|_| way == Way::FromRedis);
        limit.unwrap_or(usize::MAX)
    }
}
