//! Files that only their owner may read.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::geteuid;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A state directory that belongs to this process until this is dropped.
#[derive(Debug)]
pub struct Owned {
    _lock: File,
}

/// Of a private file.
pub const PRIVATE: u32 = 0o600;
/// Of one that everybody may read.
const PUBLIC: u32 = 0o644;

/// Writes a whole file, mode 0600: it is there in full or not at all, also after a power cut.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_whole(path, content, PRIVATE)
}

/// The same, mode 0644.
pub fn write_public(path: &Path, content: &[u8]) -> io::Result<()> {
    write_whole(path, content, PUBLIC)
}

fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Two processes that write the same file don't write into each other's.
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = create_private(&partial, content)
        .and_then(|()| fs::set_permissions(&partial, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // The cause is what counts; a leftover does no harm.
        drop(fs::remove_file(&partial));
    }
    written?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a file, mode 0600, that must not exist yet.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Opens a file at its end, made with mode 0600 where there is none; one that others may read or write is refused.
pub fn append_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path)?;
    refuse_exposed(&file, path).map(|()| file)
}

/// Whether others than its owner have access to a file.
#[must_use]
pub fn is_exposed(file: &Metadata) -> bool {
    file.mode() & 0o077 != 0
}

/// Reads a private file; one that others may read or write is refused.
pub fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    refuse_exposed(&file, path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn refuse_exposed(file: &File, path: &Path) -> io::Result<()> {
    if is_exposed(&file.metadata()?) {
        let message = format!("others than its owner have access to it: run `chmod 600 {}`", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Makes a state directory if need be, and takes it for this process alone.
pub fn own_dir(path: &Path) -> io::Result<Owned> {
    private_dir(path)?;
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(path.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Owned { _lock: lock }),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process runs with it"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes a directory, mode 0700, with its parents.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Goes on as the user whose directory it is, where root runs this: what it makes there is that user's. Root that meets its
/// own directory, or none, stays root. For this thread and those that it starts from here on, so it comes first.
pub fn act_as_owner(dir: &Path) -> io::Result<()> {
    let owner = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let owned = own_dir(&dir.path().join("state")).unwrap();
        let refused = own_dir(&dir.path().join("state")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        drop(owned);
        own_dir(&dir.path().join("state")).unwrap();
    }

    #[test]
    fn root_acts_as_the_owner_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        act_as_owner(&dir.path().join("missing")).unwrap();
        let before = geteuid();
        act_as_owner(dir.path()).unwrap();
        assert_eq!(geteuid(), before, "it is one's own");
        if !before.is_root() {
            return;
        }
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let written = std::thread::spawn(move || {
            act_as_owner(&state).unwrap();
            write_private(&state.join("key"), b"x").unwrap();
            fs::metadata(state.join("key")).unwrap().uid()
        });
        assert_eq!(written.join().unwrap(), 65534);
        assert!(geteuid().is_root(), "of that thread alone");
    }

    #[test]
    fn a_private_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, b"x").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"x");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(read_private(&path).unwrap_err().to_string().contains("chmod 600"));
        assert!(append_private(&path).unwrap_err().to_string().contains("chmod 600"));
        append_private(&dir.path().join("log")).unwrap().write_all(b"a").unwrap();
        append_private(&dir.path().join("log")).unwrap().write_all(b"b").unwrap();
        assert_eq!(read_private(&dir.path().join("log")).unwrap(), b"ab");
    }
}
