//! An authority of a test's own, and what it signs.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::Folder;

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: Folder,
}

/// Files of a certificate and its key.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let folder = Folder::new();
        std::fs::write(folder.0.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    /// The file of its own certificate.
    pub fn file(&self) -> String {
        self.path("ca.pem")
    }

    /// Signs a certificate for `name`: an address, or a host name.
    pub fn sign(&self, name: &str) -> Identity {
        self.sign_as(name, name)
    }

    /// The same, in files of another name.
    pub fn sign_as(&self, file: &str, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (file, key_file) = (format!("{file}.pem"), format!("{file}.key"));
        std::fs::write(self.folder.0.join(&file), certificate.pem()).unwrap();
        std::fs::write(self.folder.0.join(&key_file), key.serialize_pem()).unwrap();
        Identity { certificate: self.path(&file), key: self.path(&key_file) }
    }

    /// Arguments of a redis-server that speaks TLS only, to clients with a certificate of this
    /// authority, or to all.
    pub fn arguments(&self, ip: &str, clients_show: bool) -> Vec<String> {
        let own = self.sign(ip);
        let pairs = [
            ("--tls-port", super::redis::PORT.to_string()),
            ("--tls-cert-file", own.certificate),
            ("--tls-key-file", own.key),
            ("--tls-ca-cert-file", self.file()),
            ("--tls-auth-clients", if clients_show { "yes" } else { "no" }.to_owned()),
            ("--tls-replication", "yes".to_owned()),
            ("--tls-cluster", "yes".to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    fn path(&self, name: &str) -> String {
        self.folder.0.join(name).to_str().unwrap().to_owned()
    }
}
