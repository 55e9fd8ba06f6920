//! One record of the spool, and how it lies in a file: length, checksum, lane, message.

use horcrux_proto::agent::v1::{Backfill, Gap, backfill};
use prost::Message as _;

/// What was taken, with the lane that took it: of one lane, a later reading stands for an earlier one where there is no
/// room for both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) lane: String,
    pub(super) message: Backfill,
}

/// Length and checksum.
const HEAD: usize = 8;
/// Far beyond the largest batch.
const LONGEST: usize = 16 << 20;

impl Record {
    #[must_use]
    pub(super) fn new(lane: &str, epoch: u64, record: backfill::Record) -> Self {
        Self { lane: lane.to_owned(), message: Backfill { epoch, record: Some(record) } }
    }

    /// The sequences that it stands for.
    #[must_use]
    pub(super) fn sequences(&self) -> (u64, u64) {
        match &self.message.record {
            Some(backfill::Record::Samples(batch)) => (batch.sequence, batch.sequence),
            Some(backfill::Record::Event(event)) => (event.sequence, event.sequence),
            Some(backfill::Record::Gap(gap)) => (gap.first_sequence, gap.last_sequence),
            None => (0, 0),
        }
    }

    /// When the first and the last of what it stands for were taken.
    #[must_use]
    pub(super) fn span_ms(&self) -> (i64, i64) {
        match &self.message.record {
            Some(backfill::Record::Samples(batch)) => (batch.taken_unix_ms, batch.taken_unix_ms),
            Some(backfill::Record::Event(event)) => (event.at_unix_ms, event.at_unix_ms),
            Some(backfill::Record::Gap(gap)) => (gap.from_unix_ms, gap.until_unix_ms),
            None => (0, 0),
        }
    }

    #[must_use]
    pub(super) fn is_samples(&self) -> bool {
        matches!(self.message.record, Some(backfill::Record::Samples(_)))
    }

    /// What stands in its place when it is given up.
    #[must_use]
    pub(super) fn given_up(&self, reason: &str) -> Gap {
        let ((first_sequence, last_sequence), (from_unix_ms, until_unix_ms)) =
            (self.sequences(), self.span_ms());
        Gap { first_sequence, last_sequence, from_unix_ms, until_unix_ms, reason: reason.to_owned() }
    }

    /// Appends it to `bytes`.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.resize(start + HEAD, 0);
        let lane = &self.lane.as_bytes()[..self.lane.len().min(usize::from(u8::MAX))];
        bytes.push(u8::try_from(lane.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(lane);
        bytes.extend_from_slice(&self.message.encode_to_vec());
        let payload = &bytes[start + HEAD..];
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let sum = crc32fast::hash(payload).to_le_bytes();
        bytes[start..start + 4].copy_from_slice(&length);
        bytes[start + 4..start + HEAD].copy_from_slice(&sum);
    }

    /// The record at the start of `bytes`, and how long it is; `None` where there is none that is whole.
    #[must_use]
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (payload, length) = payload(bytes)?;
        let (&lane, rest) = payload.split_first()?;
        let (lane, message) = rest.split_at_checked(usize::from(lane))?;
        let lane = std::str::from_utf8(lane).ok()?.to_owned();
        let message = Backfill::decode(message).ok()?;
        message.record.as_ref()?;
        Some((Self { lane, message }, length))
    }
}

fn payload(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST)?;
    let payload = rest.get(..length)?;
    (crc32fast::hash(payload) == u32::from_le_bytes(*sum)).then_some((payload, HEAD + length))
}

/// The records of a file in order, and where the first that isn't whole begins.
#[must_use]
pub(super) fn read_all(bytes: &[u8]) -> (Vec<Record>, usize) {
    let (mut records, mut at) = (Vec::new(), 0);
    while let Some((record, length)) = Record::read(&bytes[at..]) {
        records.push(record);
        at += length;
    }
    (records, at)
}

#[cfg(test)]
pub(super) mod tests {
    use horcrux_proto::agent::v1::{Event, SampleBatch};
    use proptest::prelude::*;

    use super::*;

    pub(in crate::spool) fn samples(lane: &str, sequence: u64, taken_unix_ms: i64) -> Record {
        let batch = SampleBatch {
            sequence,
            taken_unix_ms,
            gauge_ids: vec![1, 2],
            gauges: vec![0.5, 0.25],
            ..SampleBatch::default()
        };
        Record::new(lane, 7, backfill::Record::Samples(batch))
    }

    pub(in crate::spool) fn event(sequence: u64, at_unix_ms: i64) -> Record {
        let event = Event { sequence, at_unix_ms, ..Event::default() };
        Record::new("", 7, backfill::Record::Event(event))
    }

    #[test]
    fn what_was_written_is_read_until_the_first_that_is_not_whole() {
        let all = [samples("node", 1, 10), event(2, 11), samples("vms", 3, 12)];
        let mut bytes = Vec::new();
        all.iter().for_each(|record| record.write(&mut bytes));
        assert_eq!(read_all(&bytes), (all.to_vec(), bytes.len()));
        let (two, end) = read_all(&bytes[..bytes.len() - 1]);
        assert_eq!(two, all[..2]);
        bytes[end + 12] ^= 1;
        assert_eq!(read_all(&bytes), (two, end));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, end) = read_all(&bytes);
            prop_assert!(end <= bytes.len());
        }
    }
}
