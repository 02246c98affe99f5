//! Slow viewers: clients with a tiny receive buffer that read far less than is sent to them, in a process of their own.
//! Says the port of the first on standard output, and at the end what they received.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::clients::request;
use crate::tally::{Progress, Tally};

/// As asked for with `SO_RCVBUF`; the kernel doubles it.
const RECEIVE_BUFFER_BYTES: usize = 8 << 10;
/// How often each reads.
const INTERVAL: Duration = Duration::from_millis(250);

/// The slow ones.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) clients: u64,
    /// Read at a time by each, four times a second.
    pub(crate) piece_bytes: usize,
    pub(crate) seconds: u64,
    /// The route conflates: they may be spared entries.
    #[arg(long)]
    pub(crate) conflated: bool,
}

/// Reads for so many seconds; what they were sent is less than they are owed, but must be in order.
pub(crate) fn run(settings: Settings) -> Result<()> {
    let Settings { address, clients, piece_bytes, seconds, conflated } = settings;
    let sockets = (0..clients).map(|_| connect(address)).collect::<Result<Vec<_>>>()?;
    let first = sockets.first().context("there must be one")?;
    println!("{}", first.local_addr()?.port());
    let mut tally = Tally::new(1);
    tally.may_be_spared = conflated;
    let mut all: Vec<_> = sockets.into_iter().map(|socket| (socket, Progress::new(0, 0))).collect();
    let mut piece = vec![0; piece_bytes];
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        all.retain_mut(|(socket, client)| match socket.read(&mut piece) {
            Ok(0) => {
                tally.ended(|| "the server closed the slow stream".to_owned());
                false
            }
            Ok(count) => {
                tally.take(client, &piece[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => {
                tally.ended(|| format!("the slow stream broke: {error}"));
                false
            }
        });
        thread::sleep(INTERVAL);
    }
    println!("{}", tally.report());
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Before it connects: the window is agreed upon then.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.connect(&address.into()).context("the slow client cannot connect")?;
    let mut socket = TcpStream::from(socket);
    socket.write_all(request(0).as_bytes())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
