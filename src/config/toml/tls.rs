//! Reads the TLS settings of Redis: the trusted authorities and the client certificate, each in PEM, and the name
//! of servers that are known by address.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::named_verifier::NamedVerifier;
use super::section::{Found, Section};
use crate::config::{Tls, secret};

/// The files that the section names.
pub(super) struct Files {
    ca: (String, Found),
    certificate: (String, Found),
    key: (String, Found),
    server_name: (String, Found),
}

impl Files {
    pub(super) fn named(section: &mut Section<'_, '_>) -> Self {
        Self {
            ca: section.text("ca_file", ""),
            certificate: section.text("client_certificate", ""),
            key: section.text("client_key", ""),
            server_name: section.text("server_name", ""),
        }
    }

    /// Each file that is named is a fault: source.url does not speak TLS.
    pub(super) fn without_tls(&self, section: &mut Section<'_, '_>) {
        for (name, found) in [&self.ca, &self.certificate, &self.key, &self.server_name] {
            if !name.is_empty() {
                section.fault(found, "is for TLS, which source.url does not speak; write it with rediss://, rediss-sentinel:// or rediss-cluster://, or leave this empty");
            }
        }
    }

    /// The settings in these files; `None` on a fault.
    pub(super) fn read(&self, section: &mut Section<'_, '_>) -> Option<Tls> {
        let credentials = section.reader.credentials.clone();
        let credentials = credentials.as_deref();
        let roots = self.roots(section, credentials);
        let identity = self.identity(section, credentials);
        let (roots, identity) = (roots?, identity.ok()?);
        let builder = match self.name(section).ok()? {
            Some(name) => builder_for(roots, name),
            None => builder(roots),
        };
        let Some((chain, key)) = identity else {
            return Some(Tls(Arc::new(builder.with_no_client_auth())));
        };
        match builder.with_client_auth_cert(chain, key) {
            Ok(config) => Some(Tls(Arc::new(config))),
            Err(error) => {
                let why = format!("does not match source.client_certificate: {error}");
                section.fault(&self.key.1, why);
                None
            }
        }
    }

    /// The name for servers that are known by address, if any; `Err` on a fault.
    fn name(&self, section: &mut Section<'_, '_>) -> Result<Option<ServerName<'static>>, ()> {
        let (name, found) = &self.server_name;
        if name.is_empty() {
            return Ok(None);
        }
        let name = DnsName::try_from(name.clone()).map_err(|_| {
            section.fault(found, "is no host name; write one that the servers' certificate has");
        })?;
        Ok(Some(ServerName::DnsName(name)))
    }

    fn roots(
        &self,
        section: &mut Section<'_, '_>,
        credentials: Option<&Path>,
    ) -> Option<RootCertStore> {
        let (name, found) = &self.ca;
        let roots = if name.is_empty() { system_roots() } else { roots_in(name, credentials) };
        roots.map_err(|why| section.fault(found, why)).ok()
    }

    /// The client certificate and its key, if any; `Err` on a fault.
    fn identity(
        &self,
        section: &mut Section<'_, '_>,
        credentials: Option<&Path>,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, ()> {
        let ((certificate, of_certificate), (key, of_key)) = (&self.certificate, &self.key);
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => {
                section.fault(of_key, "has no certificate; name one in source.client_certificate");
                return Err(());
            }
            (false, true) => {
                section.fault(of_certificate, "has no key; name its file in source.client_key");
                return Err(());
            }
            (false, false) => {}
        }
        let chain = certificates(certificate, credentials);
        let chain = chain.map_err(|why| section.fault(of_certificate, why));
        let key = private_key(key, credentials);
        let key = key.map_err(|why| section.fault(of_key, why));
        Ok(Some((chain?, key?)))
    }
}

fn roots_in(name: &str, credentials: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(name, credentials)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("holds a certificate that cannot be trusted: {error}"))?;
    }
    Ok(roots)
}

/// TLS to servers that this system trusts, without a client certificate.
pub(super) fn of_system() -> Result<Tls, String> {
    let roots = system_roots().map_err(
        |_| "needs an authority to trust, and this system has none; install ca-certificates",
    )?;
    Ok(Tls(Arc::new(builder(roots).with_no_client_auth())))
}

/// The same, where certificates have to be for `name` of servers that are known by address.
fn builder_for(
    roots: RootCertStore,
    name: ServerName<'static>,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let by_name = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let by_name = by_name.build().expect("there is an authority to trust");
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NamedVerifier { by_name, name }))
}

fn builder(roots: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
}

/// The authorities that this system trusts, including those that the operator has added.
fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("is empty, and this system trusts no authority; name a file with the certificate of the authority that signed the server's (or install ca-certificates)".into());
    }
    Ok(roots)
}

pub(super) fn certificates(
    name: &str,
    credentials: Option<&Path>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = secret::text(name, credentials)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err("holds no certificate in PEM form".into()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("holds a certificate that cannot be read: {error}")),
    }
}

pub(super) fn private_key(
    name: &str,
    credentials: Option<&Path>,
) -> Result<PrivateKeyDer<'static>, String> {
    let text = secret::text(name, credentials)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        format!("holds no private key in PEM form, or one with a passphrase: {error}")
    })
}
