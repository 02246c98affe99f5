//! Viewers over HTTP/2, many streams to a connection, on bare sockets: as little of the protocol as a
//! client needs that never runs out of window. It has to be cheap, as the others are.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

use crate::tally::{Progress, Tally};

const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_HEADERS_AND_STREAM: u8 = 5;
/// Of a stream, and of a connection what it has not got by default.
const WINDOW: u32 = (1 << 31) - 1;
const MORE_WINDOW: u32 = WINDOW - 65_535;
/// `:status: 200`, indexed, as the first field of a head (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// One connection and its streams.
pub(crate) struct Connection {
    socket: TcpStream,
    streams: Vec<Progress>,
    /// The beginning of a frame whose end has not come yet.
    partial: Vec<u8>,
}

impl Connection {
    /// Asks for `streams` streams of the first key.
    pub(crate) fn open(mut socket: TcpStream, streams: u64) -> Result<Self> {
        socket.set_nodelay(true)?;
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = vec![0, 4];
        settings.extend(WINDOW.to_be_bytes());
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &MORE_WINDOW.to_be_bytes());
        for nth in 0..streams {
            // GET, http, and by their static names the path and the authority, as they are.
            let head = b"\x82\x86\x04\x09/events/0\x01\x09localhost";
            let id = u32::try_from(1 + 2 * nth)?;
            frame(&mut out, HEADERS, END_HEADERS_AND_STREAM, id, head);
        }
        socket.write_all(&out)?;
        let streams = (0..streams).map(|_| Progress::new(0, 0)).collect();
        Ok(Self { socket, streams, partial: Vec::new() })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn streams(&self) -> &[Progress] {
        &self.streams
    }

    /// Takes what the socket has, which must be ready; whether it goes on.
    pub(crate) fn read(&mut self, scratch: &mut [u8], tally: &mut Tally) -> Result<bool> {
        let count = self.socket.read(scratch)?;
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(&scratch[..count]);
        let mut bytes = &partial[..];
        while let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            self.take(head[3], head[4], id, payload, tally)?;
            bytes = rest;
        }
        self.partial = bytes.to_vec();
        Ok(count > 0)
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        tally: &mut Tally,
    ) -> Result<()> {
        let stream = self.streams.get_mut((id as usize).wrapping_sub(1) / 2);
        let mut answer = Vec::new();
        match (kind, stream) {
            (DATA, Some(stream)) => tally.take(stream, payload),
            (HEADERS, Some(stream)) if payload.first() == Some(&STATUS_200) => {
                tally.head(stream);
            }
            (SETTINGS, _) if flags & ACK == 0 => frame(&mut answer, SETTINGS, ACK, 0, b""),
            (PING, _) if flags & ACK == 0 => frame(&mut answer, PING, ACK, 0, payload),
            (SETTINGS | PING | WINDOW_UPDATE, _) => {}
            (GOAWAY, _) => bail!("the server says that it goes away"),
            _ => bail!("a frame of type {kind} on stream {id}"),
        }
        self.socket.write_all(&answer).context("cannot answer")
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    out.extend_from_slice(
        &u32::try_from(payload.len()).expect("a frame is small").to_be_bytes()[1..],
    );
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}
