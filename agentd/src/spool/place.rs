//! Where an epoch's own files are.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
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
    remove(&path(dir, epoch, ending))
}

/// Removes a file, where it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
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

/// Puts an open file back where it was removed, or where another took its place: what it holds is there until it is closed.
pub(super) fn restore(path: &Path, file: &mut File) -> io::Result<()> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; usize::try_from(ours.len()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    let new = private().create(true).truncate(true).open(path)?;
    new.write_all_at(&bytes, 0)?;
    *file = new;
    Ok(())
}
