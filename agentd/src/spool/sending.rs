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
    /// What ids of an epoch stand for, and which of them this stream knows.
    pub(super) known: Option<(u64, HashMap<u32, Series>, HashSet<u32>)>,
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
        let record = self.sending.loaded.pop_front()?;
        let last = record.sequences().1;
        let mut message = record.message;
        self.sending.sent = (message.epoch, last);
        if let Some(backfill::Record::Samples(batch)) = &mut message.record {
            batch.declared =
                self.declarations(message.epoch, batch.counter_ids.iter().chain(&batch.gauge_ids));
        }
        Some(message)
    }

    /// Whether there may be a next one.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let sent = self.sending.sent;
        !self.sending.loaded.is_empty() || self.segments.iter().any(|segment| segment.is_next(sent))
    }

    fn declarations<'a>(&mut self, epoch: u64, ids: impl Iterator<Item = &'a u32>) -> Vec<Series> {
        if self.sending.known.as_ref().is_none_or(|(of, ..)| *of != epoch) {
            let all = if epoch == self.epoch { self.names.all() } else { names::of_epoch(&self.dir, epoch) };
            self.sending.known = Some((epoch, all, HashSet::new()));
        }
        let current = epoch == self.epoch;
        let Some((_, all, told)) = &mut self.sending.known else { return Vec::new() };
        let mut declared = Vec::new();
        for id in ids {
            if told.insert(*id) {
                // Of the epoch that runs, more were declared since.
                if current && !all.contains_key(id) {
                    *all = self.names.all();
                }
                declared.extend(all.get(id).cloned());
            }
        }
        declared
    }

    /// Reads the records of the next segment that has some to send.
    fn load(&mut self) {
        let sent = self.sending.sent;
        let Some(segment) = self.segments.iter().find(|segment| segment.is_next(sent)) else { return };
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
