//! Where an epoch's own files are.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Far beyond any that the agent makes.
const LARGEST: u64 = 1 << 30;

pub(super) fn path(dir: &Path, epoch: u64, ending: &str) -> PathBuf {
    dir.join(format!("{epoch:020}.{ending}"))
}

/// The epoch whose file this is.
pub(super) fn epoch_of(path: &Path, ending: &str) -> Option<u64> {
    parsed(path.file_name()?.to_str()?.strip_suffix(ending)?.strip_suffix('.')?)
}

/// An epoch is a time in milliseconds, or a little more: what can't be one is no name of ours.
pub(super) fn parsed(epoch: &str) -> Option<u64> {
    epoch.parse().ok().filter(|epoch| i64::try_from(*epoch).is_ok_and(|ms| ms < i64::MAX / 2))
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

/// To be read and written by the agent alone. What isn't a file is not followed, and not waited for.
pub(super) fn private() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// What is in a file of an earlier run, and the file.
pub(super) fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = private().open(path)?;
    let there = file.metadata()?;
    if !there.is_file() || there.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file that the agent made"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

/// Puts an open file back where it was removed, or where another took its place: what it holds is there until it is closed.
pub(super) fn restore(path: &Path, file: &mut File) -> io::Result<()> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = vec![0; usize::try_from(ours.len()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    // Whatever is in its place goes, and is not written to.
    let beside = path.with_extension("back");
    remove(&beside)?;
    let new = private().create_new(true).open(&beside)?;
    new.write_all_at(&bytes, 0)?;
    fs::rename(&beside, path)?;
    *file = new;
    Ok(())
}
