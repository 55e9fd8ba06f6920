//! What was ordered, and what came of it: so that nothing is carried out twice, whatever ends in between.
//!
//! A file of lines, each one JSON. An order is on the disk before it is carried out, and its result after. Where there is
//! no result when the file is read again, nobody knows. It is written anew, without what is too old, each time it is read
//! and when it has grown.
//!
//! A line that was not written to its end was not acted upon, and is left out. One in the middle that can't be read is
//! another matter: somebody or something changed the file, so nothing is carried out until people have looked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions, rename};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use horcrux_envelope::{Id, Order};
use horcrux_privd::v1::OrderStatus;
use serde::{Deserialize, Serialize};

/// Entries that are kept, and for how long.
const MOST: usize = 10_000;
const AGE_MS: i64 = 7 * 24 * 3600 * 1000;
/// Lines after which it is written anew: an entry has two.
const MOST_LINES: usize = 3 * MOST;

#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Of what was written whole.
    length: u64,
    lines: usize,
    entries: HashMap<String, Entry>,
    /// The oldest first.
    order: VecDeque<String>,
    /// The highest of each signer.
    sequences: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Entry {
    since_unix_ms: i64,
    /// It is on the disk.
    is_kept: bool,
    settled: Option<Settled>,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) status: OrderStatus,
    pub(crate) reason: String,
}

/// What is known of an order that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: from now on it is being decided, by whoever asked.
    New,
    Running,
    Settled(Settled),
    /// Its sequence is not beyond this one.
    Late(u64),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("line {line} of {} is damaged: move the file away once its cause is known", path.display())]
    Damaged { path: PathBuf, line: usize },
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Sequence {
        signer: String,
        sequence: u64,
    },
    Accepted {
        command: String,
        signer: String,
        sequence: u64,
        unix_ms: i64,
    },
    /// Accepted in a file before this one.
    Kept {
        command: String,
        unix_ms: i64,
    },
    Settled {
        command: String,
        status: String,
        reason: String,
    },
}

impl Journal {
    /// Reads the one at `path`, or begins it.
    pub(crate) fn open(path: &Path, now_ms: i64) -> Result<Self, JournalError> {
        let text = match File::open(path) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                let read = file.read_to_end(&mut bytes);
                read.map_err(|source| JournalError::Read { path: path.to_owned(), source })?;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(JournalError::Read { path: path.to_owned(), source }),
        };
        let file = create(path)?;
        let (entries, order) = (HashMap::new(), VecDeque::new());
        let sequences = BTreeMap::new();
        let mut journal =
            Self { path: path.to_owned(), file, length: 0, lines: 0, entries, order, sequences };
        journal.replay(&text)?;
        let unknown = || Settled {
            status: OrderStatus::Unknown,
            reason: "horcrux-privd ended before it was done: it may have been".to_owned(),
        };
        for entry in journal.entries.values_mut() {
            entry.settled.get_or_insert_with(unknown);
        }
        journal.forget(now_ms);
        journal.write_anew()?;
        Ok(journal)
    }

    /// Takes a place for an order, where it is new and comes after those of its signer that came before.
    pub(crate) fn claim(&mut self, order: &Order) -> Known {
        let command = order.command.to_string();
        if let Some(entry) = self.entries.get(&command) {
            return entry.settled.clone().map_or(Known::Running, Known::Settled);
        }
        let last = self.sequences.entry(order.signer.to_string()).or_default();
        if order.sequence <= *last {
            return Known::Late(*last);
        }
        *last = order.sequence;
        self.enter(command, Entry { since_unix_ms: order.issued_unix_ms, is_kept: false, settled: None });
        Known::New
    }

    /// Has it on the disk that a claimed order was decided: only then may it be carried out.
    pub(crate) fn accept(&mut self, order: &Order, now_ms: i64) -> Result<(), JournalError> {
        self.forget(now_ms);
        if self.lines >= MOST_LINES {
            self.write_anew()?;
        }
        let (command, signer) = (order.command.to_string(), order.signer.to_string());
        if let Some(entry) = self.entries.get_mut(&command) {
            entry.since_unix_ms = now_ms;
        }
        let line =
            Line::Accepted { command: command.clone(), signer, sequence: order.sequence, unix_ms: now_ms };
        self.append(&line)?;
        if let Some(entry) = self.entries.get_mut(&command) {
            entry.is_kept = true;
        }
        Ok(())
    }

    pub(crate) fn settle(&mut self, command: Id, settled: Settled) -> Result<(), JournalError> {
        let command = command.to_string();
        let Settled { status, reason } = settled.clone();
        // Told from memory in any case: what can't be written is unknown after a restart.
        let Some(entry) = self.entries.get_mut(&command) else { return Ok(()) };
        entry.settled = Some(settled);
        // What was decided before it had a place on the disk was not carried out.
        if !entry.is_kept {
            return Ok(());
        }
        self.append(&Line::Settled { command, status: status.as_str_name().to_owned(), reason })
    }

    fn replay(&mut self, text: &[u8]) -> Result<(), JournalError> {
        let mut lines = text.split_inclusive(|&byte| byte == b'\n').enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let is_last = lines.peek().is_none();
            let whole = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok());
            match whole.map(|line| self.take(line)) {
                Some(Some(())) => {}
                // The end of a write that was cut short.
                None if is_last => {}
                Some(None) | None => {
                    return Err(JournalError::Damaged { path: self.path.clone(), line: number + 1 });
                }
            }
        }
        Ok(())
    }

    /// None: it makes no sense after those before it.
    fn take(&mut self, line: Line) -> Option<()> {
        match line {
            Line::Sequence { signer, sequence } => self.raise(signer, sequence),
            Line::Accepted { command, signer, sequence, unix_ms } => {
                self.raise(signer, sequence);
                self.keep(command, unix_ms);
            }
            Line::Kept { command, unix_ms } => self.keep(command, unix_ms),
            Line::Settled { command, status, reason } => {
                let status = OrderStatus::from_str_name(&status)?;
                self.entries.get_mut(&command)?.settled = Some(Settled { status, reason });
            }
        }
        Some(())
    }

    fn raise(&mut self, signer: String, sequence: u64) {
        let last = self.sequences.entry(signer).or_default();
        *last = sequence.max(*last);
    }

    fn keep(&mut self, command: String, since_unix_ms: i64) {
        self.enter(command, Entry { since_unix_ms, is_kept: true, settled: None });
    }

    fn enter(&mut self, command: String, entry: Entry) {
        if self.entries.insert(command.clone(), entry).is_none() {
            self.order.push_back(command);
        }
    }

    /// What is being carried out is not forgotten.
    fn forget(&mut self, now_ms: i64) {
        while let Some(oldest) = self.order.front() {
            let entry = self.entries.get(oldest);
            let is_old = |entry: &Entry| {
                entry.settled.is_some()
                    && (self.order.len() > MOST || now_ms.saturating_sub(entry.since_unix_ms) > AGE_MS)
            };
            if !entry.is_none_or(is_old) {
                return;
            }
            self.entries.remove(&oldest.clone());
            self.order.pop_front();
        }
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let text = encode(line).map_err(|source| self.unwritten(source))?;
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a line must not stand before the next.
            if let Err(error) = self.file.set_len(self.length) {
                tracing::error!(%error, "the journal can't be cut back");
            }
            return Err(self.unwritten(source));
        }
        self.length += u64::try_from(text.len()).unwrap_or_default();
        self.lines += 1;
        Ok(())
    }

    fn write_anew(&mut self) -> Result<(), JournalError> {
        let sequences = self.sequences.iter();
        let mut lines: Vec<Line> = sequences
            .map(|(signer, &sequence)| Line::Sequence { signer: signer.clone(), sequence })
            .collect();
        for command in &self.order {
            let Some(entry) = self.entries.get(command).filter(|entry| entry.is_kept) else { continue };
            lines.push(Line::Kept { command: command.clone(), unix_ms: entry.since_unix_ms });
            if let Some(Settled { status, reason }) = entry.settled.clone() {
                let status = status.as_str_name().to_owned();
                lines.push(Line::Settled { command: command.clone(), status, reason });
            }
        }
        let text: Result<String, io::Error> = lines.iter().map(encode).collect();
        let text = text.map_err(|source| self.unwritten(source))?;
        let beside = self.path.with_extension("new");
        let written = write_whole(&beside, &text).and_then(|()| rename(&beside, &self.path));
        let written = written.and_then(|()| File::open(self.path.parent().unwrap_or(&self.path))?.sync_all());
        written.map_err(|source| self.unwritten(source))?;
        self.file = create(&self.path)?;
        self.length = u64::try_from(text.len()).unwrap_or_default();
        self.lines = lines.len();
        Ok(())
    }

    fn unwritten(&self, source: io::Error) -> JournalError {
        JournalError::Write { path: self.path.clone(), source }
    }
}

fn encode(line: &Line) -> io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

fn create(path: &Path) -> Result<File, JournalError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|source| JournalError::Write { path: path.to_owned(), source })
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
