//! Reads `[server.tls]`: the certificate for clients and its key, both in PEM, at the start and with each
//! reload.

use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error};

use super::section::Section;
use super::tls::{certificates, private_key};
use crate::config::Listen;

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    certificate: String,
    key: String,
    credentials: Option<PathBuf>,
}

/// The content of these files.
#[derive(Debug)]
pub struct LoadedIdentity {
    /// The chain, and the key that belongs to it.
    pub certified: CertifiedKey,
    /// Why clients will reject it, although the gateway can use it.
    pub doubt: Option<String>,
}

/// Which of the two files is wrong, and how.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate's.
    #[error("server.tls.certificate {0}")]
    Certificate(String),
    /// The key's.
    #[error("server.tls.key {0}")]
    Key(String),
}

impl Identity {
    /// Reads the files as they are now.
    pub fn read(&self) -> Result<LoadedIdentity, IdentityError> {
        let credentials = self.credentials.as_deref();
        let chain =
            certificates(&self.certificate, credentials).map_err(IdentityError::Certificate)?;
        let key = private_key(&self.key, credentials).map_err(IdentityError::Key)?;
        let doubt = doubt(&chain);
        let certified = CertifiedKey::from_der(chain, key, &default_provider());
        let certified = certified.map_err(|error| match error {
            Error::InconsistentKeys(_) => IdentityError::Key(
                "is not the key of the certificate in server.tls.certificate".into(),
            ),
            Error::InvalidCertificate(error) => IdentityError::Certificate(format!(
                "holds a certificate that cannot be used: {error}"
            )),
            error => IdentityError::Key(format!("holds a key that cannot be used: {error}")),
        })?;
        Ok(LoadedIdentity { certified, doubt })
    }
}

/// Why the chain's first certificate is not valid now: it has expired, or is not valid yet.
fn doubt(chain: &[CertificateDer<'_>]) -> Option<String> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let certificate = ParsedCertificate::try_from(chain.first()?).ok()?;
    // This always fails, because no signer is trusted; but the validity is checked before the signer.
    let algorithms = default_provider().signature_verification_algorithms.all;
    let no_roots = RootCertStore::empty();
    let outcome = verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &no_roots,
        &[],
        UnixTime::now(),
        algorithms,
    );
    match outcome {
        Err(Error::InvalidCertificate(
            error @ (Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }),
        )) => Some(error.to_string()),
        _ => None,
    }
}

/// `[server.tls]`; `None` if it is empty, or on a fault.
pub(super) fn identity(mut section: Section<'_, '_>, listen: &[Listen]) -> Option<Identity> {
    let (certificate, of_certificate) = section.text("certificate", "");
    let (key, of_key) = section.text("key", "");
    let identity = match (certificate.is_empty(), key.is_empty()) {
        (true, true) => None,
        (true, false) => {
            section.fault(&of_key, "has no certificate; name one in server.tls.certificate");
            None
        }
        (false, true) => {
            section.fault(&of_certificate, "has no key; name its file in server.tls.key");
            None
        }
        (false, false) => {
            let credentials = section.reader.credentials.clone();
            Some(Identity { certificate, key, credentials })
        }
    };
    match identity.as_ref().map(Identity::read) {
        Some(Err(IdentityError::Certificate(why))) => section.fault(&of_certificate, why),
        Some(Err(IdentityError::Key(why))) => section.fault(&of_key, why),
        Some(Ok(LoadedIdentity { doubt: Some(doubt), .. })) => {
            section.warn(&of_certificate, format!("clients will reject it: {doubt}"));
        }
        Some(Ok(_)) | None => {}
    }
    if identity.is_some() && listen.iter().all(|listen| matches!(listen, Listen::Unix(_))) {
        section.warn(
            &of_certificate,
            "has no effect: unix sockets speak plain HTTP, and server.listen has nothing else",
        );
    }
    section.end();
    identity
}
