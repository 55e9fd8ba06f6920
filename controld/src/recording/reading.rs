//! Reading a recording, checked on the way.

use std::fs::File;
use std::io::{self, Read as _};

use bytes::Bytes;
use horcrux_proto::v1::{ConsoleKind, RecordingVerdict};

use super::check::{Check, Noted};
use super::space::file;
use super::{Recordings, as_it_stands};
use crate::store::StoreError;
use crate::store::recordings::RecordingRow;

/// Read and sent at once.
const PIECE: usize = 64 << 10;

/// A recording that is being read, up to where it ended when that began.
#[derive(Debug)]
pub struct Reading {
    file: File,
    left: u64,
    check: Check,
    noted: Noted,
}

/// What comes next of it.
#[derive(Debug)]
pub enum Next {
    Piece(Box<Reading>, Bytes),
    Verdict(RecordingVerdict),
}

impl Recordings {
    /// A recording as it stands, where there is one.
    pub async fn find(&self, id: &str) -> Result<Option<RecordingRow>, StoreError> {
        let mut row = self.store.recording(id).await?;
        if let Some(row) = row.as_mut().filter(|row| row.ended_ms.is_none()) {
            as_it_stands(&self.opened(), row);
        }
        Ok(row)
    }

    /// Blocks for a moment.
    pub fn read(&self, row: &RecordingRow) -> io::Result<Box<Reading>> {
        let kind = ConsoleKind::try_from(row.kind).unwrap_or(ConsoleKind::Unspecified);
        let noted = match (row.ended_ms, &row.last_link) {
            (None, _) => Noted::Open,
            (Some(_), None) => Noted::CutShort,
            (Some(_), Some(link)) => Noted::Ended(link.as_slice().try_into().unwrap_or_default()),
        };
        let file = File::open(file(&self.dir, &row.id))?;
        // Of one that goes on, only what is whole.
        let left = match noted {
            Noted::Open => u64::try_from(row.size).unwrap_or_default(),
            Noted::CutShort | Noted::Ended(_) => u64::MAX,
        };
        Ok(Box::new(Reading { file, left, check: Check::new(kind), noted }))
    }
}

impl Reading {
    /// Blocks for a moment.
    pub fn go_on(mut self: Box<Self>) -> io::Result<Next> {
        let mut piece = vec![0; PIECE];
        let most = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let read = self.file.read(&mut piece[..most])?;
        if read == 0 {
            return Ok(Next::Verdict(self.check.verdict(self.noted)));
        }
        piece.truncate(read);
        self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        self.check.take(&piece);
        Ok(Next::Piece(self, piece.into()))
    }
}
