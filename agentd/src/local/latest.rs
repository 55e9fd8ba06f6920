//! The newest of everything: what exists, and of each object what each lane read last.
//!
//! What a value is worth is decided as the link decides it: a lane's reading of a metric takes the place of all that it
//! read of that metric before, so a device that has gone is gone; what a lane reads only every few times stays until
//! then; a sample without readings, a lost source and a VM that is off leave nothing behind.

use std::collections::HashMap;
use std::time::Duration;

use horcrux_proto::v1::Metric;

use crate::link::dictionary::{UNREAD, lost_sources};
use crate::link::off;
use crate::present::{News, Present};
use crate::sample::{Cycle, Found, Object, ObjectSample, Reading, SourceReport, Taken};

/// See above.
#[derive(Debug, Default)]
pub struct Latest {
    present: Present,
    objects: HashMap<Object, Vec<Part>>,
    /// How often each lane has read.
    readings: HashMap<&'static str, u64>,
    fresh: Metrics,
}

/// What one lane read of one object at one time, less what it read again since.
#[derive(Debug)]
struct Part {
    lane: &'static str,
    /// Which of its lane's readings this was.
    number: u64,
    taken: Taken,
    readings: Vec<Reading>,
}

/// A set of metrics.
#[derive(Debug, Default)]
struct Metrics(Vec<u64>);

impl Latest {
    /// Takes in what `lane` read. `skipped` says how many readings of what it reports of were skipped so far.
    /// Says what is new.
    pub fn take(
        &mut self,
        lane: &'static str,
        cycle: &Cycle,
        skipped: impl Fn(&SourceReport) -> u64,
    ) -> Vec<News> {
        let news = self.present.learn(lane, cycle, skipped);
        let number = self.readings.entry(lane).or_default();
        *number += 1;
        let number = *number;
        self.forget_gone(&cycle.found);
        let lost = lost_sources(cycle);
        for parts in self.objects.values_mut() {
            for part in parts.iter_mut().filter(|part| part.lane == lane && !lost.is_empty()) {
                part.readings.retain(|reading| !lost.contains(&reading.source));
            }
            parts.retain(|part| part.lane != lane || number - part.number < UNREAD);
        }
        for sample in &cycle.samples {
            let parts = self.objects.entry(sample.object.clone()).or_default();
            self.fresh.set(&sample.readings);
            replace(parts, lane, sample, number, cycle.taken, &self.fresh);
        }
        for vm in off(&cycle.found) {
            self.objects.remove(&vm);
        }
        self.objects.retain(|_, parts| !parts.is_empty());
        news
    }

    /// Takes in how a source is doing, from elsewhere than its lane.
    pub fn source(&mut self, report: &SourceReport, skipped: u64, at_unix_ms: i64) -> News {
        self.present.source(report, skipped, at_unix_ms)
    }

    #[must_use]
    pub fn present(&self) -> &Present {
        &self.present
    }

    /// What is known of an object: of each metric what one lane read, the newest where two did. What is older than its
    /// lane's `holds` is left out: the lane is stuck.
    pub fn readings<'a>(
        &'a self,
        object: &Object,
        now_ns: u64,
        holds: impl Fn(&'static str) -> Duration,
    ) -> impl Iterator<Item = &'a Reading> {
        let parts = self.objects.get(object).map_or(&[] as &[Part], Vec::as_slice);
        let holding = move |part: &&Part| {
            let age = Duration::from_nanos(now_ns.saturating_sub(part.taken.boottime_ns));
            age <= holds(part.lane)
        };
        parts.iter().filter(holding).flat_map(|part| &part.readings)
    }

    /// When anything was last read of an object.
    #[must_use]
    pub fn taken(&self, object: &Object) -> Option<Taken> {
        let parts = self.objects.get(object)?;
        parts.iter().map(|part| part.taken).max_by_key(|taken| taken.boottime_ns)
    }

    /// When a lane last read `metric` of an object.
    #[must_use]
    pub fn taken_of(&self, object: &Object, metric: Metric) -> Option<Taken> {
        let parts = self.objects.get(object)?;
        let has = |part: &&Part| part.readings.iter().any(|reading| reading.metric == metric);
        parts.iter().find(has).map(|part| part.taken)
    }

    /// A list is complete: what is not in it has gone.
    fn forget_gone(&mut self, found: &Found) {
        let present = &self.present;
        match found {
            Found::Vms(_) | Found::VmsSoFar(_) => self.objects.retain(|object, _| match object {
                Object::Vm(uuid) => present.vms().contains_key(&uuid.to_string()),
                Object::Node | Object::Container(_) => true,
            }),
            Found::Containers(_) => self.objects.retain(|object, _| match object {
                Object::Container(id) => present.containers().contains_key(id.as_str()),
                Object::Node | Object::Vm(_) => true,
            }),
            Found::Node(_) | Found::Nothing => {}
        }
    }
}

/// Puts a sample where its lane's older ones of the same metrics were. The room of one that was replaced whole is used
/// again.
fn replace(
    parts: &mut Vec<Part>,
    lane: &'static str,
    sample: &ObjectSample,
    number: u64,
    taken: Taken,
    fresh: &Metrics,
) {
    let emptied = sample.readings.is_empty();
    for part in parts.iter_mut() {
        let ended = emptied && part.lane == lane;
        // Another lane reads the same metric too: the newest counts.
        part.readings.retain(|reading| !ended && !fresh.has(reading.metric));
    }
    if let Some(part) = parts.iter_mut().find(|part| part.readings.is_empty()) {
        part.readings.extend_from_slice(&sample.readings);
        (part.lane, part.number, part.taken) = (lane, number, taken);
    } else {
        parts.push(Part { lane, number, taken, readings: sample.readings.clone() });
    }
    parts.retain(|part| !part.readings.is_empty());
}

impl Metrics {
    fn set(&mut self, readings: &[Reading]) {
        self.0.fill(0);
        for reading in readings {
            let (word, bit) = place(reading.metric);
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= bit;
        }
    }

    fn has(&self, metric: Metric) -> bool {
        let (word, bit) = place(metric);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(metric: Metric) -> (usize, u64) {
    let number = usize::try_from(metric as i32).unwrap_or(0);
    (number / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use horcrux_proto::v1::{Source, SourceState, VmFacts, VmState};

    use super::*;
    use crate::sample::Value;

    const UUID: &str = "00000000-0000-0000-0000-000000000001";

    fn reading(metric: Metric, instance: &str, value: f64) -> Reading {
        Reading { metric, instance: instance.into(), value: Value::Gauge(value), source: Source::Proc }
    }

    fn cycle(object: Object, readings: Vec<Reading>) -> Cycle {
        Cycle {
            taken: Taken { unix_ms: 1, boottime_ns: 1 },
            found: Found::Nothing,
            events: Vec::new(),
            samples: vec![ObjectSample { object, readings }],
            sources: Vec::new(),
        }
    }

    fn seen(latest: &Latest, object: &Object) -> Vec<(Metric, String, Value)> {
        let readings = latest.readings(object, 1, |_| Duration::from_secs(1));
        let mut seen: Vec<_> = readings.map(|r| (r.metric, r.instance.to_string(), r.value)).collect();
        seen.sort_by_key(|(metric, instance, _)| (*metric as i32, instance.clone()));
        seen
    }

    fn vm(state: VmState) -> Found {
        Found::Vms(vec![VmFacts { uuid: UUID.into(), state: state.into(), ..VmFacts::default() }])
    }

    #[test]
    fn what_is_read_rarely_stays_and_a_device_that_went_does_not() {
        let (rx, size) = (Metric::NodeNetworkRxBytes, Metric::NodeFilesystemSize);
        let mut latest = Latest::default();
        let first = vec![reading(rx, "eth0", 1.0), reading(rx, "tap0", 1.0), reading(size, "/", 9.0)];
        latest.take("node", &cycle(Object::Node, first), |_| 0);
        latest.take("node", &cycle(Object::Node, vec![reading(rx, "eth0", 2.0)]), |_| 0);
        let expected =
            [(rx, "eth0".to_owned(), Value::Gauge(2.0)), (size, "/".to_owned(), Value::Gauge(9.0))];
        assert_eq!(seen(&latest, &Object::Node), expected);
        for _ in 0..UNREAD {
            latest.take("node", &cycle(Object::Node, vec![reading(rx, "eth0", 2.0)]), |_| 0);
        }
        assert_eq!(seen(&latest, &Object::Node).len(), 1, "what is read no more is known no more");
    }

    #[test]
    fn an_empty_sample_takes_what_its_lane_read_and_nothing_else() {
        let object = Object::Vm(UUID.parse().unwrap());
        let mut latest = Latest::default();
        latest.take("vms", &cycle(object.clone(), vec![reading(Metric::VmVcpus, "", 2.0)]), |_| 0);
        let balloon = vec![reading(Metric::VmMemoryBalloon, "", 5.0)];
        latest.take("vm-monitors", &cycle(object.clone(), balloon), |_| 0);
        assert_eq!(seen(&latest, &object).len(), 2);
        latest.take("vm-monitors", &cycle(object.clone(), Vec::new()), |_| 0);
        assert_eq!(seen(&latest, &object), [(Metric::VmVcpus, String::new(), Value::Gauge(2.0))]);
    }

    #[test]
    fn a_vm_that_is_off_or_gone_has_no_values() {
        let object = Object::Vm(UUID.parse().unwrap());
        for found in [vm(VmState::ShutOff), Found::Vms(Vec::new())] {
            let mut latest = Latest::default();
            let running = Cycle {
                found: vm(VmState::Running),
                ..cycle(object.clone(), vec![reading(Metric::VmVcpus, "", 2.0)])
            };
            latest.take("vms", &running, |_| 0);
            assert_eq!(seen(&latest, &object).len(), 1);
            latest.take("vms", &Cycle { found, samples: Vec::new(), ..running }, |_| 0);
            assert_eq!(seen(&latest, &object), []);
        }
    }

    #[test]
    fn a_lost_source_takes_its_values_along() {
        let mut latest = Latest::default();
        latest.take("node", &cycle(Object::Node, vec![reading(Metric::NodeLoad1m, "", 1.0)]), |_| 0);
        let report = SourceReport {
            source: Source::Proc,
            instance: Arc::default(),
            state: SourceState::Failing,
            detail: "x".into(),
        };
        let lost = Cycle { samples: Vec::new(), sources: vec![report], ..cycle(Object::Node, Vec::new()) };
        latest.take("node", &lost, |_| 3);
        assert_eq!(seen(&latest, &Object::Node), []);
        let source = latest.present().sources().next().unwrap();
        assert_eq!((source.state(), source.skipped), (SourceState::Failing, 3));
    }

    #[test]
    fn what_a_stuck_lane_read_long_ago_is_not_told() {
        let mut latest = Latest::default();
        latest.take("node", &cycle(Object::Node, vec![reading(Metric::NodeLoad1m, "", 1.0)]), |_| 0);
        let later = 2_000_000_002;
        assert_eq!(latest.readings(&Object::Node, later, |_| Duration::from_secs(2)).count(), 0);
        assert_eq!(latest.readings(&Object::Node, later - 1, |_| Duration::from_secs(2)).count(), 1);
    }
}
