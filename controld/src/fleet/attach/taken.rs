//! What a stream brings of its node: what is taken now goes to the record and to who watches, what was taken before to the
//! record alone.

use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{Ack, Backfill, Gap, SampleBatch, backfill};
use horcrux_transport::clock;
use prost::Message as _;
use tonic::Status;

use super::{AckTo, Attached, Attachments, refuse};
use crate::fleet::pace;
use crate::fleet::said::{Malformed, checked_batch, checked_event, checked_gap};
use crate::live::fleet::{Applied, MAX_SERIES};
use crate::store::recent::Record;

/// A node with a clock that was wrong for a day has thousands of them.
const TELL_REFUSED_EVERY: Duration = Duration::from_secs(60);

/// How often back-fill of one stream was refused, for the log.
#[derive(Debug, Default)]
pub(super) struct Refused {
    untold: u64,
    told: Option<Instant>,
}

impl Refused {
    /// How many to tell of now, if it is time to.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        let is_time = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_REFUSED_EVERY);
        is_time.then(|| {
            self.told = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

impl Attachments {
    pub(super) async fn samples(&self, stream: &mut Attached<'_>, batch: SampleBatch) -> Result<(), Status> {
        let Attached { name, link, of, .. } = *stream;
        let packed = batch.encoded_len();
        let (batch, lacks) =
            stream.last.unpack(batch).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if stream.last.len() > MAX_SERIES {
            return Err(Status::resource_exhausted("the stream declared too many series"));
        }
        let beside = batch.encoded_len().saturating_sub(packed);
        self.wait(stream.row, pace::cost_beside(beside)).await;
        let batch = checked_batch(batch, clock::unix_ms()).map_err(refuse)?;
        let ack = Ack { epoch: of.epoch, sequence: batch.sequence, backfill: false };
        let mut kept = batch.clone();
        let declared = std::mem::take(&mut kept.declared);
        let record = Record::Batch {
            node: name.to_string(),
            stream: of.stream,
            epoch: of.epoch,
            declared,
            batch: Box::new(kept),
        };
        let applied = self.live.samples(name, link, Box::new(batch)).await;
        match applied? {
            Applied::Yes if !lacks => {}
            Applied::Yes | Applied::Unknown => {
                tracing::warn!(node = %name, "samples of undeclared series: asking for all declarations");
                self.ask_again(stream).await?;
            }
            Applied::TooMany => return Err(Status::resource_exhausted("the node declared too many series")),
            Applied::Stale => return Err(Status::aborted("this stream was replaced")),
        }
        self.record(record, Some(stream.ack(ack))).await
    }

    /// Samples that were taken before go to the record alone: what is now is told by what is taken now. What happened
    /// meanwhile is told to who watches too, once.
    pub(super) async fn backfill(&self, stream: &mut Attached<'_>, backfill: Backfill) -> Result<(), Status> {
        let (node, epoch) = (stream.name.to_string(), backfill.epoch);
        let begun = if epoch > stream.of.epoch { Err(Malformed("its epoch has not begun")) } else { Ok(()) };
        // It would come again on each stream, and with it end each: what is refused is lost, and that is told.
        let refused = |sequence: u64, why: Malformed, of: &mut Refused| {
            if let Some(records) = of.count(clock::monotonic()) {
                tracing::warn!(node, epoch, sequence, records, why = why.0, "back-fill refused");
            }
            let now_ms = clock::unix_ms();
            let gap = Gap {
                first_sequence: sequence,
                last_sequence: sequence,
                from_unix_ms: now_ms,
                until_unix_ms: now_ms,
                reason: format!("the controller refused it: {}", why.0),
            };
            Record::Gap { node: node.clone(), epoch, gap }
        };
        let (kept, sequence) = match backfill.record {
            Some(backfill::Record::Samples(batch)) => {
                let sequence = batch.sequence;
                let kept = begun.and_then(|()| checked_batch(batch, clock::unix_ms())).map(|mut batch| {
                    let declared = std::mem::take(&mut batch.declared);
                    let (node, stream) = (node.clone(), stream.of.stream);
                    Record::Batch { node, stream, epoch, declared, batch: Box::new(batch) }
                });
                (kept, sequence)
            }
            Some(backfill::Record::Event(event)) => {
                let sequence = event.sequence;
                let kept = begun.and_then(|()| checked_event(event)).map(Box::new);
                if let Ok(event) = kept.clone() {
                    let name = stream.name.clone();
                    self.live.ask(move |fleet| fleet.event(&name, epoch, &event)).await?;
                }
                (kept.map(|event| Record::Event { node: node.clone(), epoch, event }), sequence)
            }
            Some(backfill::Record::Gap(gap)) => {
                let sequence = gap.last_sequence;
                let kept = begun.and_then(|()| checked_gap(gap));
                if let Ok(gap) = &kept {
                    let rows = gap.last_sequence - gap.first_sequence;
                    self.wait(stream.row, pace::cost_of_rows(rows)).await;
                }
                (kept.map(|gap| Record::Gap { node: node.clone(), epoch, gap }), sequence)
            }
            // Of a later version: it is as good as stored, or it would come for ever.
            None => return Err(Status::invalid_argument("back-fill without a record that is known here")),
        };
        if sequence == 0 {
            return Err(Status::invalid_argument("back-fill without a sequence"));
        }
        let record = kept.unwrap_or_else(|why| refused(sequence, why, &mut stream.refused));
        self.record(record, Some(stream.ack(Ack { epoch, sequence, backfill: true }))).await
    }

    pub(super) async fn record(&self, record: Record, ack: Option<AckTo>) -> Result<(), Status> {
        self.recorder
            .0
            .send((record, ack))
            .await
            .map_err(|_| Status::unavailable("the controller is stopping"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_once_a_minute_with_how_much_it_was() {
        let (mut refused, now) = (Refused::default(), clock::monotonic());
        assert_eq!(refused.count(now), Some(1));
        assert_eq!((refused.count(now), refused.count(now)), (None, None));
        assert_eq!(refused.count(now + TELL_REFUSED_EVERY), Some(3));
    }
}
