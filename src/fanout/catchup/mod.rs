//! A subscriber at its own pace: replaying, or behind.
//!
//! ```text
//!            Start ──resolve──▶ Source ──the ring reaches back──▶ Ring ──level──▶ shard
//!                                 ▲  │                             │  ▲             │
//!                                 │  └──────── recreated ─────┐    │  └─short write─┘
//!                                 └── NewGeneration ◀─────────┴────┘
//! ```
//!
//! A client that gets the state of its stream begins in `State`, and comes to it again from wherever it is told of a gap.
//! From there it goes on in the source.
//!
//! `machine` decides what comes next and does no I/O; `driver` does it, and tells the machine what came of
//! it. A catch-up subscriber holds no events while it waits for its client: only a position in the ring or in
//! the source, from which the rest of a half-written entry is made again (a small rest it keeps).
//!
//! Level with the tail, it goes to a shard, unless hyper writes to it (HTTP/2, TLS): then it waits for
//! what is new by itself.

mod backfill;
mod begin;
mod driver;
mod in_state;
mod level;
mod machine;
mod part;
mod run;
mod source;
mod state;
mod state_driver;
mod telling;
mod wait;

pub use driver::{follow_in_body, welcome};
pub use machine::CatchUp;

pub(super) use driver::catch_up;
pub(super) use level::LeaveRequest;
pub(super) use machine::{DeliveryState, Phase};
pub(super) use part::{PartEnd, follow_part};
