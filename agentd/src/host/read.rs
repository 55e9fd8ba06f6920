//! Kernel text files, read again and again through a file that stays open.
//!
//! `pread` of a kept file costs a fifth of opening, reading and closing it in cgroupfs, and io_uring gains nothing: the
//! kernel makes the text inside the call. The procfs crate is not used here: it allocates per field, gives load
//! averages as `f32` and needs `full` in files where it may be missing.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Whether a file stays open between two reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Open,
    /// Where descriptors are short.
    Closed,
}

/// How the kernel makes a file's text, which decides when it has been read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// In one piece (`single_open`, and all of cgroupfs): a short read is the end of it.
    Whole,
    /// Record by record, as many as fit into a page: only an empty read is the end of it.
    Records,
}

#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    file: Option<File>,
    keep: Keep,
    shape: Shape,
}

/// Where files are read into; it grows to the largest of them.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

/// Text that is not what the kernel writes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("read {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("unexpected content in {}: {what}", path.display())]
    Malformed { path: PathBuf, what: &'static str },
}

impl ReadError {
    /// The file isn't there, or what it described has gone: through a kept file cgroupfs then says `ENODEV`, and a
    /// process's files say `ESRCH`.
    pub(crate) fn is_gone(&self) -> bool {
        use rustix::io::Errno;
        match self {
            Self::Io { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    || [Errno::NODEV, Errno::SRCH]
                        .map(|gone| Some(gone.raw_os_error()))
                        .contains(&source.raw_os_error())
            }
            Self::Malformed { .. } => false,
        }
    }

    /// The kernel was built or booted without it: `EOPNOTSUPP` is what `/proc/pressure` says under `psi=0`.
    pub(crate) fn is_unsupported(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                source.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error())
            }
            Self::Malformed { .. } => false,
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        // Holds every file of a small host; one that doesn't fit doubles it.
        Self(vec![0; 16 * 1024])
    }
}

impl Buffer {
    /// Reads an open file from its beginning; says how long it is.
    fn fill(&mut self, file: &File, shape: Shape) -> io::Result<usize> {
        let mut length = 0;
        loop {
            let room = self.0.len() - length;
            let read = file.read_at(&mut self.0[length..], length as u64)?;
            length += read;
            if length == self.0.len() {
                self.0.resize(length * 2, 0);
            } else if read == 0 || (read < room && shape == Shape::Whole) {
                return Ok(length);
            }
        }
    }

    /// The text of an open file that `path` names.
    pub(crate) fn text(&mut self, file: &File, shape: Shape, path: &Path) -> Result<&str, ReadError> {
        let read = self.fill(file, shape);
        let length = read.map_err(|source| ReadError::Io { path: path.to_path_buf(), source })?;
        self.lines(length, path)
    }

    /// Names in it may be any bytes, and anyone may have made them: those that are no UTF-8 become question marks, and a
    /// name costs itself alone.
    fn lines(&mut self, length: usize, path: &Path) -> Result<&str, ReadError> {
        let malformed = |what| ReadError::Malformed { path: path.to_path_buf(), what };
        let bytes = &mut self.0[..length];
        while let Err(error) = std::str::from_utf8(bytes) {
            let from = error.valid_up_to();
            let until = error.error_len().map_or(length, |wrong| from + wrong);
            bytes[from..until].fill(b'?');
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(malformed("ends within a line"));
        }
        Ok(text)
    }
}

impl KeptFile {
    pub(crate) fn new(path: PathBuf, shape: Shape, keep: Keep) -> Self {
        Self { path, file: None, keep, shape }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file and has its text parsed.
    pub(crate) fn parse<T>(
        &mut self,
        buffer: &mut Buffer,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<T, ReadError> {
        let length = match self.fill(buffer) {
            Ok(length) => length,
            Err(source) => {
                // A descriptor that failed once may point to something that has been replaced.
                self.file = None;
                return Err(ReadError::Io { path: self.path.clone(), source });
            }
        };
        let text = buffer.lines(length, &self.path)?;
        parse(text).map_err(|Malformed(what)| ReadError::Malformed { path: self.path.clone(), what })
    }

    fn fill(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        let length = buffer.fill(&file, self.shape)?;
        if self.keep == Keep::Open {
            self.file = Some(file);
        }
        Ok(length)
    }
}

/// Reads a file that is needed once or rarely.
pub(crate) fn read_text(path: &Path) -> Result<String, ReadError> {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|source| ReadError::Io { path: path.to_path_buf(), source })
}

/// The fields of a line as numbers.
pub(crate) fn numbers<const N: usize>(
    fields: &mut std::str::SplitAsciiWhitespace<'_>,
    what: &'static str,
) -> Result<[u64; N], Malformed> {
    let mut values = [0; N];
    for value in &mut values {
        *value = fields.next().and_then(|field| field.parse().ok()).ok_or(Malformed(what))?;
    }
    Ok(values)
}

/// An error with its causes, for the detail of a source's state.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String can't fail.
        write!(text, ": {error}").unwrap_or_default();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn length(text: &str) -> Result<usize, Malformed> {
        Ok(text.len())
    }

    #[test]
    fn a_file_larger_than_the_buffer_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        fs::write(&path, "x".repeat(99_999) + "\n").unwrap();
        for shape in [Shape::Whole, Shape::Records] {
            let mut file = KeptFile::new(path.clone(), shape, Keep::Open);
            assert_eq!(file.parse(&mut Buffer::default(), length).unwrap(), 100_000);
        }
    }

    #[test]
    fn a_kept_file_gives_the_text_of_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        fs::write(&path, "12345\n").unwrap();
        let mut file = KeptFile::new(path.clone(), Shape::Whole, Keep::Open);
        let mut buffer = Buffer::default();
        file.parse(&mut buffer, length).unwrap();
        fs::write(&path, "7\n").unwrap();
        assert_eq!(file.parse(&mut buffer, |text| Ok(text.to_owned())).unwrap(), "7\n");
    }

    #[test]
    fn names_that_are_no_text_cost_themselves_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        fs::write(&path, b"a 1\nb\xff\xfe 2\nc\xe2\x82 3\n\xc3\xa4 4\n").unwrap();
        let mut file = KeptFile::new(path, Shape::Whole, Keep::Open);
        let text = file.parse(&mut Buffer::default(), |text| Ok(text.to_owned())).unwrap();
        assert_eq!(text, "a 1\nb?? 2\nc?? 3\n\u{e4} 4\n");
    }

    #[test]
    fn text_cut_within_a_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        fs::write(&path, "MemTotal: 246840").unwrap();
        let mut file = KeptFile::new(path, Shape::Whole, Keep::Open);
        let error = file.parse(&mut Buffer::default(), length).unwrap_err();
        assert!(matches!(error, ReadError::Malformed { what: "ends within a line", .. }));
    }

    #[test]
    fn a_closed_file_keeps_no_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        fs::write(&path, "1\n").unwrap();
        let mut file = KeptFile::new(path, Shape::Whole, Keep::Closed);
        file.parse(&mut Buffer::default(), length).unwrap();
        assert!(!file.is_open());
    }

    #[test]
    fn the_chain_names_the_path_once() {
        let error = read_text(Path::new("/nonexistent/file")).unwrap_err();
        assert!(error.is_gone());
        assert_eq!(chain(&error), "read /nonexistent/file: No such file or directory (os error 2)");
    }
}
