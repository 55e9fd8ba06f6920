//! What goes when there is no room or no time for all: which records are kept, and what says that the others are gone.
//! Pure.

use std::collections::HashSet;

use horcrux_proto::agent::v1::backfill;

use super::record::Record;

const MINUTE_MS: i64 = 60_000;
pub(super) const THINNED: &str = "older than two hours: one reading a minute was kept";
pub(super) const NO_ROOM: &str = "there was no room for more";

/// Keeps the last reading of each lane in each minute, and all else. Counters are cumulative, so what goes costs
/// resolution only.
#[must_use]
pub(super) fn one_a_minute(records: Vec<Record>) -> Vec<Record> {
    let mut seen = HashSet::new();
    let mut keep: Vec<bool> = records
        .iter()
        .rev()
        .map(|record| {
            !record.is_samples()
                || seen.insert((record.lane.clone(), record.span_ms().0.div_euclid(MINUTE_MS)))
        })
        .collect();
    keep.reverse();
    with_gaps(records, &keep, THINNED)
}

/// Keeps what happened, and gives up the samples.
#[must_use]
pub(super) fn events_only(records: Vec<Record>) -> Vec<Record> {
    let keep: Vec<bool> = records.iter().map(|record| !record.is_samples()).collect();
    with_gaps(records, &keep, NO_ROOM)
}

/// Gives up everything.
#[must_use]
pub(super) fn nothing(records: Vec<Record>) -> Vec<Record> {
    let keep = vec![false; records.len()];
    with_gaps(records, &keep, NO_ROOM)
}

/// Gaps that follow each other become one: of the last reason.
fn with_gaps(records: Vec<Record>, keep: &[bool], reason: &str) -> Vec<Record> {
    let mut thinned: Vec<Record> = Vec::new();
    for (record, keep) in records.into_iter().zip(keep) {
        let is_gap = matches!(record.message.record, Some(backfill::Record::Gap(_)));
        if *keep && !is_gap {
            thinned.push(record);
            continue;
        }
        let mut gap = match &record.message.record {
            Some(backfill::Record::Gap(gap)) => gap.clone(),
            Some(_) | None => record.given_up(reason),
        };
        let before = thinned.last_mut().and_then(|before| match &mut before.message.record {
            Some(backfill::Record::Gap(before)) => Some(before),
            Some(_) | None => None,
        });
        match before {
            Some(before) if before.last_sequence + 1 == gap.first_sequence => {
                before.last_sequence = gap.last_sequence;
                before.from_unix_ms = before.from_unix_ms.min(gap.from_unix_ms);
                before.until_unix_ms = before.until_unix_ms.max(gap.until_unix_ms);
                before.reason = std::mem::take(&mut gap.reason);
            }
            Some(_) | None => {
                thinned.push(Record::new("", record.message.epoch, backfill::Record::Gap(gap)));
            }
        }
    }
    thinned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::{event, samples};
    use super::*;

    fn covered(records: &[Record]) -> Vec<u64> {
        records.iter().flat_map(|record| record.sequences().0..=record.sequences().1).collect()
    }

    #[test]
    fn the_last_reading_of_each_lane_and_minute_stays_and_events_do() {
        let second = |n: u64| 1000 * i64::try_from(n).unwrap();
        let mut records: Vec<Record> = (1..=120).map(|n| samples("node", n, second(n))).collect();
        records[9] = event(10, second(10));
        records[29] = samples("vms", 30, second(30));
        let thinned = one_a_minute(records);
        let kept: Vec<u64> = thinned
            .iter()
            .filter(|r| !matches!(r.message.record, Some(backfill::Record::Gap(_))))
            .map(|r| r.sequences().0)
            .collect();
        assert_eq!(kept, [10, 30, 59, 119, 120]);
        assert_eq!(covered(&thinned), (1..=120).collect::<Vec<_>>());
        assert_eq!(one_a_minute(thinned.clone()), thinned, "once is enough");
    }

    proptest! {
        #[test]
        fn every_sequence_is_kept_or_in_a_gap(kinds in proptest::collection::vec(0..4_u8, 0..60), step in 1..40_000_i64) {
            let records: Vec<Record> = kinds.iter().zip(1_u64..).map(|(kind, n)| {
                let at = step * i64::try_from(n).unwrap();
                match kind {
                    0 => event(n, at),
                    1 => samples("vms", n, at),
                    _ => samples("node", n, at),
                }
            }).collect();
            let all = covered(&records);
            for thinned in [one_a_minute(records.clone()), events_only(one_a_minute(records.clone())), nothing(records)] {
                prop_assert_eq!(covered(&thinned), all.clone());
            }
        }
    }
}
