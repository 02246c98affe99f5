//! The slow viewer: a client with a tiny receive buffer that reads far less than is sent to it, in
//! a process of its own. Says its port on standard output, and at the end what it received.

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
/// Read at a time, four times a second: 4 KB/s.
const PIECE_BYTES: usize = 1000;
const INTERVAL: Duration = Duration::from_millis(250);

/// Reads for `seconds`; what it was sent is less than it is owed, but must be in order.
pub(crate) fn run(address: SocketAddr, seconds: u64) -> Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Before it connects: the window is agreed upon then.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.connect(&address.into()).context("the slow client cannot connect")?;
    let mut socket = TcpStream::from(socket);
    socket.write_all(request(0).as_bytes())?;
    println!("{}", socket.local_addr()?.port());
    let (mut tally, mut client) = (Tally::new(1), Progress::new(0, 0));
    let mut piece = [0; PIECE_BYTES];
    let end = Instant::now() + Duration::from_secs(seconds);
    socket.set_read_timeout(Some(INTERVAL))?;
    while Instant::now() < end {
        match socket.read(&mut piece) {
            Ok(0) => {
                tally.ended(|| "the server closed the slow stream".to_owned());
                break;
            }
            Ok(count) => {
                tally.take(&mut client, &piece[..count]);
                thread::sleep(INTERVAL);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                tally.ended(|| format!("the slow stream broke: {error}"));
                break;
            }
        }
    }
    println!("{}", tally.report());
    Ok(())
}
