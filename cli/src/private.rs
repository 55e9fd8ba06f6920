//! The directory where the CLI keeps what it knows: `$XDG_CONFIG_HOME/horcrux`, mode 0700, files 0600.
//!
//! Files are replaced, never rewritten: a reader sees the old or the new one. A lock is a file of its own, because a
//! lock on a file that is replaced guards the one that is gone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::{clock, files};

#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// Held until dropped, by this process alone.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("no directory for the configuration: set XDG_CONFIG_HOME or HOME")]
    NoHome,
    #[error("make the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} can be read by others: run `chmod 600 {}`", path.display(), path.display())]
    Exposed { path: PathBuf },
    #[error("others than its owner have access to {}: run `chmod 700 {}`", path.display(), path.display())]
    OpenDirectory { path: PathBuf },
    #[error("{} is held by another horcruxctl: try again when it has finished", path.display())]
    Locked { path: PathBuf },
    #[error("lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// How often a lock that is held is tried again. It is held for one short RPC at most.
const LOCK_RETRY: Duration = Duration::from_millis(25);

impl Home {
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// From the environment. Empty and relative values count as unset, as the XDG specification says.
    pub fn from_environment() -> Result<Self, FileError> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        config.map(|dir| Self(dir.join("horcrux"))).ok_or(FileError::NoHome)
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The text of a file; `None` when there is none.
    pub fn read(&self, name: &str) -> Result<Option<String>, FileError> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Read { path, source }),
        }
    }

    /// As [`read`](Self::read), and refuses a file that others may read.
    pub fn read_secret(&self, name: &str) -> Result<Option<String>, FileError> {
        let path = self.file(name);
        match fs::metadata(&path) {
            Ok(meta) if files::is_exposed(&meta) => Err(FileError::Exposed { path }),
            Ok(_) | Err(_) => self.read(name),
        }
    }

    /// Replaces a file.
    pub fn write(&self, name: &str, text: &str) -> Result<(), FileError> {
        let path = self.file(name);
        let dir = path.parent().unwrap_or(&self.0);
        make_dir(dir)?;
        files::write_private(&path, text.as_bytes()).map_err(|source| FileError::Write { path, source })
    }

    /// Removes a file; one that is not there is fine.
    pub fn remove(&self, name: &str) -> Result<(), FileError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError::Remove { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits until no other process holds the lock called `name`, at most for `patience`.
    pub async fn lock(&self, name: &str, patience: Duration) -> Result<Lock, FileError> {
        let path = self.file(name);
        make_dir(path.parent().unwrap_or(&self.0))?;
        let open =
            OpenOptions::new().write(true).create(true).truncate(false).mode(files::PRIVATE).open(&path);
        let file = open.map_err(|source| FileError::Lock { path: path.clone(), source })?;
        let give_up = clock::monotonic() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if clock::monotonic() < give_up => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                Err(TryLockError::WouldBlock) => return Err(FileError::Locked { path }),
                Err(TryLockError::Error(source)) => return Err(FileError::Lock { path, source }),
            }
        }
    }
}

/// A file of the user's choice that will hold a secret. It is made before the secret is: a secret that is shown once must
/// not be lost because its file can't be written.
#[derive(Debug)]
pub struct SecretFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl SecretFile {
    /// Makes the file, mode 0600, which must not exist.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let made = OpenOptions::new().write(true).create_new(true).mode(files::PRIVATE).open(path);
        let file = made.map_err(|source| FileError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, filled: false })
    }

    pub fn fill(mut self, text: &str) -> Result<(), FileError> {
        // Half a secret is worth more than none.
        self.filled = true;
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|source| FileError::Write { path: self.path.clone(), source })
    }
}

impl Drop for SecretFile {
    /// An empty file would only be in the way of the next attempt.
    fn drop(&mut self) {
        if !self.filled {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A directory of the user's choice for secrets: made with mode 0700, or there already and closed to others.
pub fn secret_dir(path: &Path) -> Result<(), FileError> {
    make_dir(path)?;
    let meta = fs::metadata(path).map_err(|source| FileError::Directory { path: path.to_owned(), source })?;
    if files::is_exposed(&meta) { Err(FileError::OpenDirectory { path: path.to_owned() }) } else { Ok(()) }
}

fn make_dir(path: &Path) -> Result<(), FileError> {
    files::private_dir(path).map_err(|source| FileError::Directory { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("horcrux"));
        (dir, home)
    }

    #[test]
    fn what_is_written_is_for_its_owner_alone() {
        let (_dir, home) = home();
        home.write("tokens/a.json", "x").unwrap();
        home.write("tokens/a.json", "y").unwrap();
        assert_eq!(home.read_secret("tokens/a.json").unwrap().unwrap(), "y");
        let mode = |name| fs::metadata(home.file(name)).unwrap().mode() & 0o777;
        assert_eq!(mode("tokens/a.json"), 0o600);
        assert_eq!(mode("tokens"), 0o700);
        assert_eq!(mode(""), 0o700);
        assert_eq!(fs::read_dir(home.file("tokens")).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let (_dir, home) = home();
        home.write("a", "x").unwrap();
        fs::set_permissions(home.file("a"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(home.read_secret("a"), Err(FileError::Exposed { .. })));
    }

    #[test]
    fn a_missing_file_is_not_an_error_and_an_existing_one_is_not_overwritten_with_a_secret() {
        let (dir, home) = home();
        assert_eq!(home.read("a").unwrap(), None);
        home.remove("a").unwrap();
        let path = dir.path().join("token");
        drop(SecretFile::create(&path).unwrap());
        assert!(!path.exists(), "no empty file stays");
        SecretFile::create(&path).unwrap().fill("x").unwrap();
        assert!(SecretFile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_for_secrets_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        secret_dir(&path).unwrap();
        secret_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        assert!(matches!(secret_dir(&path), Err(FileError::OpenDirectory { .. })));
    }

    #[tokio::test]
    async fn a_lock_has_one_holder() {
        let (_dir, home) = home();
        let held = home.lock("a.lock", Duration::ZERO).await.unwrap();
        assert!(matches!(home.lock("a.lock", Duration::ZERO).await, Err(FileError::Locked { .. })));
        drop(held);
        home.lock("a.lock", Duration::ZERO).await.unwrap();
    }
}
