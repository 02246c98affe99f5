//! Many sends at once: handed to the kernel in one call where it takes them so (`io_uring`), one by
//! one elsewhere. Which of the two it is shows in the cost alone.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use super::Socket;

/// Sends that one burst takes; some milliseconds' worth, after which others have their turn.
pub(super) const MOST: usize = 1024;

thread_local! {
    /// Each worker's own, opened when it is first needed: the kernel does without locks where one
    /// thread alone submits.
    static RING: RefCell<Option<IoUring>> = RefCell::new(open().ok());
}

fn open() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder.build(u32::try_from(MOST).expect("a burst is small"))
}

/// Whether the kernel takes many sends in one call. It is too old for that before Linux 6.1, and may
/// not be allowed to, as in many containers.
pub(super) fn may_be_at_once() -> io::Result<()> {
    open().map(drop)
}

/// Writes to each socket what the kernel takes at once, as [`Socket::send`] does, and puts what came
/// of it into `outcomes`, in the same order. At most [`MOST`] of them.
pub(super) fn send<'a>(
    at_once: bool,
    sends: impl ExactSizeIterator<Item = (&'a Socket, &'a [u8])>,
    outcomes: &mut Vec<io::Result<usize>>,
) {
    outcomes.clear();
    if !at_once {
        return outcomes.extend(sends.map(|(socket, bytes)| socket.send(bytes)));
    }
    RING.with_borrow_mut(|ring| match ring {
        Some(ring) => send_at_once(ring, sends, outcomes),
        None => outcomes.extend(sends.map(|(socket, bytes)| socket.send(bytes))),
    });
}

#[expect(unsafe_code, reason = "10 % less CPU per delivery (docs/decisions); the proof is below")]
fn send_at_once<'a>(
    ring: &mut IoUring,
    sends: impl ExactSizeIterator<Item = (&'a Socket, &'a [u8])>,
    outcomes: &mut Vec<io::Result<usize>>,
) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    for (socket, bytes) in sends.take(MOST) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length);
        let send = send.flags(flags).build().user_data(outcomes.len() as u64);
        // SAFETY: the descriptor and the bytes are borrowed for `'a`, which outlives this function, and
        // it returns only when the kernel has answered for each of them: a push into an empty ring of
        // this size succeeds, and nothing between here and the last answer panics.
        let pushed = unsafe { ring.submission().push(&send) };
        outcomes.push(pushed.map(|()| 0).map_err(|_| io::ErrorKind::OutOfMemory.into()));
    }
    let mut unanswered = outcomes.iter().filter(|pushed| pushed.is_ok()).count();
    while unanswered > 0 {
        // It fails where it is interrupted or short of memory; what is left is taken the next time.
        // None of the sends waits for anything, so none stays unanswered.
        let _ = ring.submit_and_wait(1);
        for answer in ring.completion() {
            let index = usize::try_from(answer.user_data()).unwrap_or(usize::MAX);
            if let Some(known) = outcomes.get_mut(index) {
                *known = outcome(answer.result());
            }
            unanswered = unanswered.saturating_sub(1);
        }
    }
}

/// As [`Socket::send`] says it: zero is "nothing now".
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
        may_be_at_once().expect("the tests need a kernel with io_uring (Linux 6.1)");
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
