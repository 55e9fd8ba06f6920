//! What the ids of an epoch stand for: one file that only grows, so that records need not repeat it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use horcrux_proto::agent::v1::{Backfill, SampleBatch, Series, backfill};
use prost::Message as _;

use super::place::{self, path, private, restore};
use super::record::{Record, read_all};

pub(super) const SERIES: &str = "series";

/// The file of the epoch that runs.
#[derive(Debug)]
pub(super) struct Names {
    path: PathBuf,
    epoch: u64,
    file: Option<File>,
    bytes: u64,
    /// Declarations that the disk didn't take.
    memory: Vec<Series>,
    /// Bytes of them.
    held: u64,
}

impl Names {
    #[must_use]
    pub(super) fn begin(dir: &Path, epoch: u64) -> Self {
        Self { path: path(dir, epoch, SERIES), epoch, file: None, bytes: 0, memory: Vec::new(), held: 0 }
    }

    /// Keeps declarations; says where the disk didn't take them. They are not lost then: memory has them.
    pub(super) fn add(&mut self, declared: Vec<Series>) -> io::Result<()> {
        if declared.is_empty() {
            return Ok(());
        }
        self.held += declared.iter().map(|series| series.encoded_len() as u64).sum::<u64>();
        self.memory.extend(declared);
        if self.file.is_none() {
            self.file = Some(private().create(true).truncate(true).open(&self.path)?);
        }
        let batch = SampleBatch { declared: self.memory.clone(), ..SampleBatch::default() };
        let mut bytes = Vec::new();
        Record::new("", self.epoch, backfill::Record::Samples(batch)).write(&mut bytes);
        if let Some(file) = &self.file {
            file.write_all_at(&bytes, self.bytes)?;
        }
        self.bytes += bytes.len() as u64;
        self.memory.clear();
        self.held = 0;
        Ok(())
    }

    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.held
    }

    /// Writes it again where it was removed.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| restore(&self.path, file))
    }

    /// All that this epoch declared, as far as it is whole.
    pub(super) fn all(&self) -> io::Result<HashMap<u32, Series>> {
        let mut bytes = vec![0; usize::try_from(self.bytes).unwrap_or(0)];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut bytes, 0)?;
        }
        let mut all = parsed(&bytes);
        all.extend(self.memory.iter().map(|series| (series.id, series.clone())));
        Ok(all)
    }
}

/// What an earlier epoch declared, as far as it is whole.
pub(super) fn of_epoch(dir: &Path, epoch: u64) -> io::Result<HashMap<u32, Series>> {
    match place::read(&path(dir, epoch, SERIES)) {
        Ok((_, bytes)) => Ok(parsed(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashMap::new()),
        Err(error) => Err(error),
    }
}

fn parsed(bytes: &[u8]) -> HashMap<u32, Series> {
    let declared = read_all(bytes).0.into_iter().flat_map(|record| match record.message {
        Backfill { record: Some(backfill::Record::Samples(batch)), .. } => batch.declared,
        Backfill { .. } => Vec::new(),
    });
    declared.map(|series| (series.id, series)).collect()
}
