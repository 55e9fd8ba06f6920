//! The spool on a thread of its own: a disk that hangs costs what it would have kept, and holds up nobody.
//!
//! What was given is written when [`Keeper::settle`] returns, if the disk answers in time. One that doesn't is not waited
//! for again before it has; until then what is given is held in memory. What is beyond [`HELD`] is shed: it is told, and
//! becomes a gap when the disk answers.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{Ack, Backfill, Gap, Series, backfill};
use horcrux_proto::v1::SourceState;
use horcrux_transport::clock;
use prost::Message as _;

use super::record::Record;
use super::{Limits, Spool};
use crate::host::worker::Worker;

/// A write into the page cache takes a thousandth of it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes that wait for a disk that doesn't answer.
const HELD: usize = 4 << 20;
/// Declarations that are given to the thread at a time.
const PIECE: usize = 256 << 10;
/// An epoch that has declared too much isn't followed by another sooner: on a host with so many series each would.
const LEAST_EPOCH: Duration = Duration::from_secs(600);
/// Bytes that are read ahead of what is sent.
const AHEAD: usize = 128 << 10;

/// The link's side. Gives each record its sequence.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    worker: Worker<Vec<Work>, ()>,
    told: Arc<Mutex<Told>>,
    epoch: u64,
    assigned: u64,
    /// Counts streams: what was read for one is nothing to the next.
    stream: u64,
    given: Vec<Work>,
    held: usize,
    shed: Option<Gap>,
    /// Declarations were shed: only another epoch can be kept whole.
    is_incomplete: bool,
    began: Instant,
}

/// One thing for the thread to do.
#[derive(Debug)]
enum Work {
    Add { record: Box<Record>, live: bool, now_ms: i64 },
    Declare(Vec<Series>),
    Acked(Ack),
    BeginStream(u64),
    Renew(u64),
    Load,
}

/// What the thread said last.
#[derive(Debug, Default)]
struct Told {
    trouble: Option<String>,
    is_worn: bool,
    has_more: bool,
    stream: u64,
    loaded: VecDeque<Backfill>,
}

impl Keeper {
    /// Opens the spool of a state directory and begins an epoch.
    pub fn open(state_dir: &Path, limits: Limits, now_ms: i64) -> io::Result<Self> {
        Self::start(Spool::open(state_dir, limits, now_ms), || ())
    }

    /// `before` runs on the thread before anything it is given is done.
    fn start(mut spool: Spool, mut before: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let told = Arc::new(Mutex::new(Told::default()));
        let (dir, epoch) = (spool.dir.clone(), spool.epoch());
        lock(&told).hear(&spool);
        let tells = Arc::clone(&told);
        let worker = Worker::start("spool", move |given: Vec<Work>| {
            before();
            for work in given {
                work.on(&mut spool, &tells);
            }
            lock(&tells).hear(&spool);
        })?;
        let given = Vec::new();
        Ok(Self {
            dir,
            worker,
            told,
            epoch,
            assigned: 0,
            stream: 0,
            given,
            held: 0,
            shed: None,
            is_incomplete: false,
            began: clock::monotonic(),
        })
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The sequence that was given last.
    #[must_use]
    pub fn assigned(&self) -> u64 {
        self.assigned
    }

    /// The next sequence, for a record that follows at once.
    pub fn assign(&mut self) -> u64 {
        self.assigned += 1;
        self.assigned
    }

    /// Why nothing is kept on disk, while it isn't.
    pub fn trouble(&mut self) -> Option<(SourceState, String)> {
        match self.worker.is_free() {
            Ok(()) => lock(&self.told).trouble.clone().map(|why| (SourceState::Failing, why)),
            Err(no) => {
                let shed = self.shed.as_ref().map(|gap| gap.last_sequence - gap.first_sequence + 1);
                let shed = shed.map_or_else(String::new, |count| format!("; {count} records were not kept"));
                Some((SourceState::Stuck, format!("{}: {no}{shed}", self.dir.display())))
            }
        }
    }

    /// Its epoch has declared so much, or lost so much of it, that a new one should begin.
    pub fn is_worn(&mut self) -> bool {
        let is_back = self.is_incomplete && self.worker.is_free().is_ok();
        let has_lasted = clock::monotonic().saturating_duration_since(self.began) >= LEAST_EPOCH;
        is_back || has_lasted && lock(&self.told).is_worn
    }

    /// Begins another epoch, in which nothing is declared yet.
    pub fn renew(&mut self, now_ms: i64) {
        // What was shed before is of the epoch before.
        self.end_shedding();
        self.epoch = u64::try_from(now_ms).unwrap_or(0).max(self.epoch + 1);
        (self.assigned, self.is_incomplete, self.began) = (0, false, clock::monotonic());
        lock(&self.told).is_worn = false;
        self.given.push(Work::Renew(self.epoch));
        self.settle();
    }

    /// Keeps what new ids stand for: all that a large host has may be more than is held, so the thread gets it in pieces.
    pub fn declare(&mut self, declared: Vec<Series>) {
        let mut rest = declared.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut piece, mut bytes) = (Vec::new(), 0);
            while bytes < PIECE
                && let Some(series) = rest.next()
            {
                bytes += series.encoded_len();
                piece.push(series);
            }
            if !self.has_room(bytes) {
                self.is_incomplete = true;
                return;
            }
            self.held += bytes;
            self.given.push(Work::Declare(piece));
        }
    }

    /// Whether so much more can be held, where need be after the thread has taken what is.
    fn has_room(&mut self, bytes: usize) -> bool {
        if self.held + bytes > HELD {
            self.settle();
        }
        self.held + bytes <= HELD
    }

    /// Keeps a record whose sequence was assigned; `live` when it is sent at once as well.
    pub fn add(&mut self, lane: &str, record: backfill::Record, live: bool, now_ms: i64) {
        let record = Record::new(lane, self.epoch, record);
        let bytes = record.message.encoded_len();
        if self.shed.is_some() {
            self.settle();
        }
        if self.shed.is_some() || self.is_incomplete || !self.has_room(bytes) {
            self.shed(&record);
            return;
        }
        self.held += bytes;
        self.given.push(Work::Add { record: Box::new(record), live, now_ms });
    }

    /// Records that were dropped before they had a sequence: they get theirs, and a gap.
    pub fn lost(&mut self, count: u64, reason: &str, now_ms: i64) {
        if count == 0 {
            return;
        }
        let first_sequence = self.assigned + 1;
        self.assigned += count;
        let gap = Gap {
            first_sequence,
            last_sequence: self.assigned,
            from_unix_ms: now_ms,
            until_unix_ms: now_ms,
            reason: reason.to_owned(),
        };
        self.add("", backfill::Record::Gap(gap), false, now_ms);
    }

    /// A stream begins, which knows nothing and has brought nothing.
    pub fn begin_stream(&mut self) {
        self.stream += 1;
        self.given.push(Work::BeginStream(self.stream));
        self.settle();
    }

    /// What a controller has stored goes, with what is given next.
    pub fn acked(&mut self, ack: &Ack) {
        let same = |before: &Ack| (before.epoch, before.backfill) == (ack.epoch, ack.backfill);
        match self.given.last_mut() {
            Some(Work::Acked(before)) if same(before) => *before = *ack,
            _ => self.given.push(Work::Acked(*ack)),
        }
    }

    /// Writes what was given, as far as the disk answers.
    pub fn settle(&mut self) {
        if self.worker.is_free().is_err() {
            return;
        }
        self.end_shedding();
        if self.given.is_empty() {
            return;
        }
        self.held = 0;
        if let Err(no) = self.worker.ask(std::mem::take(&mut self.given), PATIENCE) {
            tracing::warn!(dir = %self.dir.display(), why = %no, "the spool's disk is slow: memory serves until it answers");
        }
    }

    /// The next record that isn't sent as it is taken.
    pub fn next_backfill(&mut self) -> Option<Backfill> {
        if let Some(message) = self.loaded() {
            return Some(message);
        }
        if !lock(&self.told).has_more || self.worker.is_free().is_err() {
            return None;
        }
        self.given.push(Work::Load);
        self.settle();
        self.loaded()
    }

    fn loaded(&self) -> Option<Backfill> {
        let mut told = lock(&self.told);
        if told.stream == self.stream { told.loaded.pop_front() } else { None }
    }

    fn shed(&mut self, record: &Record) {
        let more = record.given_up("the spool's disk did not answer, and there was no more room");
        match &mut self.shed {
            Some(gap) => {
                (gap.last_sequence, gap.until_unix_ms) = (more.last_sequence, more.until_unix_ms);
            }
            None => self.shed = Some(more),
        }
    }

    /// All that was given after the first that was shed was shed too, so this follows what is held.
    fn end_shedding(&mut self) {
        if let Some(gap) = self.shed.take() {
            let now_ms = gap.until_unix_ms;
            let record = Box::new(Record::new("", self.epoch, backfill::Record::Gap(gap)));
            self.given.push(Work::Add { record, live: false, now_ms });
        }
    }
}

impl Work {
    fn on(self, spool: &mut Spool, told: &Mutex<Told>) {
        match self {
            Self::Add { record, live, now_ms } => spool.add(&record, live, now_ms),
            Self::Declare(declared) => spool.declare(declared),
            Self::Acked(ack) => spool.acked(&ack),
            Self::BeginStream(stream) => {
                spool.begin_stream();
                let mut told = lock(told);
                told.stream = stream;
                told.loaded.clear();
            }
            Self::Renew(epoch) => spool.renew(epoch),
            Self::Load => {
                let (mut loaded, mut bytes) = (VecDeque::new(), 0);
                while bytes < AHEAD
                    && let Some(message) = spool.next_backfill()
                {
                    bytes += message.encoded_len();
                    loaded.push_back(message);
                }
                lock(told).loaded.extend(loaded);
            }
        }
    }
}

impl Told {
    fn hear(&mut self, spool: &Spool) {
        self.trouble = spool.trouble().map(str::to_owned);
        self.is_worn = spool.is_worn();
        self.has_more = spool.has_more();
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
