//! A TCP proxy that misbehaves when told to: it delays, stalls, halves, truncates and resets.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::support::waiting::pause_of_the_scenario_in_a_task;

/// Read at once.
const PIECE_BYTES: usize = 16 << 10;
/// What the kernel takes from a server while the proxy reads nothing.
const AHEAD_BYTES: u32 = 8 << 10;
/// After an end in mid-answer the connection stays half open for so long.
const FIN_AHEAD: Duration = Duration::from_millis(200);

/// What a connection suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// Nothing.
    Well,
    /// Each piece comes up to this much later.
    Slow(Duration),
    /// Open, and nothing passes.
    Stalled,
    /// Only what the client says passes.
    Deaf,
    /// Half of the next answer passes, and then nothing.
    Halved,
    /// Half of the next answer passes, then the end (FIN).
    Truncated,
    /// Both sides see a reset, at once.
    Reset,
}

/// Where it connects to.
#[derive(Clone)]
pub enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A running proxy, stopped on drop.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    ward: Arc<Mutex<Ward>>,
    listening: AbortHandle,
}

/// What new connections suffer from, and the connections that are open.
struct Ward {
    newcomers: Ill,
    open: Vec<watch::Sender<Ill>>,
}

impl Proxy {
    /// Listens on a port of this host.
    pub fn start(runtime: &Handle, host: &str, upstream: Upstream, rng: fastrand::Rng) -> Self {
        let listener = runtime.block_on(TcpListener::bind((host, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let ward = Arc::new(Mutex::new(Ward { newcomers: Ill::Well, open: Vec::new() }));
        let listening = runtime.spawn(accept(listener, upstream, ward.clone(), rng)).abort_handle();
        Self { address, ward, listening }
    }

    /// The connections that are open now.
    pub fn strike(&self, ill: Ill) {
        self.ward.lock().unwrap().strike(ill);
    }

    /// Those, and every new connection until [`Self::heal`].
    pub fn strike_all(&self, ill: Ill) {
        let mut ward = self.ward.lock().unwrap();
        ward.newcomers = ill;
        ward.strike(ill);
    }

    /// What was held back is passed on.
    pub fn heal(&self) {
        self.strike_all(Ill::Well);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.strike_all(Ill::Reset);
    }
}

impl Ward {
    fn strike(&mut self, ill: Ill) {
        self.open.retain(|connection| connection.send(ill).is_ok());
        if ill == Ill::Reset {
            // It is ending already: a later order would only overtake this one.
            self.open.clear();
        }
    }
}

async fn accept(
    listener: TcpListener,
    upstream: Upstream,
    ward: Arc<Mutex<Ward>>,
    mut rng: fastrand::Rng,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let ill = {
            let mut ward = ward.lock().unwrap();
            let (sender, ill) = watch::channel(ward.newcomers);
            ward.open.push(sender);
            ill
        };
        let (upstream, rng) = (upstream.clone(), rng.fork());
        tokio::spawn(async move {
            let _ = client.set_nodelay(true);
            // No server upstream: the client sees an end without an answer.
            let _ = match upstream {
                Upstream::Tcp(address) => match connect(address).await {
                    Ok(server) => serve(client, server, ill, rng).await,
                    Err(error) => Err(error),
                },
                Upstream::Unix(path) => match UnixStream::connect(path).await {
                    Ok(server) => serve(client, server, ill, rng).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

/// Takes little ahead, so that a stalled end behind it is soon felt.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(AHEAD_BYTES)?;
    socket.connect(address).await
}

async fn serve(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    ill: watch::Receiver<Ill>,
    mut rng: fastrand::Rng,
) -> io::Result<()> {
    let mut watched = ill.clone();
    // A reset is what a close without lingering makes; a TCP server sees an end of the same kind.
    let abort = SockRef::from(&client).try_clone()?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    let both = async {
        tokio::try_join!(
            pump(from_client, to_server, ill.clone(), false, rng.fork()),
            pump(from_server, to_client, ill, true, rng)
        )
        .map(drop)
    };
    tokio::select! {
        outcome = both => outcome,
        _ = watched.wait_for(|ill| *ill == Ill::Reset) => abort.set_linger(Some(Duration::ZERO)),
    }
}

/// Passes on what comes, as far as the fault allows; `answers`: these are the server's bytes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut ill: watch::Receiver<Ill>,
    answers: bool,
    mut rng: fastrand::Rng,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let mut rest = &piece[..length];
        let now = *ill.borrow_and_update();
        match now {
            Ill::Slow(most) => {
                let pause = most.mul_f64(rng.f64());
                pause_of_the_scenario_in_a_task(pause, "the network is slow").await;
            }
            Ill::Halved | Ill::Truncated if answers => {
                let (half, other) = rest.split_at(length / 2);
                to.write_all(half).await?;
                rest = other;
            }
            _ => {}
        }
        if now == Ill::Truncated && answers {
            to.shutdown().await?;
            // A close with unread input would be a reset, and overtake the half.
            pause_of_the_scenario_in_a_task(FIN_AHEAD, "the end is on its way").await;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let passes = |ill: &Ill| match ill {
            Ill::Stalled => false,
            Ill::Deaf | Ill::Halved => !answers,
            _ => true,
        };
        if ill.wait_for(passes).await.is_err() {
            return Ok(());
        }
        to.write_all(rest).await?;
    }
}
