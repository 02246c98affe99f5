//! One connection to Redis: its socket, RESP2, commands and what their replies mean.

mod link;
pub(super) mod replies;
pub(super) mod request;
pub(super) mod resp;
pub(super) mod role;
mod socket;
mod timing;
mod weight;

pub(super) use link::{Link, Login};
pub(super) use timing::{ANSWER_TIMEOUT, READ_TIMEOUT, in_time};
