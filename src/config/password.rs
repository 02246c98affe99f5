//! A password that is read again at each login: passwords that expire are renewed in their file.

use std::path::{Path, PathBuf};

use super::{Secret, secret};

/// A password of Redis or of its sentinels.
#[derive(Clone, Debug)]
pub struct Password {
    /// As it was when the configuration was read.
    loaded: Secret,
    /// Where it is renewed; `None`: it stands in a URL.
    file: Option<PathBuf>,
}

impl Password {
    /// One that stands in a URL.
    pub(super) fn fixed(secret: Secret) -> Self {
        Self { loaded: secret, file: None }
    }

    /// The one in the file `name`, as [`secret::read`] finds it.
    pub(super) fn in_file(name: &str, credentials: Option<&Path>) -> Result<Self, String> {
        let loaded = secret::read(name, credentials)?;
        Ok(Self { loaded, file: Some(secret::path(name, credentials)) })
    }

    /// The password for a login now. A file that cannot be read at this moment, as while it is replaced, does
    /// not keep us from trying the last password that is known.
    pub fn current(&self) -> Secret {
        let renewed = self.file.as_deref().and_then(|file| secret::read_path(file).ok());
        renewed.unwrap_or_else(|| self.loaded.clone())
    }
}

/// Another password in the same file is no other setting.
impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && (self.file.is_some() || self.loaded == other.loaded)
    }
}

impl Eq for Password {}
