//! What is read, on its way: into the spool, and to the controller.

use std::sync::Arc;

use horcrux_proto::agent::v1::{AttachRequest, Event, attach_request, backfill};
use horcrux_proto::v1::{Source, SourceState};
use horcrux_transport::clock;
use prost::Message as _;

use super::stream::Stream;
use super::{FILL_BYTES, Link, dictionary};
use crate::collect::{self, Running};
use crate::present::News;
use crate::sample::{Cycle, Found, Object, SourceReport};

impl Link {
    /// Takes up a reading: into the spool, and to the controller where there is a stream with room for it.
    pub(super) fn take(&mut self, lane: &'static str, cycle: &Cycle, mut stream: Option<&mut Stream>) {
        for news in self.present.learn(lane, cycle, |report| skipped(&self.lanes, report)) {
            self.tell(news, stream.as_deref_mut());
        }
        if let Some(stream) = stream.as_deref_mut()
            && stream.owes_whole
        {
            stream.owes_whole = !stream.offer_all(self.present.whole());
        }
        let in_lanes: u64 = self.lanes.iter().map(Running::dropped).sum();
        let newly = in_lanes.saturating_sub(std::mem::replace(&mut self.counted, in_lanes));
        let now_ms = cycle.taken.unix_ms;
        self.spool.lost(newly, "readings came faster than they were taken up", now_ms);
        // Of a VM that doesn't run nothing holds any more that any lane has read.
        let off: Vec<u32> = off(&cycle.found).flat_map(|vm| self.dictionary.forget(&vm)).collect();
        let parts = dictionary::parts(cycle);
        let outgoing = stream.filter(|stream| stream.outgoing.capacity() >= parts.len());
        let first = self.spool.assigned() + 1;
        let mut encoded = self.dictionary.encode(lane, cycle, &parts, first, outgoing.is_some());
        self.spool.declare(encoded.created);
        self.off.extend(off);
        if let Some(last) = encoded.batches.last_mut() {
            last.retired.append(&mut self.off);
        }
        for batch in &mut encoded.batches {
            let declared = std::mem::take(&mut batch.declared);
            batch.sequence = self.spool.assign();
            self.spool.add(lane, backfill::Record::Samples(batch.clone()), outgoing.is_some(), now_ms);
            batch.declared = declared;
        }
        self.spool.settle();
        self.standing.counts(self.spool.assigned());
        if let Some(Stream { outgoing, last, .. }) = outgoing {
            for batch in encoded.batches {
                let message = Some(attach_request::Message::Samples(last.pack(batch)));
                if outgoing.try_send(AttachRequest { message }).is_err() {
                    // It ended: the next stream brings it from the spool.
                    tracing::debug!("batch not sent");
                }
            }
        }
    }

    /// Passes on what is new about what is here.
    pub(super) fn tell(&mut self, news: News, mut stream: Option<&mut Stream>) {
        if let (Some(stream), Some(inventory)) = (stream.as_deref_mut(), news.inventory) {
            stream.tell(inventory);
        }
        for event in news.events {
            self.happened(event, stream.as_deref_mut());
        }
    }

    pub(super) fn happened(&mut self, mut event: Event, stream: Option<&mut Stream>) {
        event.sequence = self.spool.assign();
        // However many there are, readings find room beside them; the rest follows from the spool.
        let outgoing = stream.filter(|stream| stream.has_room_beside()).map(|stream| &stream.outgoing);
        let record = backfill::Record::Event(event.clone());
        self.spool.add("", record, outgoing.is_some(), event.at_unix_ms);
        self.spool.settle();
        if let Some(queue) = outgoing
            && queue.try_send(AttachRequest { message: Some(attach_request::Message::Event(event)) }).is_err()
        {
            tracing::debug!("event not sent");
        }
    }

    /// Sends what was taken before, as far as what is taken now leaves room.
    pub(super) fn fill(&mut self, stream: &mut Stream) {
        if stream.owes_whole {
            return;
        }
        let (mut bytes, now) = (0, clock::monotonic());
        while bytes < FILL_BYTES && stream.has_room_beside() && stream.filling.has_room(now) {
            let Some(message) = self.spool.next_backfill() else { return };
            bytes += message.encoded_len();
            stream.filling.sends(&message, now);
            stream.offer(attach_request::Message::Backfill(message));
        }
    }

    /// Says how the spool is doing, once it has had something to say.
    pub(super) fn look_at_spool(&mut self, stream: Option<&mut Stream>) {
        let trouble = self.spool.trouble();
        self.standing.keeps(trouble.is_none());
        let report = match trouble {
            Some((state, detail)) => {
                SourceReport { source: Source::Spool, instance: Arc::default(), state, detail }
            }
            None => SourceReport {
                source: Source::Spool,
                instance: Arc::default(),
                state: SourceState::Ok,
                detail: String::new(),
            },
        };
        let news = self.present.source(&report, 0, clock::unix_ms());
        self.tell(news, stream);
    }

    pub(super) fn look_for_stuck(&mut self, stream: &mut Stream) {
        let now = collect::now();
        for at in 0..self.lanes.len() {
            let Some(report) = self.lanes[at].watched().stuck(now) else { continue };
            let skipped = skipped(&self.lanes, &report);
            let news = self.present.source(&report, skipped, now.unix_ms);
            self.tell(news, Some(stream));
        }
    }
}

/// Readings that were skipped of what is reported of.
fn skipped(lanes: &[Running], report: &SourceReport) -> u64 {
    let is_its = |lane: &&Running| lane.source == report.source && lane.instance == report.instance;
    lanes.iter().filter(is_its).map(Running::skipped).sum()
}

/// VMs that were found not to run.
pub(crate) fn off(found: &Found) -> impl Iterator<Item = Object> {
    let vms = match found {
        Found::Vms(vms) | Found::VmsSoFar(vms) => vms.as_slice(),
        Found::Node(_) | Found::Containers(_) | Found::Nothing => &[],
    };
    let off = vms.iter().filter(|vm| vm.state().is_off());
    off.filter_map(|vm| vm.uuid.parse().ok().map(Object::Vm))
}
