//! How far an epoch has come: which sequence was given last, and with which one the segment in use begins.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::place::{path, private};

pub(super) const HEAD: &str = "head";

#[derive(Debug)]
pub(super) struct Head {
    path: PathBuf,
    file: Option<File>,
    pub(super) assigned: u64,
    /// All before it is in other segments, or stored.
    pub(super) base: u64,
}

impl Head {
    #[must_use]
    pub(super) fn begin(dir: &Path, epoch: u64) -> Self {
        Self { path: path(dir, epoch, HEAD), file: None, assigned: 0, base: 1 }
    }

    /// Holds, whether or not the disk takes it.
    pub(super) fn note(&mut self, assigned: u64, base: u64) -> io::Result<()> {
        (self.assigned, self.base) = (assigned, base);
        if self.file.is_none() {
            self.file = Some(private().create(true).truncate(true).open(&self.path)?);
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&assigned.to_le_bytes());
        bytes[8..].copy_from_slice(&base.to_le_bytes());
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(&bytes, 0))
    }
}

/// What was given last, and where the last segment began.
#[must_use]
pub(super) fn read(dir: &Path, epoch: u64) -> Option<(u64, u64)> {
    let bytes = fs::read(path(dir, epoch, HEAD)).ok()?;
    let (assigned, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*assigned), u64::from_le_bytes(*rest.first_chunk::<8>()?)))
}
