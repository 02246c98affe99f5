//! TLS to clients: the certificate they are shown, which can be exchanged while they are connected.

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use crate::config::{Identity, Shown, Unfit};

/// HTTP/2, in the handshake (RFC 9113, 3.2).
pub const HTTP2: &[u8] = b"h2";
const HTTP1: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// The certificate that is shown, and where it comes from.
pub struct Certificates {
    identity: Identity,
    shown: Arc<Current>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Current(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().expect("no holder of the lock panics").clone())
    }
}

impl Certificates {
    /// Reads the files. They were good when the configuration was read, and may have changed since.
    pub fn open(identity: Identity) -> Result<Self, Unfit> {
        let Shown { certified, .. } = identity.read()?;
        let shown = Arc::new(Current(Mutex::new(certified)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = [HTTP2].iter().chain(&HTTP1).map(|name| name.to_vec()).collect();
        Ok(Self { identity, shown, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// For one connection.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again, for connections from now on; those that are open keep what they have. Files
    /// that are at fault change nothing, and the log says why.
    pub fn reload(&self) {
        match self.identity.read() {
            Ok(Shown { certified, doubt }) => {
                *self.shown.0.lock().expect("no holder of the lock panics") = certified;
                match doubt {
                    None => info!("certificate reloaded"),
                    Some(doubt) => warn!(%doubt, "certificate reloaded; clients will refuse it"),
                }
            }
            Err(error) => {
                error!(%error, "certificate not reloaded, the one before is still shown; mend the files and send SIGHUP again");
            }
        }
    }
}
