//! Opening a link: connect, log in, select the database.

use std::time::Duration;

use super::failure::lost;
use super::link::Link;
use super::replies::accepted;
use crate::config::{Address, Password, Tls};
use crate::net::dial::dial;
use crate::source::redis::refusal::is_too_many_clients;
use crate::source::{Error, ErrorClass};

/// Less than `ANSWER_TIMEOUT`, so that a server without TLS is told from one that is silent.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// What every server asks of a new link.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) tls: Option<Tls>,
    /// Empty: none.
    pub(crate) username: String,
    pub(crate) password: Option<Password>,
    pub(crate) database: u32,
    /// A cluster's replica serves reads only after `READONLY`.
    pub(crate) readonly: bool,
}

impl Link {
    /// Connects, logs in and selects the database.
    pub(crate) async fn open(address: &Address, login: &Login) -> Result<Self, Error> {
        let socket = dial(address, login.tls.as_ref(), HANDSHAKE_TIMEOUT).await;
        let socket = socket.map_err(|error| {
            let error = lost(&error.into_io());
            Error { message: format!("{address}: {}", error.message), ..error }
        })?;
        let mut link = Self::new(socket);
        link.log_in(login).await?;
        Ok(link)
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Error> {
        if let Some(password) = &login.password {
            let password = password.current();
            let (username, password) = (login.username.as_bytes(), password.expose().as_bytes());
            // Redis 5 knows only the form without a user name.
            let with_username = [b"AUTH", username, password];
            let without = [b"AUTH", password];
            let words: &[&[u8]] = if username.is_empty() { &without } else { &with_username };
            accepted(self.ask(words).await?).map_err(login_error)?;
        }
        if login.database != 0 {
            accepted(self.ask(&[b"SELECT", login.database.to_string().as_bytes()]).await?)?;
        }
        if login.readonly {
            accepted(self.ask(&[b"READONLY"]).await?).map_err(login_error)?;
        }
        Ok(())
    }
}

/// Only the operator can help where Redis refuses a login, unless Redis is busy or has too many clients: it
/// says that to every client.
fn login_error(error: Error) -> Error {
    let is_busy = error.class == ErrorClass::Away && error.code != "ERR";
    if is_busy || is_too_many_clients(&error.message) {
        return error;
    }
    let code = if error.class == ErrorClass::Login { error.code } else { "NOAUTH" };
    Error { class: ErrorClass::Login, code, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::redis::refusal::error_reply;

    #[test]
    fn a_refused_login_is_for_the_operator_unless_redis_is_busy() {
        let sorted = |words| {
            let error = login_error(error_reply(words));
            (error.class, error.code)
        };
        assert_eq!(sorted("WRONGPASS invalid"), (ErrorClass::Login, "WRONGPASS"));
        assert_eq!(sorted("ERR AUTH called without any password"), (ErrorClass::Login, "NOAUTH"));
        assert_eq!(sorted("ERR max number of clients reached"), (ErrorClass::Away, "ERR"));
        let of_a_cluster = "ERR max number of clients + cluster connections reached";
        assert_eq!(sorted(of_a_cluster), (ErrorClass::Away, "ERR"));
        assert_eq!(sorted("BUSY Redis is busy running a script"), (ErrorClass::Away, "BUSY"));
        assert_eq!(sorted("LOADING Redis is loading"), (ErrorClass::Away, "LOADING"));
    }
}
