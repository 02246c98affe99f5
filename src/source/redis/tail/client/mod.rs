//! Our own Redis client: a link (one connection), RESP2 on it, and what replies mean. It knows one server;
//! which server to ask is for `topology` to say.

mod failure;
mod link;
mod login;
pub(super) mod replies;
mod reply_size;
pub(super) mod request;
pub(super) mod resp;
pub(super) mod role;

pub(super) use failure::{ANSWER_TIMEOUT, READ_TIMEOUT, in_time, too_late};
pub(super) use link::Link;
pub(super) use login::Login;
