//! Sensors of the machine: temperatures and fans (Linux, Documentation/hwmon/sysfs-interface.rst).
//!
//! Some chips sit on slow buses, and reading them takes a tenth of a second or hangs. So this is a lane of its own, and
//! each sensor is asked by a worker with a deadline: one that hangs or fails has no value, and the reason; the others go
//! on.

mod chip;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::v1::{Absence, Metric, Source, SourceState};

use crate::host::lacking::{Lacking, absent};
use crate::host::read::{ReadError, chain};
use crate::host::readings::Readings;
use crate::host::workers::{Patience, Workers};
use crate::sample::{Cycle, Found, Lane, Object, SourceReport, Taken};

use self::chip::{Chip, Kind, Sensor, chip, chip_name, input};

const PATIENCE: Patience =
    Patience { answer: Duration::from_secs(1), round: Duration::from_secs(4), late: 64 };
/// A chip's sensors and limits are looked up anew in every so many readings: drivers make some of them late.
const LOOK_EVERY: u64 = 30;
/// Sensors that are read; a server has a few dozen.
const MOST_SENSORS: usize = 512;

/// Reads sensors.
#[derive(Debug)]
pub struct SensorLane {
    /// `/sys/class/hwmon`.
    class: PathBuf,
    workers: Workers<Question, Answer>,
    /// By the name of their directory.
    chips: BTreeMap<String, Known>,
    /// How many sensors gave a value in the last reading.
    read: Vec<Arc<str>>,
    cycles: u64,
    lacking: Lacking,
    whole: Arc<str>,
}

/// Asked of a thread that may hang.
#[derive(Clone, Debug)]
enum Question {
    /// What a chip has.
    Look(PathBuf),
    Read(Sensor),
}

#[derive(Debug)]
enum Answer {
    Chip(Result<Chip, ReadError>),
    Value(Result<f64, String>),
}

#[derive(Debug)]
struct Known {
    chip: Chip,
    /// Names of its sensors, in their order.
    instances: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Outcome {
    absences: Vec<Absence>,
    problems: Vec<String>,
    read: Vec<Arc<str>>,
}

impl SensorLane {
    /// `root` is `/`, or a tree that looks like one. What can't be read is told to `lacking`.
    #[must_use]
    pub fn new(root: &Path, lacking: Lacking) -> Self {
        Self::with(root, lacking, answer, PATIENCE)
    }

    fn with(root: &Path, lacking: Lacking, answer: fn(&Question) -> Answer, patience: Patience) -> Self {
        Self {
            class: root.join("sys/class/hwmon"),
            workers: Workers::new("hwmon", move |question: Question| answer(&question), patience),
            chips: BTreeMap::new(),
            read: Vec::new(),
            cycles: 0,
            lacking,
            whole: Arc::from(""),
        }
    }

    /// Names of directories of chips; None where there are no sensors at all.
    fn listed(&self) -> Option<Vec<String>> {
        let entries = std::fs::read_dir(&self.class).ok()?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        (!names.is_empty()).then_some(names)
    }

    fn look(&mut self, names: &[String], outcome: &mut Outcome) {
        let again = self.cycles.is_multiple_of(LOOK_EVERY);
        // A number is given again: it may be another chip now.
        let class = &self.class;
        self.chips.retain(|name, known| {
            names.contains(name) && chip_name(&class.join(name)).as_ref() == Some(&known.chip.name)
        });
        for name in names {
            if self.chips.contains_key(name) && !again {
                continue;
            }
            match self.workers.ask(name, Question::Look(self.class.join(name))) {
                Ok(Answer::Chip(Ok(chip))) => {
                    let instances = self.instances(name, &chip);
                    self.chips.insert(name.clone(), Known { chip, instances });
                }
                Ok(Answer::Chip(Err(error))) => outcome.problems.push(chain(&error)),
                Ok(Answer::Value(_)) => {}
                Err(no) => outcome.problems.push(format!("{name}: {no}")),
            }
        }
    }

    /// `coretemp.0/Core 1`. Two chips of one name on one device are told apart by their number.
    fn instances(&self, dir: &str, chip: &Chip) -> Vec<Arc<str>> {
        let twice = self.chips.iter().any(|(other, known)| other != dir && known.chip.name == chip.name);
        let prefix = if twice { format!("{} {dir}", chip.name) } else { chip.name.clone() };
        chip.sensors.iter().map(|sensor| Arc::from(format!("{prefix}/{}", sensor.label))).collect()
    }

    fn values(&mut self, readings: &mut Readings, outcome: &mut Outcome) {
        let sensors = self.chips.values().flat_map(|known| known.chip.sensors.iter().zip(&known.instances));
        for (sensor, instance) in sensors.take(MOST_SENSORS) {
            let value = match self.workers.ask(instance, Question::Read(sensor.clone())) {
                Ok(Answer::Value(value)) => value,
                Ok(Answer::Chip(_)) => continue,
                Err(no) => Err(no.to_string()),
            };
            match value {
                Ok(value) => {
                    readings.gauge(Source::Hwmon, sensor.kind.metric(), instance, value);
                    let limits = [
                        (Metric::NodeTemperatureMax, sensor.max),
                        (Metric::NodeTemperatureCritical, sensor.critical),
                    ];
                    for (metric, limit) in limits {
                        if let Some(limit) = limit {
                            readings.gauge(Source::Hwmon, metric, instance, limit);
                        }
                    }
                    outcome.read.push(Arc::clone(instance));
                }
                Err(why) => {
                    outcome.problems.push(format!("{instance}: {why}"));
                    outcome.absences.push(absent(sensor.kind.metric(), instance, why));
                }
            }
        }
    }
}

impl Lane for SensorLane {
    fn name(&self) -> &'static str {
        "sensors"
    }

    fn source(&self) -> Source {
        Source::Hwmon
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let mut readings = Readings::new(&self.whole, 3 * self.read.len());
        let mut outcome = Outcome::default();
        let (state, detail) = match self.listed() {
            None => {
                self.chips.clear();
                (SourceState::Absent, "this machine shows no sensors in /sys/class/hwmon".to_owned())
            }
            Some(names) => {
                let chips = &self.chips;
                self.workers.begin(|about| {
                    names.iter().any(|name| name == about)
                        || chips.values().any(|known| known.instances.iter().any(|i| **i == *about))
                });
                self.look(&names, &mut outcome);
                self.values(&mut readings, &mut outcome);
                let bad = !outcome.problems.is_empty();
                (if bad { SourceState::Failing } else { SourceState::Ok }, outcome.problems.join("; "))
            }
        };
        self.cycles += 1;
        self.lacking.replace(self.name(), outcome.absences);
        let lost = self.read.iter().any(|instance| !outcome.read.contains(instance));
        self.read = outcome.read;
        let samples = readings.into_samples(Object::Node, lost);
        let sources = vec![SourceReport { source: Source::Hwmon, instance: Arc::default(), state, detail }];
        Cycle { taken, found: Found::Nothing, samples, sources, events: Vec::new() }
    }
}

fn answer(question: &Question) -> Answer {
    match question {
        Question::Look(dir) => Answer::Chip(chip(dir)),
        Question::Read(sensor) => Answer::Value(input(sensor)),
    }
}

impl Kind {
    fn metric(self) -> Metric {
        match self {
            Self::Temperature => Metric::NodeTemperature,
            Self::Fan => Metric::NodeFanSpeed,
        }
    }
}

#[cfg(test)]
mod tests;
