//! Series ids of one epoch: each series gets a small number, which is declared on each stream before it is used there, and
//! never stands for another. A series is retired when its object has no readings any more, when its source is lost, and when
//! it was not read for long.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use horcrux_proto::agent::v1::{SampleBatch, Series, series};
use horcrux_proto::v1::{Metric, Source, SourceState};

use crate::sample::{Cycle, Object, ObjectSample, Value};

/// A series that a lane has not read for this many of its readings is retired: some are read only every few times.
pub(crate) const UNREAD: u64 = 30;

#[derive(Debug, Default)]
pub struct Dictionary {
    next_id: u32,
    lanes: HashMap<&'static str, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    readings: u64,
    ids: HashMap<Object, HashMap<Key, Id>>,
}

type Key = (Metric, Arc<str>, Source);

#[derive(Debug)]
struct Id {
    id: u32,
    read: u64,
    /// The stream that is there knows it.
    told: bool,
}

/// A reading as columns.
#[derive(Debug, Default)]
pub struct Encoded {
    /// One for each part.
    pub batches: Vec<SampleBatch>,
    /// Series that got an id.
    pub created: Vec<Series>,
}

impl Dictionary {
    /// Another stream begins: what it uses is declared again.
    pub fn untold(&mut self) {
        let lanes = self.lanes.values_mut();
        for id in lanes.flat_map(|lane| lane.ids.values_mut()).flat_map(HashMap::values_mut) {
            id.told = false;
        }
    }

    /// Another epoch begins.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets what all lanes read of an object, and returns the ids of it: nothing of it holds any more.
    pub fn forget(&mut self, object: &Object) -> Vec<u32> {
        let lanes = self.lanes.values_mut();
        let ids = lanes.filter_map(|lane| lane.ids.remove(object)).flat_map(HashMap::into_values);
        ids.map(|id| id.id).collect()
    }

    /// A reading as columns: a batch for each of its [`parts`], which must not be empty. Those that are sent, `live`, declare
    /// what the stream doesn't know yet.
    pub fn encode(
        &mut self,
        lane: &'static str,
        cycle: &Cycle,
        parts: &[&[ObjectSample]],
        first_sequence: u64,
        live: bool,
    ) -> Encoded {
        let mut encoded = Encoded::default();
        for (part, sequence) in parts.iter().zip(first_sequence..) {
            let batch = SampleBatch {
                sequence,
                taken_unix_ms: cycle.taken.unix_ms,
                taken_boottime_ns: cycle.taken.boottime_ns,
                ..self.columns(lane, part, live, &mut encoded.created)
            };
            encoded.batches.push(batch);
        }
        if let Some(last) = encoded.batches.last_mut() {
            last.retired = self.retire(lane, cycle);
        }
        encoded
    }

    fn columns(
        &mut self,
        lane: &'static str,
        samples: &[ObjectSample],
        live: bool,
        created: &mut Vec<Series>,
    ) -> SampleBatch {
        let mut batch = SampleBatch::default();
        let next_id = &mut self.next_id;
        let lane = self.lanes.entry(lane).or_default();
        for sample in samples {
            let ids = lane.ids.entry(sample.object.clone()).or_default();
            for reading in &sample.readings {
                let key = (reading.metric, Arc::clone(&reading.instance), reading.source);
                let series = |id| Series {
                    id,
                    metric: reading.metric.into(),
                    instance: reading.instance.to_string(),
                    object: Some(object(&sample.object)),
                    source: reading.source.into(),
                };
                let entry = ids.entry(key).or_insert_with(|| {
                    *next_id += 1;
                    created.push(series(*next_id));
                    Id { id: *next_id, read: 0, told: false }
                });
                if live && !entry.told {
                    batch.declared.push(series(entry.id));
                    entry.told = true;
                }
                entry.read = lane.readings + 1;
                match reading.value {
                    Value::Counter(count) => {
                        batch.counter_ids.push(entry.id);
                        batch.counters.push(count);
                    }
                    // The wire has finite numbers only; a reader that gives another has a fault of its own.
                    Value::Gauge(value) if value.is_finite() => {
                        batch.gauge_ids.push(entry.id);
                        batch.gauges.push(value);
                    }
                    Value::Gauge(_) => {}
                }
            }
        }
        batch
    }

    fn retire(&mut self, lane: &'static str, cycle: &Cycle) -> Vec<u32> {
        let lane = self.lanes.entry(lane).or_default();
        lane.readings += 1;
        let mut retired = Vec::new();
        let readings = lane.readings;
        let lost = lost_sources(cycle);
        let emptied: HashSet<&Object> =
            cycle.samples.iter().filter(|s| s.readings.is_empty()).map(|s| &s.object).collect();
        lane.ids.retain(|object, ids| {
            let is_emptied = emptied.contains(object);
            ids.retain(|(_, _, source), entry| {
                let unread = readings - entry.read;
                let keep = unread == 0 || (unread < UNREAD && !is_emptied && !lost.contains(source));
                if !keep {
                    retired.push(entry.id);
                }
                keep
            });
            !ids.is_empty()
        });
        retired
    }
}

/// What one message may hold: with all its declarations a quarter of what controllers take.
const MOST_READINGS: usize = 8000;

/// A cycle's samples in parts that fit a message, at least one. An object's own stay together: rates and shares are
/// computed from readings of one message.
#[must_use]
pub fn parts(cycle: &Cycle) -> Vec<&[ObjectSample]> {
    let mut parts = Vec::new();
    let (mut from, mut readings) = (0, 0);
    for (at, sample) in cycle.samples.iter().enumerate() {
        readings += sample.readings.len();
        if readings > MOST_READINGS && at > from {
            parts.push(&cycle.samples[from..at]);
            (from, readings) = (at, sample.readings.len());
        }
    }
    parts.push(&cycle.samples[from..]);
    parts
}

/// Sources that gave nothing in this reading and say why: what they gave before isn't so any more.
pub(crate) fn lost_sources(cycle: &Cycle) -> HashSet<Source> {
    let mut lost: HashSet<Source> = cycle
        .sources
        .iter()
        .filter(|report| report.state != SourceState::Ok)
        .map(|report| report.source)
        .collect();
    if !lost.is_empty() {
        for reading in cycle.samples.iter().flat_map(|sample| &sample.readings) {
            lost.remove(&reading.source);
        }
    }
    lost
}

fn object(object: &Object) -> series::Object {
    match object {
        Object::Node => series::Object::Node(true),
        Object::Vm(uuid) => series::Object::VmUuid(uuid.to_string()),
        Object::Container(id) => series::Object::ContainerId(id.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use horcrux_proto::name::VmUuid;

    use super::*;
    use crate::sample::{Found, ObjectSample, Reading, SourceReport, Taken};

    fn cycle(values: &[(Metric, Value)]) -> Cycle {
        let reading = |&(metric, value)| Reading { metric, instance: "".into(), value, source: Source::Proc };
        Cycle {
            taken: Taken { unix_ms: 1, boottime_ns: 2 },
            found: Found::Nothing,
            samples: vec![ObjectSample {
                object: Object::Node,
                readings: values.iter().map(reading).collect(),
            }],
            sources: vec![],
            events: vec![],
        }
    }

    fn one(dictionary: &mut Dictionary, lane: &'static str, cycle: &Cycle, sequence: u64) -> SampleBatch {
        let mut batches = dictionary.encode(lane, cycle, &parts(cycle), sequence, true).batches;
        assert_eq!(batches.len(), 1);
        batches.remove(0)
    }

    #[test]
    fn a_large_cycle_comes_in_parts_and_no_object_is_split() {
        let reading = |number: usize| Reading {
            metric: Metric::VmDiskCapacity,
            instance: format!("vd{number}").into(),
            value: Value::Gauge(1.0),
            source: Source::QemuMonitor,
        };
        let sample = |number: u8| ObjectSample {
            object: Object::Vm(VmUuid::from_bytes([number; 16])),
            readings: (0..3000).map(reading).collect(),
        };
        let cycle = Cycle { samples: (0..5).map(sample).collect(), ..cycle(&[]) };
        let mut dictionary = Dictionary::default();
        let batches = dictionary.encode("vms", &cycle, &parts(&cycle), 7, true).batches;
        let sizes: Vec<_> = batches.iter().map(|b| (b.sequence, b.gauges.len())).collect();
        assert_eq!(sizes, [(7, 6000), (8, 6000), (9, 3000)]);
        assert!(batches.iter().all(|batch| batch.retired.is_empty()));
        let gone = dictionary.forget(&cycle.samples[1].object);
        assert_eq!(gone.len(), 3000);
        assert!(gone.iter().all(|id| batches[0].gauge_ids.contains(id)));
    }

    #[test]
    fn a_series_has_one_id_for_its_epoch_and_is_declared_once_on_each_stream() {
        let mut dictionary = Dictionary::default();
        let load =
            cycle(&[(Metric::NodeLoad1m, Value::Gauge(0.5)), (Metric::NodeCpuIdleTime, Value::Counter(7))]);
        let stored = dictionary.encode("node", &load, &parts(&load), 1, false);
        assert_eq!((stored.created.len(), stored.batches[0].declared.len()), (2, 0));
        let first = one(&mut dictionary, "node", &load, 2);
        assert_eq!(
            (&first.declared, &first.gauges, &first.counters),
            (&stored.created, &vec![0.5], &vec![7])
        );
        assert_eq!(one(&mut dictionary, "node", &load, 3).declared.len(), 0);
        dictionary.untold();
        let other = one(&mut dictionary, "node", &load, 4);
        assert_eq!((other.declared, other.gauge_ids), (first.declared, first.gauge_ids));
    }

    #[test]
    fn a_series_that_is_no_longer_read_is_retired() {
        let mut dictionary = Dictionary::default();
        let first = one(&mut dictionary, "node", &cycle(&[(Metric::NodeLoad1m, Value::Gauge(0.5))]), 1);
        let other = cycle(&[(Metric::NodeLoad5m, Value::Gauge(0.5))]);
        let retired: Vec<u32> =
            (0..UNREAD).flat_map(|n| one(&mut dictionary, "node", &other, 2 + n).retired).collect();
        assert_eq!(retired, first.gauge_ids);
    }

    #[test]
    fn what_a_lost_source_told_is_retired_at_once() {
        let mut dictionary = Dictionary::default();
        let load = cycle(&[(Metric::NodeLoad1m, Value::Gauge(0.5))]);
        let first = one(&mut dictionary, "node", &load, 1);
        let report = |source| SourceReport {
            source,
            instance: Arc::default(),
            state: SourceState::Failing,
            detail: "gone".into(),
        };
        let others = Cycle {
            sources: vec![report(Source::Sysfs)],
            ..cycle(&[(Metric::NodeLoad5m, Value::Gauge(1.0))])
        };
        assert_eq!(one(&mut dictionary, "node", &others, 2).retired, [0; 0], "another source was lost");
        let partly = Cycle { sources: vec![report(Source::Proc)], ..others };
        assert_eq!(
            one(&mut dictionary, "node", &partly, 3).retired,
            [0; 0],
            "it gave some, so it isn't lost"
        );
        let lost = Cycle { samples: vec![], ..partly };
        assert!(one(&mut dictionary, "node", &lost, 4).retired.contains(&first.gauge_ids[0]));
    }

    #[test]
    fn what_an_object_without_readings_had_is_retired_at_once() {
        let mut dictionary = Dictionary::default();
        let first = one(&mut dictionary, "node", &cycle(&[(Metric::NodeLoad1m, Value::Gauge(0.5))]), 1);
        assert_eq!(one(&mut dictionary, "node", &cycle(&[]), 2).retired, first.gauge_ids);
    }

    #[test]
    fn what_is_not_a_number_is_not_sent() {
        let batch =
            one(&mut Dictionary::default(), "n", &cycle(&[(Metric::NodeLoad1m, Value::Gauge(f64::NAN))]), 1);
        assert!(batch.gauges.is_empty());
    }
}
