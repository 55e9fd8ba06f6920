//! What goes out beside what is taken now: record by record, oldest first.

use std::collections::{HashMap, HashSet, VecDeque};

use horcrux_proto::agent::v1::{Backfill, Gap, Series, backfill};

use super::record::Record;
use super::segment::Segment;
use super::{Spool, names};

/// How far back-fill has come on the stream that is there.
#[derive(Debug, Default)]
pub(super) struct Sending {
    pub(super) sent: (u64, u64),
    pub(super) loaded: VecDeque<Record>,
    known: Known,
}

/// What ids of an epoch stand for.
#[derive(Debug, Default)]
struct Known {
    epoch: u64,
    all: HashMap<u32, Series>,
    /// The stream that is there knows them.
    told: HashSet<u32>,
    /// What they stood for is not whole.
    lost: HashSet<u32>,
}

impl Segment {
    /// Whether something of it follows what was sent.
    fn is_next(&self, sent: (u64, u64)) -> bool {
        !self.live && !self.is_stored() && (self.epoch, self.last) > sent
    }
}

impl Spool {
    /// The next record that isn't sent as it is taken.
    pub fn next_backfill(&mut self) -> Option<Backfill> {
        if self.sending.loaded.is_empty() {
            self.load();
        }
        let mut record = self.sending.loaded.pop_front()?;
        self.sending.sent = (record.message.epoch, record.sequences().1);
        if let Some(backfill::Record::Samples(batch)) = &record.message.record {
            let ids: Vec<u32> = batch.counter_ids.iter().chain(&batch.gauge_ids).copied().collect();
            match self.declarations(record.message.epoch, &ids) {
                Some(declared) => {
                    if let Some(backfill::Record::Samples(batch)) = &mut record.message.record {
                        batch.declared = declared;
                    }
                }
                None => {
                    let gap = record.given_up("what its values are of was not whole when it was read again");
                    record.message.record = Some(backfill::Record::Gap(gap));
                }
            }
        }
        Some(record.message)
    }

    /// Whether there may be a next one.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let sent = self.sending.sent;
        !self.sending.loaded.is_empty() || self.segments.iter().any(|segment| segment.is_next(sent))
    }

    /// What the stream doesn't know of these ids yet; `None` where it is not known here either of one of them.
    fn declarations(&mut self, epoch: u64, ids: &[u32]) -> Option<Vec<Series>> {
        if self.sending.known.epoch != epoch {
            self.sending.known = Known { epoch, ..Known::default() };
        }
        let Known { all, lost, .. } = &self.sending.known;
        // More may have been declared since they were read.
        if ids.iter().any(|id| !all.contains_key(id) && !lost.contains(id)) {
            let all = if epoch == self.epoch { self.names.all() } else { names::of_epoch(&self.dir, epoch) };
            match all {
                Ok(all) => self.sending.known.all = all,
                Err(error) => self.fail("read declarations", &error),
            }
        }
        let Known { all, told, lost, .. } = &mut self.sending.known;
        let unknown: Vec<u32> = ids.iter().copied().filter(|id| !all.contains_key(id)).collect();
        if !unknown.is_empty() {
            lost.extend(unknown);
            return None;
        }
        Some(ids.iter().filter(|id| told.insert(**id)).filter_map(|id| all.get(id).cloned()).collect())
    }

    /// Reads the records of the next segment that has some to send.
    fn load(&mut self) {
        let sent = self.sending.sent;
        let next = self.segments.iter().filter(|segment| segment.is_next(sent));
        let Some(segment) = next.min_by_key(|segment| (segment.epoch, segment.first)) else { return };
        match segment.records() {
            Ok(records) => {
                let wanted = |r: &Record| {
                    let last = r.sequences().1;
                    last > segment.acked && (segment.epoch, last) > sent
                };
                self.sending.loaded = records.into_iter().filter(wanted).collect();
            }
            Err(error) => {
                // It is told as what it is: lost.
                let gap = Gap {
                    first_sequence: segment.acked + 1,
                    last_sequence: segment.last,
                    until_unix_ms: segment.until_ms,
                    from_unix_ms: segment.until_ms,
                    reason: format!("it could not be read again: {error}"),
                };
                self.sending.loaded =
                    [Record::new("", segment.epoch, backfill::Record::Gap(gap))].into_iter().collect();
                self.fail("read", &error);
            }
        }
    }
}
