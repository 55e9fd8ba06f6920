//! A run of records: a file, or memory where the disk takes none.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::place::{self, private, read, remove, restore};
use super::record::{Record, filled, read_all};

/// Records of one epoch whose sequences follow each other.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) epoch: u64,
    pub(super) first: u64,
    /// One less than `first` while it is empty.
    pub(super) last: u64,
    /// All up to here are stored at the controller.
    pub(super) acked: u64,
    /// Sent as it was taken, on the stream that is there now.
    pub(super) live: bool,
    /// When its newest record was taken.
    pub(super) until_ms: i64,
    /// Nothing more can be taken from it by that.
    pub(super) thinned: Thinned,
    bytes: u64,
    place: Place,
}

/// How much was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thinned {
    Not,
    OneAMinute,
    EventsOnly,
    Nothing,
}

#[derive(Debug)]
enum Place {
    Disk { path: PathBuf, file: File },
    Memory(Vec<u8>),
}

impl Segment {
    /// Begins an empty one: in `dir`, or in memory.
    pub(super) fn begin(dir: Option<&Path>, epoch: u64, first: u64, live: bool) -> io::Result<Self> {
        let place = match dir {
            Some(dir) => {
                let path = dir.join(name(epoch, first));
                let file = private().create_new(true).open(&path)?;
                Place::Disk { path, file }
            }
            None => Place::Memory(Vec::new()),
        };
        let last = first - 1;
        Ok(Self {
            epoch,
            first,
            last,
            acked: last,
            live,
            until_ms: 0,
            thinned: Thinned::Not,
            bytes: 0,
            place,
        })
    }

    /// Opens a file that an earlier run left: one that isn't of the epoch `current`.
    pub(super) fn recover(path: &Path, current: Option<u64>) -> io::Result<Option<Self>> {
        let Some((epoch, first)) = parsed(path).filter(|(epoch, _)| Some(*epoch) != current) else {
            return Ok(None);
        };
        let (file, bytes) = read(path)?;
        let (records, end) = read_all(&bytes);
        let (mut last, mut until_ms) = (first - 1, 0);
        for record in records.iter().filter(|record| record.message.epoch == epoch) {
            last = last.max(record.sequences().1);
            until_ms = until_ms.max(record.span_ms().1);
        }
        file.set_len(end as u64)?;
        let place = Place::Disk { path: path.to_owned(), file };
        Ok(Some(Self {
            epoch,
            first,
            last,
            acked: first - 1,
            live: false,
            until_ms,
            thinned: Thinned::Not,
            bytes: end as u64,
            place,
        }))
    }

    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        match &mut self.place {
            Place::Disk { file, .. } => file.write_all_at(&bytes, self.bytes)?,
            Place::Memory(all) => all.extend_from_slice(&bytes),
        }
        self.bytes += bytes.len() as u64;
        self.last = record.sequences().1;
        self.until_ms = self.until_ms.max(record.span_ms().1);
        Ok(())
    }

    /// All from its first sequence to its last: what is not whole is in gaps.
    pub(super) fn records(&self) -> io::Result<Vec<Record>> {
        let records = match &self.place {
            Place::Disk { file, .. } => {
                let mut bytes = vec![0; usize::try_from(self.bytes).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut bytes, 0)?;
                read_all(&bytes).0
            }
            Place::Memory(bytes) => read_all(bytes).0,
        };
        Ok(filled(records, self.epoch, (self.first, self.last), self.until_ms))
    }

    /// Replaces its records by fewer.
    pub(super) fn replace(&mut self, records: &[Record], thinned: Thinned) -> io::Result<()> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.write(&mut bytes));
        match &mut self.place {
            Place::Disk { path, file } => {
                // Beside it and then in its place: whoever is killed meanwhile finds one or the other, whole.
                let beside = path.with_extension("new");
                let new = private().create(true).truncate(true).open(&beside)?;
                new.write_all_at(&bytes, 0)?;
                new.sync_data()?;
                fs::rename(&beside, path)?;
                *file = new;
            }
            Place::Memory(all) => all.clone_from(&bytes),
        }
        (self.bytes, self.thinned) = (bytes.len() as u64, thinned);
        Ok(())
    }

    /// Empties it: all of it is stored. What comes next begins after it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        let first = self.last + 1;
        match &mut self.place {
            Place::Disk { path, file } => {
                file.set_len(0)?;
                let renamed = path.with_file_name(name(self.epoch, first));
                fs::rename(&*path, &renamed)?;
                *path = renamed;
            }
            Place::Memory(bytes) => bytes.clear(),
        }
        (self.first, self.acked, self.bytes) = (first, self.last, 0);
        Ok(())
    }

    /// Puts what was written where a power cut doesn't reach it.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.place {
            Place::Disk { file, .. } => file.sync_data(),
            Place::Memory(_) => Ok(()),
        }
    }

    /// Writes it again where its file was removed.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        match &mut self.place {
            Place::Disk { path, file } => restore(path, file),
            Place::Memory(_) => Ok(()),
        }
    }

    pub(super) fn remove(self) -> io::Result<()> {
        match self.place {
            Place::Disk { path, .. } => remove(&path),
            Place::Memory(_) => Ok(()),
        }
    }

    #[must_use]
    pub(super) fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::Disk { .. })
    }

    #[must_use]
    pub(super) fn is_stored(&self) -> bool {
        self.acked >= self.last
    }

    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn name(epoch: u64, first: u64) -> String {
    format!("{epoch:020}-{first:020}.records")
}

fn parsed(path: &Path) -> Option<(u64, u64)> {
    let (epoch, first) = path.file_name()?.to_str()?.strip_suffix(".records")?.split_once('-')?;
    let first = first.parse().ok().filter(|first| *first > 0)?;
    Some((place::parsed(epoch)?, first))
}
