//! Files that only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Of a private file.
pub const PRIVATE: u32 = 0o600;

/// Writes a whole file, mode 0600: it is there in full or not at all, also after a power cut.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    // Two processes that write the same file don't write into each other's.
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = create_private(&partial, content).and_then(|()| fs::rename(&partial, path));
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

/// Makes a directory, mode 0700, with its parents.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
