//! The floor: the least that any fan-out on this kernel must do. One thread and one `XREAD`; an
//! event is encoded once and sent with one `send(2)` per client. No request is understood,
//! nothing is kept for replay, nobody is counted. It runs in a process of its own, so that its
//! CPU time is its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::redis::{KEY, Redis, Reply};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\nConnection: close\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

/// Serves until killed. Each thread has its own clients and its own connection to Redis.
pub(crate) fn run(address: SocketAddr, redis: &Path, threads: u64) -> Result<()> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("the floor cannot bind {address}"))?;
    // Several threads may wake for one client; those that come too late must not block.
    listener.set_nonblocking(true)?;
    thread::scope(|scope| {
        let serve =
            || Floor { redis: Redis::connect(redis)?, clients: Vec::new() }.serve(&listener);
        for _ in 1..threads {
            scope.spawn(serve);
        }
        serve()
    })
}

struct Floor {
    redis: Redis,
    clients: Vec<TcpStream>,
}

impl Floor {
    fn serve(mut self, listener: &TcpListener) -> Result<()> {
        self.ask(b"0-0")?;
        loop {
            let (arrivals, entries) = {
                let arrivals = PollFd::new(listener, PollFlags::IN);
                let mut sources =
                    [arrivals, PollFd::new(self.redis.socket.get_ref(), PollFlags::IN)];
                poll(&mut sources, None)?;
                (!sources[0].revents().is_empty(), !sources[1].revents().is_empty())
            };
            if arrivals {
                self.accept(listener)?;
            }
            if entries {
                self.deliver()?;
            }
        }
    }

    fn ask(&mut self, cursor: &[u8]) -> Result<()> {
        let words = [b"XREAD".as_slice(), b"COUNT", b"500", b"BLOCK", b"0", b"STREAMS"];
        self.redis.queue(&[&words[..], &[KEY.as_bytes(), cursor]].concat());
        self.redis.flush()
    }

    /// Our clients send their request, in one piece, as soon as they are connected.
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("the floor cannot accept"),
        };
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let requested = socket.read(&mut [0; 4096]).is_ok_and(|count| count > 0);
        if requested && socket.write_all(HEAD).is_ok() {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            self.clients.push(socket);
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<()> {
        let reply = self.redis.reply()?;
        let mut cursor = Vec::new();
        for entry in reply.array().filter_map(|stream| stream.array().nth(1)).flat_map(Reply::array)
        {
            let mut parts = entry.array();
            cursor = parts.next().map(Reply::text).unwrap_or_default();
            let payload = parts.next().and_then(|fields| fields.array().nth(1));
            let event = encode(&cursor, &payload.map(Reply::text).unwrap_or_default());
            self.clients.retain_mut(|client| send(client, &event).is_ok());
        }
        self.ask(&cursor)
    }
}

fn encode(id: &[u8], payload: &[u8]) -> Vec<u8> {
    let event = [b"id: ", id, b"\nevent: message\ndata: ", payload, b"\n\n"].concat();
    [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat()
}

/// One `send(2)`; only a client whose socket is full costs more, and everyone waits for it.
fn send(socket: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&*socket, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
