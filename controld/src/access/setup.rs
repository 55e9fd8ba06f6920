//! Codes with which an administrator is made. There is no default account: until the first is made, a one-time code lies in
//! the state directory, readable by the controller's user alone. When nobody can get in any more, whoever is on the
//! controller's host makes another.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use horcrux_transport::files;
use horcrux_transport::secret::Secret;

use super::audit::{Audit, Entry};
use super::keys::{KeyError, hash, random_text};
use crate::store::{Store, StoreError};

/// A code that nobody used in this time is worth nothing.
const LIFETIME_MS: i64 = 24 * 3600 * 1000;
const RECOVERY_LIFETIME_MS: i64 = 3600 * 1000;

#[derive(Debug)]
pub struct SetupCode;

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("make a setup code")]
    Key(#[source] KeyError),
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("keep a setup code")]
    Store(#[source] StoreError),
}

/// As a code is stored, however it was typed.
#[must_use]
pub fn hashed(code: &str) -> [u8; 32] {
    hash(code.trim())
}

impl SetupCode {
    /// Makes the code of a controller without users, and writes it to `setup-code` in `dir`, mode 0600.
    pub async fn issue(store: &Store, dir: &Path, now_ms: i64) -> Result<PathBuf, SetupError> {
        let code = Self::make(store, now_ms + LIFETIME_MS).await?;
        let path = dir.join("setup-code");
        files::write_private(&path, format!("{}\n", code.expose()).as_bytes())
            .map_err(|source| SetupError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// Makes a code for whoever is on the controller's host, on record. Codes made before are worth nothing from then on.
    pub async fn recover(store: &Store, audit: &Audit, now_ms: i64) -> Result<Secret, SetupError> {
        let entry = Entry {
            actor: "controller".to_owned(),
            rpc: "recover-admin".to_owned(),
            detail: "a code that makes an administrator was made on the controller's host".to_owned(),
            ..Entry::default()
        };
        audit.event(&entry, "ok").await.map_err(SetupError::Store)?;
        Self::make(store, now_ms + RECOVERY_LIFETIME_MS).await
    }

    async fn make(store: &Store, expires_ms: i64) -> Result<Secret, SetupError> {
        // 120 bits: long enough not to be guessed, short enough to be typed.
        let code = random_text::<15>().map_err(SetupError::Key)?;
        store.put_setup_code(&hashed(&code), expires_ms).await.map_err(SetupError::Store)?;
        Ok(code.into())
    }

    /// Removes the file: the code was used.
    pub fn remove(dir: &Path) {
        match fs::remove_file(dir.join("setup-code")) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "used setup code not removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_code_fits_until_it_expires_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let path = SetupCode::issue(&store, dir.path(), 0).await.unwrap();
        let code = hashed(&fs::read_to_string(&path).unwrap());
        assert!(store.fits_setup_code(&code, LIFETIME_MS - 1).await.unwrap());
        assert!(!store.fits_setup_code(&code, LIFETIME_MS).await.unwrap());
        assert!(!store.fits_setup_code(&hashed(""), 0).await.unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        SetupCode::issue(&store, dir.path(), 1).await.unwrap();
        assert!(!store.fits_setup_code(&code, 1).await.unwrap(), "another was made");
        SetupCode::remove(dir.path());
        assert!(!path.exists());
    }
}
