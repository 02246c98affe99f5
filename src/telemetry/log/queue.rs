//! Lines on their way out of the process. One thread writes them, so that whoever reads the log holds up nobody
//! else when it stalls: journald, or what is at the other end of standard error. Lines that it does not take
//! wait in memory up to a limit; beyond it they are dropped and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait have this much at most: the last line of each of ten thousand streams goes in.
const MOST_BYTES: usize = 8 << 20;
/// The end of the process waits for them no longer than this.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Where lines wait. Cheap to clone.
pub(super) struct LogQueue<L> {
    messages: Sender<Message<L>>,
    load: Arc<Load>,
}

enum Message<L> {
    /// And its bytes.
    Line(L, usize),
    /// It is dropped once everything before it is written.
    Mark(Sender<()>),
}

#[derive(Default)]
struct Load {
    queued_bytes: AtomicUsize,
    lost: AtomicU64,
}

impl<L: Send + 'static> LogQueue<L> {
    /// Starts the thread that writes. `tell_lost` gets the number of lines that were dropped, once there is room again.
    pub(super) fn start(
        mut write: impl FnMut(L) + Send + 'static,
        tell_lost: impl Fn(u64) + Send + 'static,
    ) -> Self {
        let (messages, received) = mpsc::channel();
        let load = Arc::new(Load::default());
        let seen = load.clone();
        let writing = move || {
            for message in received {
                match message {
                    Message::Line(line, bytes) => {
                        write(line);
                        seen.wrote(bytes).into_iter().for_each(&tell_lost);
                    }
                    Message::Mark(mark) => drop(mark),
                }
            }
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(writing);
        thread.expect("a process that starts can have a thread");
        Self { messages, load }
    }

    /// Queues a line of so many bytes, or drops it.
    pub(super) fn push(&self, line: L, bytes: usize) {
        if self.load.takes(bytes) {
            // The thread ends with the last queue.
            let _ = self.messages.send(Message::Line(line, bytes));
        }
    }

    /// Waits, when it is dropped, for what was queued until then.
    pub(super) fn last_lines(&self) -> LastLines {
        let messages = self.messages.clone();
        LastLines(Box::new(move || {
            let (mark, passed) = mpsc::channel();
            let _ = messages.send(Message::Mark(mark));
            // It ends when the mark is dropped.
            let _ = passed.recv_timeout(LAST_WRITES);
        }))
    }
}

impl Load {
    fn takes(&self, bytes: usize) -> bool {
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let takes = before == 0 || before + bytes <= MOST_BYTES;
        if !takes {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    /// Lines that were lost, once half of the queue is free.
    fn wrote(&self, bytes: usize) -> Option<u64> {
        let before = self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let has_room = before - bytes <= MOST_BYTES / 2;
        let lost = if has_room { self.lost.swap(0, Ordering::Relaxed) } else { 0 };
        (lost > 0).then_some(lost)
    }
}

/// The end of the log: when it is dropped it waits a moment for the last lines.
pub struct LastLines(Box<dyn Fn()>);

impl Drop for LastLines {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// `tracing` writes a line in one call.
impl<'a> MakeWriter<'a> for LogQueue<Vec<u8>> {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl io::Write for &LogQueue<Vec<u8>> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec(), line.len());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_stalled_reader_costs_lines_and_no_time_and_the_end_waits_for_the_last_one() {
        let ((lets_go, stalled), (taken, written), (tell, told)) =
            (mpsc::channel::<()>(), mpsc::channel(), mpsc::channel());
        let write = move |line: Vec<u8>| {
            // Until the test lets go of it.
            let _ = stalled.recv();
            taken.send(line).unwrap();
        };
        let queue = LogQueue::start(write, move |lost| tell.send(lost).unwrap());
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            (&queue).write_all(&line).unwrap();
        }
        drop(lets_go);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(12));
        (&queue).write_all(b"the last").unwrap();
        drop(queue.last_lines());
        let written: Vec<_> = written.try_iter().collect();
        assert_eq!((written.len(), &*written[8]), (9, &b"the last"[..]));
    }
}
