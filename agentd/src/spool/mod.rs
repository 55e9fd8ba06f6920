//! What was taken and isn't stored at a controller yet, on disk: an outage, a crash or a full queue costs nothing, as far
//! as there is room, and what it costs is on record.
//!
//! Every record is written here before it is sent, and goes when the controller says that it is stored. While a controller
//! listens, a file of the spool is emptied again before the kernel writes it back, so a disk hardly notices. Nothing waits
//! for the disk: what was written is safe from a crash of the agent at once, and from a power cut when its segment is full
//! (then it is synced) or when the kernel has written it back, usually after half a minute.
//!
//! Each sequence of an epoch is a batch, an event, or in a gap: nothing goes without one that says so. Full resolution is
//! kept for two hours, then one reading of each lane a minute for a day; when the spool is full, the oldest samples go
//! first, and events after all samples.

mod head;
pub mod keeper;
mod names;
mod place;
mod record;
mod recovery;
mod segment;
mod sending;
mod thin;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_proto::agent::v1::{Ack, Series};
use horcrux_transport::files;

use self::head::{Head, note_stored};
use self::names::Names;
use self::record::Record;
pub(crate) use self::record::last_sequence;
use self::recovery::{forget_epoch, recover};
use self::segment::{Segment, Thinned};
use self::sending::Sending;

/// A segment that is larger is followed by another.
const SEGMENT: u64 = 512 << 10;
/// What is stored is cleared from the segment in use at this size, long before the kernel would write it back.
const CLEAR: u64 = 16 << 10;
/// Where the disk takes nothing, this much is kept in memory.
const MEMORY: u64 = 4 << 20;
/// Series that are declared in one epoch take no more than this; then it is time for another.
const NAMES: u64 = 32 << 20;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes: u64,
    /// At full resolution.
    pub whole: Duration,
    /// One reading a minute.
    pub thinned: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let hours = |count: u64| Duration::from_secs(count * 3600);
        Self { bytes: 64 << 20, whole: hours(2), thinned: hours(24) }
    }
}

/// The whole.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    limits: Limits,
    epoch: u64,
    head: Head,
    names: Names,
    /// Oldest first; the last is written to.
    segments: VecDeque<Segment>,
    sending: Sending,
    /// What earlier runs left was found.
    is_recovered: bool,
    /// Why the disk takes nothing.
    trouble: Option<String>,
    /// How often something failed.
    failures: u64,
    /// When the disk is tried again, and old records are looked for.
    look_ms: i64,
}

const LOOK_MS: i64 = 10_000;

impl Spool {
    /// Opens the spool of a state directory and begins an epoch. What can't be used is told by [`Spool::trouble`]; memory
    /// serves in its place.
    #[must_use]
    pub fn open(state_dir: &Path, limits: Limits, now_ms: i64) -> Self {
        let dir = state_dir.join("spool");
        let found = files::private_dir(&dir).and_then(|()| recover(&dir, None, now_ms));
        let trouble = found.as_ref().err().map(|error| told(&dir, error));
        let is_recovered = found.is_ok();
        let (segments, newest) = found.unwrap_or_default();
        let epoch = u64::try_from(now_ms).unwrap_or(0).max(newest.saturating_add(1));
        let (head, names) = (Head::begin(&dir, epoch), Names::begin(&dir, epoch));
        Self {
            dir,
            limits,
            epoch,
            head,
            names,
            segments,
            sending: Sending::default(),
            is_recovered,
            trouble,
            failures: 0,
            look_ms: now_ms,
        }
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why the disk takes nothing, while it doesn't.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Its epoch has declared so much that a new one should begin.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.names.bytes() > NAMES
    }

    /// Begins another epoch, in which nothing is declared yet.
    pub fn renew(&mut self, epoch: u64) {
        self.epoch = epoch;
        (self.head, self.names) = (Head::begin(&self.dir, self.epoch), Names::begin(&self.dir, self.epoch));
        self.tidy();
    }

    /// Keeps what new ids stand for.
    pub fn declare(&mut self, declared: Vec<Series>) {
        let kept = self.names.add(declared);
        self.tell("keep declarations", kept);
    }

    /// Keeps a record, which is known to have been even if it is lost; `live` when it is sent at once as well.
    fn add(&mut self, record: &Record, live: bool, now_ms: i64) {
        let retry = now_ms.saturating_sub(self.look_ms) >= LOOK_MS || now_ms < self.look_ms;
        let failures = self.failures;
        if retry {
            self.look_ms = now_ms;
            let looked = self.put_back().and_then(|()| self.take_up(now_ms));
            self.tell("look for what is kept", looked);
        }
        let noted = self.head.note(record.sequences().1, self.stored());
        self.tell("note a sequence", noted);
        if !self.has_room(live, retry)
            && let Err(error) = self.roll(record.sequences().0, live, retry)
        {
            self.fail("begin a file", &error);
            self.begin_in_memory(record.sequences().0, live);
        }
        let written = match self.segments.back_mut() {
            Some(open) => open.append(record),
            None => Err(io::Error::other("no segment")),
        };
        if let Err(error) = written {
            self.fail("write", &error);
            self.begin_in_memory(record.sequences().0, live);
            if let Some(Err(error)) = self.segments.back_mut().map(|open| open.append(record)) {
                tracing::error!(%error, "a record was lost");
            }
        }
        if retry && self.failures == failures && self.segments.back().is_some_and(Segment::is_on_disk) {
            self.is_well();
        }
        self.bound(now_ms, retry);
    }

    /// Up to where all of the epoch that runs is stored.
    fn stored(&self) -> u64 {
        self.segments.iter().find(|segment| segment.epoch == self.epoch).map_or(0, |oldest| oldest.acked)
    }

    /// Puts back what was removed.
    fn put_back(&mut self) -> io::Result<()> {
        files::private_dir(&self.dir)?;
        self.segments.iter_mut().try_for_each(Segment::restore)?;
        self.head.restore()?;
        self.names.restore()
    }

    /// Takes up what earlier runs left, where that failed so far.
    fn take_up(&mut self, now_ms: i64) -> io::Result<()> {
        if !self.is_recovered {
            let (mut found, _) = recover(&self.dir, Some(self.epoch), now_ms)?;
            found.append(&mut self.segments);
            self.segments = found;
            self.is_recovered = true;
        }
        Ok(())
    }

    fn is_well(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(dir = %self.dir.display(), "the spool is on disk again");
        }
    }

    /// A stream begins, which knows nothing and has brought nothing.
    pub fn begin_stream(&mut self) {
        for segment in &mut self.segments {
            segment.live = false;
        }
        self.sending = Sending::default();
    }

    /// What a controller has stored goes.
    pub fn acked(&mut self, ack: &Ack) {
        for segment in self.segments.iter_mut().filter(|s| s.epoch == ack.epoch && s.live != ack.backfill) {
            segment.acked = segment.acked.max(ack.sequence.min(segment.last));
        }
        self.tidy();
    }

    fn has_room(&self, live: bool, retry: bool) -> bool {
        self.segments.back().is_some_and(|open| {
            let tries_disk = retry && !open.is_on_disk();
            open.epoch == self.epoch && open.live == live && open.bytes() < SEGMENT && !tries_disk
        })
    }

    /// Begins the next segment; on disk, unless that failed of late.
    fn roll(&mut self, first: u64, live: bool, retry: bool) -> io::Result<()> {
        if let Some(open) = self.segments.back()
            && open.epoch == self.epoch
        {
            let synced = open.sync();
            self.tell("sync", synced);
        }
        if self.trouble.is_some() && !retry {
            self.begin_in_memory(first, live);
            return Ok(());
        }
        files::private_dir(&self.dir)?;
        self.segments.push_back(Segment::begin(Some(&self.dir), self.epoch, first, live)?);
        Ok(())
    }

    fn begin_in_memory(&mut self, first: u64, live: bool) {
        // Memory can't fail to begin.
        self.segments.extend(Segment::begin(None, self.epoch, first, live));
    }

    /// Removes what is stored.
    fn tidy(&mut self) {
        let mut removed = BTreeSet::new();
        let open = self.segments.len().saturating_sub(1);
        let mut kept = VecDeque::new();
        let mut failed = Ok(());
        for (at, segment) in std::mem::take(&mut self.segments).into_iter().enumerate() {
            if !segment.is_stored() || (at == open && segment.epoch == self.epoch) {
                kept.push_back(segment);
                continue;
            }
            removed.insert(segment.epoch);
            failed = failed.and(segment.remove());
        }
        self.segments = kept;
        let stored = self.stored();
        if let Some(open) = self.segments.back_mut()
            && open.is_stored()
            && open.bytes() >= CLEAR
        {
            // Noted first: what is between the two is stored.
            let cleared = self.head.note(self.head.assigned, stored).and_then(|()| open.clear());
            failed = failed.and(cleared);
        }
        removed.remove(&self.epoch);
        for epoch in removed {
            let oldest = self.segments.iter().find(|segment| segment.epoch == epoch);
            failed = failed.and(match oldest {
                Some(oldest) => note_stored(&self.dir, epoch, oldest.acked),
                None => forget_epoch(&self.dir, epoch),
            });
        }
        self.tell("remove what is stored", failed);
    }

    /// Keeps to the limits.
    fn bound(&mut self, now_ms: i64, look: bool) {
        if look {
            for at in 0..self.segments.len() {
                let age = age(now_ms, self.segments[at].until_ms);
                if age > self.limits.thinned {
                    self.thin(at, Thinned::EventsOnly);
                } else if age > self.limits.whole {
                    self.thin(at, Thinned::OneAMinute);
                }
            }
        }
        for (on_disk, limit) in [(true, self.limits.bytes), (false, MEMORY)] {
            let of = self.segments.iter().filter(|s| s.is_on_disk() == on_disk);
            let mut bytes: u64 = of.map(Segment::bytes).sum();
            for level in [Thinned::OneAMinute, Thinned::EventsOnly, Thinned::Nothing] {
                // All but the one that is written to.
                for at in 0..self.segments.len().saturating_sub(1) {
                    if bytes <= limit {
                        break;
                    }
                    let before = self.segments[at].bytes();
                    if self.segments[at].is_on_disk() == on_disk && self.thin(at, level) {
                        bytes = bytes.saturating_sub(before.saturating_sub(self.segments[at].bytes()));
                    }
                }
            }
        }
    }

    /// Says whether there was something to give up.
    fn thin(&mut self, at: usize, level: Thinned) -> bool {
        let Some(segment) = self.segments.get_mut(at) else { return false };
        if segment.thinned >= level || segment.is_stored() {
            return false;
        }
        let thinned = segment.records().and_then(|records| {
            let acked = segment.acked;
            let owed = records.into_iter().filter(|record| record.sequences().1 > acked).collect();
            let fewer = match level {
                Thinned::Not => owed,
                Thinned::OneAMinute => thin::one_a_minute(owed),
                Thinned::EventsOnly => thin::events_only(owed),
                Thinned::Nothing => thin::nothing(owed),
            };
            segment.replace(&fewer, level)
        });
        // What was loaded to be sent may be gone: it is read again.
        self.sending.loaded.clear();
        self.tell("give up old records", thinned);
        true
    }

    fn tell(&mut self, doing: &str, done: io::Result<()>) {
        if let Err(error) = done {
            self.fail(doing, &error);
        }
    }

    fn fail(&mut self, doing: &str, error: &io::Error) {
        self.failures += 1;
        if self.trouble.is_none() {
            tracing::warn!(doing, %error, dir = %self.dir.display(), "the spool's disk fails: memory serves");
        }
        self.trouble = Some(format!("{doing}: {}", told(&self.dir, error)));
    }
}

fn told(dir: &Path, error: &io::Error) -> String {
    format!("{}: {error}", dir.display())
}

fn age(now_ms: i64, at_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(0))
}
