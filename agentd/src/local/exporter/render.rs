//! Writes what is known as families: each family once, its values together, in the order of [`names`], then of the
//! objects' names.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use horcrux_proto::catalogue::{EntityKind, Kind, Unit};
use horcrux_proto::v1::Metric;

use crate::collect::{self, Watched};
use crate::local::{Latest, Local};
use crate::sample::{Object, Reading, Taken, Value};

use super::mounts::MountLabels;
use super::names::{self, Exposed, Of};
use super::text::{Format, Number, Text, Type, label};
use super::{facts, own};

/// A lane that has not read for this long, and for three of its intervals, is stuck: its values are no longer told.
/// As long as Prometheus itself takes a value for current.
const HOLDS: Duration = Duration::from_secs(300);
const HOLDS_INTERVALS: u32 = 3;

/// Renders into one buffer, again and again.
#[derive(Debug)]
pub struct Renderer {
    exposed: Vec<Exposed>,
    text: Text,
    mounts: MountLabels,
    system: facts::System,
}

/// What is there to be written, sorted.
struct Readings<'a> {
    /// By metric: each object's readings one after the other.
    by_metric: Vec<Vec<(usize, &'a Reading)>>,
    /// Each object's labels, as they are written.
    labels: Vec<Range<usize>>,
    rendered: String,
}

impl Renderer {
    /// `root` is where /proc is found.
    #[must_use]
    pub fn new(root: &std::path::Path) -> Self {
        Self {
            exposed: names::exposed(),
            text: Text::new(),
            mounts: MountLabels::new(PathBuf::from(root).join("proc/self/mountinfo")),
            system: facts::System::read(root),
        }
    }

    /// Everything that is known now.
    pub fn render(&mut self, local: &Local, format: Format) -> &str {
        let now = collect::now();
        let text = &mut self.text;
        text.begin(format);
        {
            let latest = local.latest();
            self.mounts.refresh(latest.taken_of(&Object::Node, Metric::NodeFilesystemSize));
            let readings = Readings::of(&latest, now, &local.lanes);
            readings.write(text, &self.exposed, &self.mounts);
            facts::write(text, &latest, now, &self.system, &local.lanes);
        }
        own::write(text, &local.lanes, local.link(), now);
        text.end()
    }
}

impl<'a> Readings<'a> {
    fn of(latest: &'a Latest, now: Taken, lanes: &[Watched]) -> Self {
        let holds = |lane: &'static str| {
            let watched = lanes.iter().find(|watched| watched.name == lane);
            watched.map_or(HOLDS, |lane| HOLDS.max(lane.progress.interval() * HOLDS_INTERVALS))
        };
        let mut readings = Self { by_metric: Vec::new(), labels: Vec::new(), rendered: String::new() };
        let mut add = |object: &Object, labels: &[(&str, &str)]| {
            readings.add(labels, latest.readings(object, now.boottime_ns, holds));
        };
        add(&Object::Node, &[]);
        for vm in latest.present().vms().values() {
            if let Ok(uuid) = vm.uuid.parse() {
                add(&Object::Vm(uuid), &facts::vm_labels(vm));
            }
        }
        for container in latest.present().containers().values() {
            if let Ok(id) = container.id.parse() {
                facts::with_labels(container, |labels| add(&Object::Container(id), labels));
            }
        }
        readings
    }

    fn add(&mut self, labels: &[(&str, &str)], readings: impl Iterator<Item = &'a Reading>) {
        let object = self.labels.len();
        let from = self.rendered.len();
        for (at, (name, value)) in labels.iter().enumerate() {
            if at > 0 {
                self.rendered.push(',');
            }
            label(&mut self.rendered, name, value);
        }
        self.labels.push(from..self.rendered.len());
        for reading in readings {
            let metric = index(reading.metric);
            if self.by_metric.len() <= metric {
                self.by_metric.resize(metric + 1, Vec::new());
            }
            self.by_metric[metric].push((object, reading));
        }
    }

    fn write(&self, text: &mut Text, exposed: &[Exposed], mounts: &MountLabels) {
        let mut family = "";
        for exposed in exposed {
            let of = self.by_metric.get(index(exposed.info.metric)).map_or(&[] as &[_], Vec::as_slice);
            for of_object in of.chunk_by(|(a, _), (b, _)| a == b) {
                // A sum beside what it is the sum of would be counted twice.
                let has_instances = !exposed.info.instance.is_empty()
                    && of_object.iter().any(|(_, reading)| !reading.instance.is_empty());
                for (object, reading) in of_object {
                    let Some(number) =
                        number(reading.value, exposed.info.unit).map(|n| written(n, exposed.of))
                    else {
                        continue;
                    };
                    if has_instances && reading.instance.is_empty() {
                        continue;
                    }
                    if family != exposed.name {
                        text.family(&exposed.name, kind(exposed), exposed.help);
                        family = &exposed.name;
                    }
                    let labels = &self.rendered[self.labels[*object].clone()];
                    let mut line = text.line(&exposed.name).rendered(exposed.label).rendered(labels);
                    if !reading.instance.is_empty() {
                        let name = names::instance_label(exposed.info);
                        let is_mount = exposed.info.entity == EntityKind::Node && name == "mountpoint";
                        let more = if is_mount { mounts.of(&reading.instance) } else { "" };
                        line = line.label(name, &reading.instance).rendered(more);
                    }
                    line.value(number);
                }
            }
        }
    }
}

fn index(metric: Metric) -> usize {
    usize::try_from(metric as i32).unwrap_or(0)
}

/// OpenMetrics has no counter whose name doesn't say that it is one.
fn kind(exposed: &Exposed) -> Type {
    match exposed.info.kind {
        Kind::Counter if exposed.name.ends_with("_total") => Type::Counter,
        Kind::Counter => Type::Untyped,
        Kind::Gauge | Kind::Unspecified => Type::Gauge,
    }
}

/// In the unit that its name promises.
fn written(number: Number, of: Of) -> Number {
    let divided = |by: u64| match number {
        Number::Whole(value) => Number::Whole(value / by.max(1)),
        Number::Float(value) => Number::Float(value / by.max(1) as f64),
        Number::Nanoseconds(_) => number,
    };
    match of {
        Of::Base => number,
        Of::Bytes(by) => divided(by),
        Of::Pages => divided(rustix::param::page_size() as u64),
        Of::Bits => divided(8),
        Of::Cores(each) => match number {
            Number::Float(cores) => Number::Float((cores * each as f64).round()),
            Number::Whole(_) | Number::Nanoseconds(_) => number,
        },
        Of::Always(value) => Number::Whole(value),
    }
}

/// In Prometheus' base unit; `None` for what is no number.
fn number(value: Value, unit: Unit) -> Option<Number> {
    let number = match (value, unit) {
        (Value::Counter(ns), Unit::Nanoseconds) => Number::Nanoseconds(ns),
        (Value::Counter(count), _) => Number::Whole(count),
        (Value::Gauge(ns), Unit::Nanoseconds) => Number::Float(ns / 1e9),
        (Value::Gauge(percent), Unit::Percent) => Number::Float(percent / 100.0),
        (Value::Gauge(value), _) => Number::Float(value),
    };
    match number {
        Number::Float(value) if !value.is_finite() => None,
        Number::Float(_) | Number::Whole(_) | Number::Nanoseconds(_) => Some(number),
    }
}
