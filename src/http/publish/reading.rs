//! Reading a body: within its bound, within its time, and within what all bodies together may take.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::refused::Refused;

/// A body may take this long.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is left of a refused body is thrown away up to this, and no longer than that: many clients read no answer
/// while they still send.
const LEFT_BYTES: usize = 1 << 20;
const LEFT_TIME: Duration = Duration::from_millis(200);

/// How much a body may take.
pub(super) struct Room<'a> {
    /// In bytes.
    pub(super) most: usize,
    /// The setting that says so.
    pub(super) setting: &'static str,
    /// KiB that all bodies share; `None`: this one takes nothing from the others.
    pub(super) shared_kib: Option<&'a Semaphore>,
}

impl<'a> Room<'a> {
    /// Takes what so many bytes take. As they come: who says much and sends little takes little.
    fn take_for(
        &self,
        bytes: usize,
        taken: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<(), Refused> {
        let Some(shared) = self.shared_kib else { return Ok(()) };
        let has = taken.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = bytes.div_ceil(1024).saturating_sub(has);
        let more = shared.try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX));
        let more = more.map_err(|_| Refused::Busy)?;
        match taken {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        Ok(())
    }
}

/// A body that was read; it has its part of the room until it is dropped.
pub(super) struct Read<'a> {
    pub(super) bytes: Bytes,
    _room: Option<SemaphorePermit<'a>>,
}

/// Reads to the end. A body that is known to be too long is not begun.
pub(super) async fn read<'a>(
    body: &mut Incoming,
    length: Option<u64>,
    room: &Room<'a>,
) -> Result<Read<'a>, Refused> {
    let too_large = || Refused::TooLarge(None, room.most, room.setting);
    if length.is_some_and(|length| length > room.most as u64) {
        return Err(too_large());
    }
    let reading = async {
        let (mut bytes, mut taken) = (BytesMut::new(), None::<SemaphorePermit<'a>>);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refused::Cut)?.into_data() else { continue };
            if bytes.len() + data.len() > room.most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
            room.take_for(bytes.len(), &mut taken)?;
        }
        Ok(Read { bytes: bytes.freeze(), _room: taken })
    };
    timeout(BODY_TIME, reading).await.unwrap_or(Err(Refused::Slow))
}

/// Throws away what is left of a body that was begun.
pub(super) async fn throw_away(mut body: Incoming) {
    let rest = async {
        let mut left = LEFT_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(length) else { return };
            left = less;
        }
    };
    let _ = timeout(LEFT_TIME, rest).await;
}
