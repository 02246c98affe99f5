//! TLS of the gateway's own listeners: the certificate that clients are shown.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsAcceptor;

use crate::config::{Identity, IdentityError, LoadedIdentity};

/// The name of HTTP/2 in the TLS handshake (ALPN; RFC 9113, 3.2).
pub const HTTP2: &[u8] = b"h2";
const HTTP1: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// Accepts the TLS handshakes of new connections; open connections keep the certificate that they began with.
#[derive(Clone)]
pub struct Certificates(pub TlsAcceptor);

impl Certificates {
    /// Reads the files again: they were valid when the configuration was read, and may have changed since.
    pub fn open(identity: &Identity) -> Result<Self, IdentityError> {
        let LoadedIdentity { certified, .. } = identity.read()?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = [HTTP2].iter().chain(&HTTP1).map(|name| name.to_vec()).collect();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
