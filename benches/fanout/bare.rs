//! A bare hyper server that sends the same bytes over HTTP/2: what hyper itself costs, with a body per
//! stream that waits for a broadcast, and nothing else. As many workers as the gateway has.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};
use tokio_util::sync::ReusableBoxFuture;

use crate::floor::each_event;

/// More than ever waits in a run that keeps up.
const CAPACITY: usize = 1024;

/// What is served.
#[derive(Clone, clap::Args)]
pub(crate) struct Settings {
    address: SocketAddr,
    redis: PathBuf,
}

/// Serves until killed.
pub(crate) fn run(settings: Settings) -> Result<()> {
    let (events, _) = channel(CAPACITY);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let reading = events.clone();
    thread::spawn(move || {
        // Without a client there is no receiver.
        each_event(&settings.redis, |event| drop(reading.send(Bytes::from(event))))
    });
    runtime.block_on(serve(settings.address, events))
}

async fn serve(address: SocketAddr, events: Sender<Bytes>) -> Result<()> {
    let listener = TcpListener::bind(address).await.context("the bare server cannot listen")?;
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let events = events.clone();
        let service = service_fn(move |_: Request<hyper::body::Incoming>| {
            let response = Response::new(Events::new(events.subscribe()));
            async { Ok::<_, Infallible>(response) }
        });
        let http = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(http.serve_connection(TokioIo::new(connection), service));
    }
}

/// A stream of events.
struct Events(ReusableBoxFuture<'static, (Result<Bytes, RecvError>, Receiver<Bytes>)>);

async fn next(mut events: Receiver<Bytes>) -> (Result<Bytes, RecvError>, Receiver<Bytes>) {
    (events.recv().await, events)
}

impl Events {
    fn new(events: Receiver<Bytes>) -> Self {
        Self(ReusableBoxFuture::new(next(events)))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = RecvError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        let (event, events) = ready!(self.0.poll(task));
        self.0.set(next(events));
        Poll::Ready(Some(event.map(Frame::data)))
    }
}
