//! One record of the spool, and how it lies in a file: mark, length, checksum, lane, message.

use horcrux_proto::agent::v1::{Backfill, Gap, backfill};
use prost::Message as _;

/// What was taken, with the lane that took it: of one lane, a later reading stands for an earlier one where there is no
/// room for both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) lane: String,
    pub(super) message: Backfill,
}

/// By it the next record is found after one that isn't whole.
const MARK: [u8; 4] = *b"\xf8hxr";
/// Mark, length and checksum.
const HEAD: usize = 12;
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
        sequences(&self.message)
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
        bytes[start..start + 4].copy_from_slice(&MARK);
        bytes[start + 4..start + 8].copy_from_slice(&length);
        bytes[start + 8..start + HEAD].copy_from_slice(&sum);
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

fn sequences(message: &Backfill) -> (u64, u64) {
    match &message.record {
        Some(backfill::Record::Samples(batch)) => (batch.sequence, batch.sequence),
        Some(backfill::Record::Event(event)) => (event.sequence, event.sequence),
        Some(backfill::Record::Gap(gap)) => (gap.first_sequence, gap.last_sequence),
        None => (0, 0),
    }
}

/// The last of the sequences that a message stands for.
#[must_use]
pub(crate) fn last_sequence(message: &Backfill) -> u64 {
    sequences(message).1
}

fn payload(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = length(bytes)?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..length)?;
    (crc32fast::hash(payload) == u32::from_le_bytes(*sum)).then_some((payload, HEAD + length))
}

/// What the record at the start of `bytes` says of its length, and what follows that.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.strip_prefix(&MARK)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST)?;
    Some((length, rest))
}

/// The whole records of a file in order, and where the last of them ends. One that isn't whole costs itself.
#[must_use]
pub(super) fn read_all(bytes: &[u8]) -> (Vec<Record>, usize) {
    let (mut records, mut at, mut end) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        at += match Record::read(rest) {
            Some((record, length)) => {
                records.push(record);
                end = at + length;
                length
            }
            None => after_broken(rest),
        };
    }
    (records, end)
}

/// How far the next record may be from the start of one that isn't whole: where its length says, if that leads to
/// another, or at the next mark.
fn after_broken(bytes: &[u8]) -> usize {
    let told = length(bytes).map(|(length, _)| HEAD + length);
    let leads = |at: &usize| bytes.get(*at..).is_some_and(|rest| rest.starts_with(&MARK));
    let marked = || bytes.windows(MARK.len()).skip(1).position(|window| window == MARK).map(|at| at + 1);
    told.filter(leads).or_else(marked).unwrap_or(bytes.len())
}

/// Records of one epoch whose sequences follow each other from first to last: a gap stands for what isn't there, at
/// `else_ms` where nothing is.
#[must_use]
pub(super) fn filled(
    records: Vec<Record>,
    epoch: u64,
    (first, last): (u64, u64),
    else_ms: i64,
) -> Vec<Record> {
    let (mut filled, mut next, mut at_ms) = (Vec::new(), first, None);
    for record in records {
        let (from, until) = record.sequences();
        if record.message.epoch != epoch || from < next || until > last {
            continue;
        }
        filled.extend(hole(epoch, next, from - 1, at_ms.unwrap_or(record.span_ms().0), record.span_ms().0));
        (next, at_ms) = (until + 1, Some(record.span_ms().1));
        filled.push(record);
    }
    let at_ms = at_ms.unwrap_or(else_ms);
    filled.extend(hole(epoch, next, last, at_ms, at_ms));
    filled
}

fn hole(epoch: u64, first: u64, last: u64, from_unix_ms: i64, until_unix_ms: i64) -> Option<Record> {
    let gap = Gap {
        first_sequence: first,
        last_sequence: last,
        from_unix_ms,
        until_unix_ms,
        reason: "it was not whole when it was read again".to_owned(),
    };
    (first <= last).then(|| Record::new("", epoch, backfill::Record::Gap(gap)))
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
    fn what_was_written_is_read_and_what_is_not_whole_costs_itself() {
        let all = [samples("node", 1, 10), event(2, 11), samples("vms", 3, 12)];
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for record in &all {
            record.write(&mut bytes);
            ends.push(bytes.len());
        }
        assert_eq!(read_all(&bytes), (all.to_vec(), bytes.len()));
        assert_eq!(read_all(&bytes[..bytes.len() - 1]), (all[..2].to_vec(), ends[2]));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().filter(|end| **end <= bit / 8).count() - 1;
            let mut left = all.to_vec();
            left.remove(hit);
            assert_eq!(read_all(&bytes).0, left, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_gap_stands_for_what_is_not_there() {
        let other = Record { message: Backfill { epoch: 8, ..event(3, 30).message }, ..event(3, 30) };
        let found = vec![event(2, 20), other, samples("vms", 5, 50), event(5, 51), event(9, 90)];
        let filled = filled(found, 7, (1, 7), 99);
        let told: Vec<_> = filled.iter().map(|record| (record.sequences(), record.span_ms())).collect();
        let expected = [
            ((1, 1), (20, 20)),
            ((2, 2), (20, 20)),
            ((3, 4), (20, 50)),
            ((5, 5), (50, 50)),
            ((6, 7), (50, 50)),
        ];
        assert_eq!(told, expected);
        assert_eq!(super::filled(vec![], 7, (4, 4), 99)[0].span_ms(), (99, 99));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_, end) = read_all(&bytes);
            prop_assert!(end <= bytes.len());
        }
    }
}
