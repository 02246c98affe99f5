//! Addresses and ports that nobody else on this machine uses, whatever runs beside the tests: other tests,
//! another run of them, or the machine's own servers.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// The process that holds this port of a block's first address has the block.
const LOCK_PORT: u16 = 6379;

/// The addresses `127.A.B.1` to `127.A.B.254`, of this process as long as it lives.
struct Block {
    _lock: UdpSocket,
    network: (u8, u8),
    taken: u8,
}

static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A loopback address that nobody else uses, neither before nor after.
pub fn own_ip() -> String {
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    if blocks.last().is_none_or(|block| block.taken == 254) {
        blocks.push(free_block());
    }
    let block = blocks.last_mut().expect("one was pushed");
    block.taken += 1;
    let (a, b) = block.network;
    format!("127.{a}.{b}.{}", block.taken)
}

fn free_block() -> Block {
    // Not 127.0: that is where everything else is.
    let networks = (1..=254_u8).flat_map(|a| (0..=255_u8).map(move |b| (a, b)));
    let mut free = networks.filter_map(|(a, b)| {
        let lock = UdpSocket::bind((format!("127.{a}.{b}.0"), LOCK_PORT)).ok()?;
        Some(Block { _lock: lock, network: (a, b), taken: 0 })
    });
    free.next().expect("some block of loopback addresses is free")
}

/// A port of an address of its own, for a program to listen on: it stays free, for no outgoing connection comes
/// from there.
pub fn own_address() -> SocketAddr {
    let [address] = own_addresses();
    address
}

/// So many of one address.
pub fn own_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let ip = own_ip();
    // All are held until all are known, so that they differ.
    let held =
        [(); COUNT].map(|()| TcpListener::bind((ip.as_str(), 0)).expect("it has free ports"));
    held.each_ref().map(|listener| listener.local_addr().expect("it is bound"))
}
