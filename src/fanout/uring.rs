//! Many sends in one system call (`io_uring`) where the kernel allows it, one call for each elsewhere. The two
//! differ in cost alone.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use super::Socket;

/// Sends in one call: some milliseconds' worth, after which other tasks have their turn.
pub(super) const MOST: usize = 1024;
/// A ring that refuses to submit so many times in a row is given up.
const MOST_REFUSALS: usize = 100;

thread_local! {
    /// Each worker has its own, opened when it is first needed: where one thread alone submits, the kernel
    /// takes no locks. A worker without one sends one by one.
    static RING: RefCell<Option<IoUring>> = RefCell::new(open().ok());
}

fn open() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder.build(u32::try_from(MOST).expect("a burst is small"))
}

/// Whether the kernel takes many sends in one call. Before Linux 6.1 it does not, and in many containers it is
/// not allowed to.
pub fn may_send_at_once() -> io::Result<()> {
    open().map(drop)
}

/// Writes to each socket as [`Socket::send`] does, and puts each outcome into `outcomes`, in the same order. At
/// most [`MOST`] of them.
pub(super) fn send<'a>(
    at_once: bool,
    sends: impl ExactSizeIterator<Item = (&'a Socket, &'a [u8])>,
    outcomes: &mut Vec<io::Result<usize>>,
) {
    outcomes.clear();
    if !at_once {
        return outcomes.extend(sends.map(|(socket, bytes)| socket.send(bytes)));
    }
    // Put back only after a burst that went well: a ring with sends that the kernel has not seen must not outlive
    // what they borrow.
    match RING.take() {
        Some(mut ring) => {
            if send_at_once(&mut ring, sends, outcomes) {
                RING.set(Some(ring));
            }
        }
        None => outcomes.extend(sends.map(|(socket, bytes)| socket.send(bytes))),
    }
}

/// Whether the ring can be used again. Sends that it failed to submit fail: their clients come back.
#[expect(unsafe_code, reason = "10 % less CPU per delivery (docs/decisions); the proof is below")]
fn send_at_once<'a>(
    ring: &mut IoUring,
    sends: impl ExactSizeIterator<Item = (&'a Socket, &'a [u8])>,
    outcomes: &mut Vec<io::Result<usize>>,
) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let mut unanswered = 0_usize;
    for (socket, bytes) in sends.take(MOST) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length);
        let send = send.flags(flags).build().user_data(outcomes.len() as u64);
        // SAFETY: the descriptor and the bytes are borrowed for `'a`, which outlives this function. It
        // returns `true` only when the kernel has answered for each of them; after anything else, a
        // panic of the iterator among them, the caller drops the ring, and the kernel never sees
        // what was not submitted. No send waits for anything, so the kernel is done with what was.
        let pushed = unsafe { ring.submission().push(&send) };
        unanswered += usize::from(pushed.is_ok());
        // Until the kernel answers.
        outcomes.push(Err(io::ErrorKind::OutOfMemory.into()));
    }
    let mut refusals = 0;
    while unanswered > 0 {
        // This fails when it is interrupted or short of memory; the next round takes what is left.
        refusals = ring.submit_and_wait(1).map_or(refusals + 1, |_| 0);
        for answer in ring.completion() {
            let index = usize::try_from(answer.user_data()).unwrap_or(usize::MAX);
            if let Some(known) = outcomes.get_mut(index) {
                *known = outcome(answer.result());
            }
            unanswered = unanswered.saturating_sub(1);
        }
        if refusals > MOST_REFUSALS {
            return false;
        }
    }
    true
}

/// As [`Socket::send`] tells it: zero is "nothing now".
fn outcome(result: i32) -> io::Result<usize> {
    match usize::try_from(result) {
        Ok(sent) => Ok(sent),
        Err(_) if [libc::EAGAIN, libc::EINTR].contains(&-result) => Ok(0),
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::new(OwnedFd::from(ours)), theirs)
    }

    /// A socket that takes everything, one that takes a part, one that takes nothing, and one whose
    /// other end is gone: both ways agree on each of them.
    #[test]
    fn at_once_or_one_by_one_comes_to_the_same() {
        may_send_at_once().expect("the tests need a kernel with io_uring (Linux 6.1)");
        let large = vec![b'x'; 8 << 20];
        for at_once in [true, false] {
            let ((whole, mut reader), (part, _slow), (full, _stalled)) = (pair(), pair(), pair());
            let (gone, _) = pair();
            while full.send(&large).unwrap() > 0 {}
            let sends = [(&whole, &b"hello"[..]), (&part, &large), (&full, b"x"), (&gone, b"x")];
            let mut outcomes = Vec::new();
            send(at_once, sends.into_iter(), &mut outcomes);
            assert_eq!(*outcomes[0].as_ref().unwrap(), 5);
            assert!((1..large.len()).contains(outcomes[1].as_ref().unwrap()), "{outcomes:?}");
            assert_eq!(*outcomes[2].as_ref().unwrap(), 0);
            let error = outcomes[3].as_ref().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            let mut heard = [0; 5];
            reader.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
        }
    }

    #[test]
    fn a_burst_that_panics_leaves_nothing_for_the_next_one() {
        let ((first, mut first_reader), (second, _theirs)) = (pair(), pair());
        let sends = (0..2).map(|number| match number {
            0 => (&first, &b"never sent"[..]),
            _ => panic!("a panic of the test"),
        });
        let mut outcomes = Vec::new();
        let burst = std::panic::AssertUnwindSafe(|| send(true, sends, &mut outcomes));
        std::panic::catch_unwind(burst).unwrap_err();
        for _ in 0..2 {
            send(true, [(&second, &b"hello"[..])].into_iter(), &mut outcomes);
            assert!(matches!(outcomes[..], [Ok(5)]), "{outcomes:?}");
        }
        first_reader.set_nonblocking(true).unwrap();
        let heard = first_reader.read(&mut [0; 10]);
        assert_eq!(heard.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn a_ring_that_takes_nothing_fails_its_sends_instead_of_asking_for_ever() {
        let mut builder = IoUring::builder();
        // Until it is enabled it refuses every submission.
        let mut refusing = builder.setup_r_disabled().build(8).unwrap();
        let (done, outcomes) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let ((socket, _theirs), mut outcomes) = (pair(), Vec::new());
            let sends = [(&socket, &b"x"[..])].into_iter();
            let usable = send_at_once(&mut refusing, sends, &mut outcomes);
            done.send((usable, outcomes))
        });
        let (usable, outcomes) = outcomes.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert!(!usable && matches!(outcomes[..], [Err(_)]), "{outcomes:?}");
    }

    #[test]
    fn a_full_burst_reaches_everybody_in_order() {
        const SOCKETS: usize = 64;
        let mut pairs: Vec<_> = (0..SOCKETS).map(|_| pair()).collect();
        let numbers: Vec<_> = (0..MOST).map(|number| format!("{number};")).collect();
        let mut outcomes = Vec::new();
        let sends = numbers.iter().enumerate();
        let sends = sends.map(|(index, number)| (&pairs[index % SOCKETS].0, number.as_bytes()));
        send(true, sends, &mut outcomes);
        assert!(outcomes.into_iter().zip(&numbers).all(|(sent, n)| sent.unwrap() == n.len()));
        for (index, (_, reader)) in pairs.iter_mut().enumerate() {
            let all: String = numbers.iter().skip(index).step_by(SOCKETS).cloned().collect();
            let mut heard = vec![0; all.len()];
            reader.read_exact(&mut heard).unwrap();
            assert_eq!(String::from_utf8(heard).unwrap(), all);
        }
    }
}
