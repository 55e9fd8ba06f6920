//! Columns as changes since the batch before on the same stream. Both ends follow what the other has by the same rule: a
//! declaration sets a series to 0, a batch sets it to its value, and a retired series is forgotten. A stream is in order
//! and loses nothing, so the two never differ.
//!
//! A node's batch is a fifth of its plain columns then: most counters stand still, most others grow by a few bytes' worth.

use std::collections::HashMap;

use crate::agent::v1::{PackedColumns, SampleBatch};

/// What one end of a stream knows of each series' last value: a counter's, or the bits of a gauge's double.
#[derive(Debug, Default)]
pub struct Last(HashMap<u32, u64>);

/// Whole numbers up to here are doubles of their own.
const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("packed columns have different lengths")]
    Lengths,
    #[error("a packed id is out of range")]
    Id,
    #[error("a gauge that was no whole number is packed as one")]
    NotWhole,
    #[error("a batch has both plain and packed columns")]
    Both,
}

impl Last {
    /// Packs the columns of a batch that is about to be sent.
    #[must_use]
    pub fn pack(&mut self, batch: SampleBatch) -> SampleBatch {
        self.declared(&batch);
        let mut packed = PackedColumns::default();
        let mut before = 0;
        for (id, value) in batch.counter_ids.iter().zip(&batch.counters) {
            packed.counter_id_steps.push(step(&mut before, *id));
            let last = self.0.insert(*id, *value).unwrap_or(0);
            packed.counter_changes.push(value.wrapping_sub(last).cast_signed());
        }
        let (mut before_whole, mut before_other) = (0, 0);
        for (id, value) in batch.gauge_ids.iter().zip(&batch.gauges) {
            let last = self.0.insert(*id, value.to_bits()).unwrap_or(0);
            if let (Some(value), Some(last)) = (whole(*value), whole(f64::from_bits(last))) {
                packed.whole_id_steps.push(step(&mut before_whole, *id));
                packed.whole_changes.push(value - last);
            } else {
                packed.gauge_id_steps.push(step(&mut before_other, *id));
                packed.gauge_changes.push((value.to_bits() ^ last).reverse_bits());
            }
        }
        self.retired(&batch);
        SampleBatch {
            counter_ids: Vec::new(),
            counters: Vec::new(),
            gauge_ids: Vec::new(),
            gauges: Vec::new(),
            packed: Some(packed),
            ..batch
        }
    }

    /// Gives a batch that was received its columns back, and says whether it had series that were never declared: what it
    /// says of those is left out. One that isn't packed is taken as it is.
    ///
    /// # Errors
    ///
    /// What breaks the contract. What this end knows is of no use then: the stream has to end.
    pub fn unpack(&mut self, mut batch: SampleBatch) -> Result<(SampleBatch, bool), Malformed> {
        let Some(packed) = batch.packed.take() else {
            self.declared(&batch);
            self.said(&batch);
            self.retired(&batch);
            return Ok((batch, false));
        };
        let plain =
            [batch.counter_ids.len(), batch.counters.len(), batch.gauge_ids.len(), batch.gauges.len()];
        if plain != [0; 4] {
            return Err(Malformed::Both);
        }
        if packed.counter_id_steps.len() != packed.counter_changes.len()
            || packed.whole_id_steps.len() != packed.whole_changes.len()
            || packed.gauge_id_steps.len() != packed.gauge_changes.len()
        {
            return Err(Malformed::Lengths);
        }
        self.declared(&batch);
        let SampleBatch { counter_ids, counters, gauge_ids, gauges, .. } = &mut batch;
        let mut unknown = self.each(
            packed.counter_id_steps.into_iter().zip(packed.counter_changes),
            |last, change: i64| Ok(last.wrapping_add(change.cast_unsigned())),
            |id, value| {
                counter_ids.push(id);
                counters.push(value);
            },
        )?;
        let mut gauge = |id, bits| {
            gauge_ids.push(id);
            gauges.push(f64::from_bits(bits));
        };
        unknown |= self.each(
            packed.whole_id_steps.into_iter().zip(packed.whole_changes),
            |last, change: i64| {
                let last = whole(f64::from_bits(last)).ok_or(Malformed::NotWhole)?;
                Ok((last.wrapping_add(change) as f64).to_bits())
            },
            &mut gauge,
        )?;
        unknown |= self.each(
            packed.gauge_id_steps.into_iter().zip(packed.gauge_changes),
            |last, change: u64| Ok(last ^ change.reverse_bits()),
            &mut gauge,
        )?;
        self.retired(&batch);
        Ok((batch, unknown))
    }

    /// Applies changes, and gives each series and what it is now to `take`. Says whether there were series of which nothing
    /// is known.
    fn each<C>(
        &mut self,
        steps: impl Iterator<Item = (i32, C)>,
        changed: impl Fn(u64, C) -> Result<u64, Malformed>,
        mut take: impl FnMut(u32, u64),
    ) -> Result<bool, Malformed> {
        let (mut id, mut unknown) = (0_u32, false);
        for (step, change) in steps {
            id = id.checked_add_signed(step).ok_or(Malformed::Id)?;
            match self.0.get_mut(&id) {
                Some(last) => {
                    *last = changed(*last, change)?;
                    take(id, *last);
                }
                None => unknown = true,
            }
        }
        Ok(unknown)
    }

    /// Series of which something is known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn declared(&mut self, batch: &SampleBatch) {
        self.0.extend(batch.declared.iter().map(|series| (series.id, 0)));
    }

    /// What a batch that isn't packed says of series that were declared.
    fn said(&mut self, batch: &SampleBatch) {
        let counters = batch.counter_ids.iter().zip(batch.counters.iter().copied());
        let gauges = batch.gauge_ids.iter().zip(batch.gauges.iter().map(|value| value.to_bits()));
        for (id, value) in counters.chain(gauges) {
            if let Some(last) = self.0.get_mut(id) {
                *last = value;
            }
        }
    }

    fn retired(&mut self, batch: &SampleBatch) {
        for id in &batch.retired {
            self.0.remove(id);
        }
    }
}

/// The number, if it is a whole one that a double holds exactly. Negative zero isn't: it would come back as zero.
fn whole(value: f64) -> Option<i64> {
    let is_whole =
        value.abs() < MOST_WHOLE && value.fract() == 0.0 && value.to_bits() != (-0.0_f64).to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
    is_whole.then_some(value as i64)
}

fn step(before: &mut u32, id: u32) -> i32 {
    let step = id.wrapping_sub(*before).cast_signed();
    *before = id;
    step
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::v1::Series;

    fn declare(ids: impl IntoIterator<Item = u32>) -> Vec<Series> {
        ids.into_iter().map(|id| Series { id, ..Series::default() }).collect()
    }

    /// Values by id.
    type Column = Vec<(u32, u64)>;

    /// Counters and gauges in the order of their ids: gauges come in another order.
    fn sorted(batch: &SampleBatch) -> (Column, Column) {
        let mut counters: Column =
            batch.counter_ids.iter().copied().zip(batch.counters.iter().copied()).collect();
        let mut gauges: Column =
            batch.gauge_ids.iter().copied().zip(batch.gauges.iter().map(|value| value.to_bits())).collect();
        counters.sort_unstable();
        gauges.sort_unstable();
        (counters, gauges)
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back_bit_for_bit(
            batches in proptest::collection::vec(
                (
                    proptest::collection::btree_map(1_u32..20, any::<u64>(), 0..20),
                    proptest::collection::btree_map(
                        20_u32..40,
                        prop_oneof![
                            any::<f64>().prop_filter("finite", |value| value.is_finite()),
                            (-1_000_000_i32..1_000_000).prop_map(f64::from),
                            Just(-0.0),
                            Just(9_007_199_254_740_993.0),
                        ],
                        0..20,
                    ),
                    proptest::collection::vec(1_u32..40, 0..3),
                    any::<bool>(),
                ),
                1..8,
            ),
        ) {
            let (mut sender, mut receiver) = (Last::default(), Last::default());
            let mut known = std::collections::BTreeSet::new();
            for (counters, gauges, retired, again) in batches {
                if again {
                    known.clear();
                }
                let new: Vec<u32> =
                    counters.keys().chain(gauges.keys()).copied().filter(|id| known.insert(*id)).collect();
                for id in &retired {
                    known.remove(id);
                }
                let batch = SampleBatch {
                    declared: declare(new),
                    retired,
                    counter_ids: counters.keys().copied().collect(),
                    counters: counters.values().copied().collect(),
                    gauge_ids: gauges.keys().copied().collect(),
                    gauges: gauges.values().copied().collect(),
                    ..SampleBatch::default()
                };
                let (back, unknown) = receiver.unpack(sender.pack(batch.clone())).unwrap();
                prop_assert!(!unknown);
                prop_assert_eq!(sorted(&back), sorted(&batch));
                prop_assert_eq!(sender.len(), receiver.len());
            }
        }

        #[test]
        fn no_packed_columns_are_too_strange(
            counters in proptest::collection::vec((any::<i32>(), any::<i64>()), 0..6),
            whole in proptest::collection::vec((-3_i32..5, any::<i64>()), 0..6),
            gauges in proptest::collection::vec((-3_i32..5, any::<u64>()), 0..6),
        ) {
            let (counter_id_steps, counter_changes) = counters.into_iter().unzip();
            let (whole_id_steps, whole_changes) = whole.into_iter().unzip();
            let (gauge_id_steps, gauge_changes) = gauges.into_iter().unzip();
            let packed = PackedColumns {
                counter_id_steps,
                counter_changes,
                whole_id_steps,
                whole_changes,
                gauge_id_steps,
                gauge_changes,
            };
            let batch =
                SampleBatch { declared: declare(0..9), packed: Some(packed), ..SampleBatch::default() };
            if let Ok((back, _)) = Last::default().unpack(batch) {
                prop_assert_eq!(back.gauge_ids.len(), back.gauges.len());
                prop_assert_eq!(back.counter_ids.len(), back.counters.len());
            }
        }
    }

    #[test]
    fn what_stands_still_costs_a_byte_and_its_id_another() {
        use prost::Message as _;
        let batch = SampleBatch {
            counter_ids: (1..=100).collect(),
            counters: vec![123_456_789_012; 100],
            gauge_ids: (101..=200).collect(),
            gauges: (0..100).map(|n| f64::from(n) / 7.0).collect(),
            ..SampleBatch::default()
        };
        let plain = batch.encoded_len();
        let mut sender = Last::default();
        let first = SampleBatch { declared: declare(1..=200), ..batch.clone() };
        let _sent = sender.pack(first);
        let again = sender.pack(batch).encoded_len();
        assert!(again < 420 && plain > 1500, "{again} of {plain}");
    }

    #[test]
    fn a_series_that_was_never_declared_is_left_out_and_said() {
        let mut sender = Last::default();
        let batch = SampleBatch {
            declared: declare([7]),
            counter_ids: vec![7, 8],
            counters: vec![1, 2],
            ..SampleBatch::default()
        };
        let (back, unknown) = Last::default().unpack(sender.pack(batch)).unwrap();
        assert!(unknown);
        assert_eq!((back.counter_ids, back.counters), (vec![7], vec![1]));
    }

    #[test]
    fn columns_that_contradict_themselves_are_refused() {
        let packed = |packed| SampleBatch { packed: Some(packed), ..SampleBatch::default() };
        let refused = |batch| Last::default().unpack(batch).unwrap_err();
        let short = PackedColumns { counter_id_steps: vec![1], ..PackedColumns::default() };
        assert_eq!(refused(packed(short)), Malformed::Lengths);
        let below = PackedColumns {
            counter_id_steps: vec![-1],
            counter_changes: vec![1],
            ..PackedColumns::default()
        };
        assert_eq!(refused(packed(below)), Malformed::Id);
        let both =
            SampleBatch { counter_ids: vec![1], counters: vec![1], ..packed(PackedColumns::default()) };
        assert_eq!(refused(both), Malformed::Both);
        let (whole_id_steps, whole_changes) = (vec![1], vec![1]);
        let (gauge_id_steps, gauge_changes) = (vec![1], vec![0.5_f64.to_bits().reverse_bits()]);
        let fraction = PackedColumns { gauge_id_steps, gauge_changes, ..PackedColumns::default() };
        let then = PackedColumns { whole_id_steps, whole_changes, ..PackedColumns::default() };
        let mut receiver = Last::default();
        let first = SampleBatch { declared: declare([1]), ..packed(fraction) };
        assert!(!receiver.unpack(first).unwrap().1);
        assert_eq!(receiver.unpack(packed(then)).unwrap_err(), Malformed::NotWhole);
    }
}
