//! How far an epoch has come: which sequence was given last, and up to which all is stored.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::place::{self, path, private, restore};

pub(super) const HEAD: &str = "head";

/// Two numbers and their checksum.
const COPY: usize = 20;

#[derive(Debug)]
pub(super) struct Head {
    path: PathBuf,
    file: Option<File>,
    pub(super) assigned: u64,
    /// All up to it is stored at the controller.
    pub(super) stored: u64,
}

impl Head {
    #[must_use]
    pub(super) fn begin(dir: &Path, epoch: u64) -> Self {
        Self { path: path(dir, epoch, HEAD), file: None, assigned: 0, stored: 0 }
    }

    /// Holds, whether or not the disk takes it.
    pub(super) fn note(&mut self, assigned: u64, stored: u64) -> io::Result<()> {
        (self.assigned, self.stored) = (assigned, stored);
        if self.file.is_none() {
            self.file = Some(private().create(true).truncate(true).open(&self.path)?);
        }
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(&copies(assigned, stored), 0))
    }

    /// Writes it again where it was removed.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| restore(&self.path, file))
    }
}

/// Twice the same: of two, one is whole whatever single fault the disk has.
fn copies(assigned: u64, stored: u64) -> [u8; 2 * COPY] {
    let mut copy = [0; COPY];
    copy[..8].copy_from_slice(&assigned.to_le_bytes());
    copy[8..16].copy_from_slice(&stored.to_le_bytes());
    let sum = crc32fast::hash(&copy[..16]);
    copy[16..].copy_from_slice(&sum.to_le_bytes());
    let mut copies = [0; 2 * COPY];
    copies[..COPY].copy_from_slice(&copy);
    copies[COPY..].copy_from_slice(&copy);
    copies
}

/// What was given last, and up to where all is stored; `None` where neither is known any more.
#[must_use]
pub(super) fn read(dir: &Path, epoch: u64) -> Option<(u64, u64)> {
    parsed(&place::read(&path(dir, epoch, HEAD)).ok()?.1)
}

fn parsed(bytes: &[u8]) -> Option<(u64, u64)> {
    let whole = bytes.chunks_exact(COPY).filter_map(|copy| {
        let (numbers, sum) = copy.split_at(16);
        let (assigned, stored) = numbers.split_first_chunk::<8>()?;
        let numbers_hold = crc32fast::hash(numbers).to_le_bytes() == sum;
        let (assigned, stored) = (u64::from_le_bytes(*assigned), u64::from_le_bytes(*stored.first_chunk()?));
        (numbers_hold && stored <= assigned).then_some((assigned, stored))
    });
    whole.max()
}

/// Notes of an epoch that doesn't run any more that more of it is stored.
pub(super) fn note_stored(dir: &Path, epoch: u64, stored: u64) -> io::Result<()> {
    let Some((assigned, before)) = read(dir, epoch).filter(|(assigned, _)| stored <= *assigned) else {
        return Ok(());
    };
    let file = private().open(path(dir, epoch, HEAD))?;
    file.write_all_at(&copies(assigned, stored.max(before)), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_bit_flips_it_is_known() {
        let mut bytes = copies(70_000, 69_000);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parsed(&bytes), Some((70_000, 69_000)), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(parsed(&[7; 2 * COPY]), None);
        assert_eq!(parsed(&bytes[..COPY - 1]), None);
    }
}
