//! The first administrator. There is no default account: until one is made, a one-time setup code lies in the state
//! directory, readable by the controller's user alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use horcrux_transport::files;
use horcrux_transport::secret::Secret;
use subtle::ConstantTimeEq as _;

use super::sessions::random_text;

/// A code that nobody used in this time is replaced at the next start.
const LIFETIME_MS: i64 = 24 * 3600 * 1000;
/// 120 bits in six groups of four: long enough not to be guessed, short enough to be typed.
const CODE_BYTES: usize = 15;

/// The setup code of a controller without users.
#[derive(Debug)]
pub struct SetupCode {
    path: PathBuf,
    code: Secret,
    expires_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("make a setup code")]
    Random,
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl SetupCode {
    /// Makes a new code and writes it to `setup-code` in `dir`, mode 0600.
    pub fn issue(dir: &Path, now_ms: i64) -> Result<Self, SetupError> {
        let code = random_text(CODE_BYTES).map_err(|_| SetupError::Random)?;
        let path = dir.join("setup-code");
        files::write_private(&path, format!("{code}\n").as_bytes())
            .map_err(|source| SetupError::Write { path: path.clone(), source })?;
        Ok(Self { path, code: code.into(), expires_ms: now_ms + LIFETIME_MS })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn fits(&self, tried: &str, now_ms: i64) -> bool {
        let same = self.code.expose().as_bytes().ct_eq(tried.trim().as_bytes());
        bool::from(same) && now_ms < self.expires_ms
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

    #[test]
    fn a_code_fits_until_it_expires_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let setup = SetupCode::issue(dir.path(), 0).unwrap();
        let code = fs::read_to_string(setup.path()).unwrap();
        assert!(setup.fits(&code, LIFETIME_MS - 1));
        assert!(!setup.fits(&code, LIFETIME_MS));
        assert!(!setup.fits("", 0));
        assert_eq!(fs::metadata(setup.path()).unwrap().permissions().mode() & 0o777, 0o600);
        SetupCode::remove(dir.path());
        assert!(!setup.path().exists());
    }
}
