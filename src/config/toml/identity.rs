//! `[server.tls]`: the certificate that clients are shown, and its key; both in PEM, read at the start
//! and whenever they are to be read again.

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

/// What is in these files.
#[derive(Debug)]
pub struct LoadedIdentity {
    /// The chain and its key, which fit each other.
    pub certified: CertifiedKey,
    /// Why clients will not believe it, although it can be shown.
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
    /// What the files hold now.
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

/// That the time of the chain's first certificate is over, or has not come yet.
fn doubt(chain: &[CertificateDer<'_>]) -> Option<String> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let certificate = ParsedCertificate::try_from(chain.first()?).ok()?;
    // Nobody is trusted, so this fails; the certificate's own time is looked at before its signer.
    let algorithms = default_provider().signature_verification_algorithms.all;
    let nobody = RootCertStore::empty();
    let outcome = verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &nobody,
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

/// `[server.tls]`: `None` where it is empty, or at fault, which is told.
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
            section.reader.warn(&of_certificate, format!("clients will refuse it: {doubt}"));
        }
        Some(Ok(_)) | None => {}
    }
    if identity.is_some() && listen.iter().all(|listen| matches!(listen, Listen::Unix(_))) {
        section.reader.warn(
            &of_certificate,
            "of no use: unix sockets speak plain HTTP, and server.listen has nothing else",
        );
    }
    section.end();
    identity
}
