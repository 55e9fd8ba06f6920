//! Where an epoch's own files are.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub(super) fn path(dir: &Path, epoch: u64, ending: &str) -> PathBuf {
    dir.join(format!("{epoch:020}.{ending}"))
}

/// The epoch whose file this is.
pub(super) fn epoch_of(path: &Path, ending: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(ending)?.strip_suffix('.')?.parse().ok()
}

/// Removes it, where it is there.
pub(super) fn forget(dir: &Path, epoch: u64, ending: &str) -> io::Result<()> {
    match fs::remove_file(path(dir, epoch, ending)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// To be read and written by the agent alone.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}
