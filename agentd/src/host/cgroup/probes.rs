//! The files of one container's group, and what each gives.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Absence, Metric, Source};

use crate::host::pressure::pressure;
use crate::host::read::{Buffer, Keep, KeptFile, Malformed, ReadError, Shape, chain};
use crate::host::readings::Readings;

use super::hierarchy::Hierarchies;
use super::parse::{
    DeviceIo, Limit, cores, cpu_max, io_stat, keyed, limit, number, v1_blkio, v1_memory_limit, v1_quota,
};
use super::specs::{Place, Spec, What, specs};

/// `memory.stat` costs as much as all other files of a group together: the kernel first adds up what every CPU has
/// counted. Where memory in use is about what it was, so is what it is made of.
const MEMORY_STAT_EVERY: u64 = 3;
/// What is still about the same: parts of it, or bytes.
const ABOUT_PARTS: u64 = 64;
const ABOUT_BYTES: u64 = 1 << 20;
/// A file that wasn't there may come: a controller can be enabled for a group that exists.
pub(super) const LOOK_AGAIN_EVERY: u64 = 30;

/// One container's group in every hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    probes: Vec<Probe>,
    /// Spreads over all cycles what is done in some: groups have different ones.
    phase: u64,
    /// All of it is to be read: it has never been.
    fresh: bool,
    /// Memory in use when it was read last what that is made of.
    memory_then: Option<u64>,
}

/// What all groups share while they are read.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) buffer: Buffer,
    pub(super) devices: Devices,
    pub(super) ns_per_tick: u64,
}

/// Block devices by `major:minor`.
#[derive(Debug)]
pub(super) struct Devices {
    root: PathBuf,
    known: HashMap<String, Device>,
}

/// What came of reading a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Read,
    /// What is absent, or why, isn't what it was.
    AbsencesChanged,
    Gone,
}

#[derive(Debug)]
struct Probe {
    spec: &'static Spec,
    /// None: its hierarchy isn't mounted.
    file: Option<KeptFile>,
    problem: Option<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Missing(&'static str),
    Failing(String),
}

#[derive(Clone, Debug)]
struct Device {
    instance: Arc<str>,
    /// It passes on to other devices, which count the same bytes.
    stacked: bool,
}

/// Values of one file that another needs.
#[derive(Debug, Default)]
struct Carried {
    memory: Option<u64>,
    quota: Option<u64>,
}

impl Group {
    /// `path` is below each hierarchy's root.
    pub(super) fn new(hierarchies: &Hierarchies, path: &str, keep: Keep, phase: u64) -> Self {
        let probe = |spec: &'static Spec| {
            let dir = match spec.place {
                Place::V1(controller) => hierarchies.v1(controller),
                Place::Unified => hierarchies.unified.as_deref(),
            };
            let file = dir.map(|dir| file(&dir.join(path.trim_start_matches('/')), spec, keep));
            let problem = file.is_none().then_some(Problem::Missing(spec.not_mounted));
            Probe { spec, file, problem }
        };
        Self { probes: specs(hierarchies).map(probe).collect(), phase, fresh: true, memory_then: None }
    }

    /// Reads what is read in some cycles only in the next one.
    pub(super) fn read_all_next(&mut self) {
        self.fresh = true;
    }

    /// How many files a group keeps open at most.
    pub(super) fn most_files(hierarchies: &Hierarchies) -> usize {
        specs(hierarchies).count()
    }

    pub(super) fn open_files(&self) -> usize {
        self.probes.iter().filter(|probe| probe.file.as_ref().is_some_and(KeptFile::is_open)).count()
    }

    /// `dir` is where the group was found: without it, the container is gone.
    pub(super) fn read(
        &mut self,
        cycle: u64,
        dir: &Path,
        shared: &mut Shared,
        readings: &mut Readings,
    ) -> Outcome {
        let mut carried = Carried::default();
        let mut outcome = Outcome::Read;
        let turn = cycle.wrapping_add(self.phase);
        let fresh = std::mem::take(&mut self.fresh);
        for probe in &mut self.probes {
            let Some(file) = &mut probe.file else { continue };
            let waits = match (&probe.problem, probe.spec.what) {
                (Some(Problem::Missing(_)), _) => !turn.is_multiple_of(LOOK_AGAIN_EVERY),
                (_, What::V1MemoryStat | What::V2MemoryStat) => {
                    !turn.is_multiple_of(MEMORY_STAT_EVERY) && is_about(carried.memory, self.memory_then)
                }
                _ => false,
            };
            if waits && !fresh {
                continue;
            }
            if matches!(probe.spec.what, What::V1MemoryStat | What::V2MemoryStat) {
                self.memory_then = carried.memory;
            }
            let problem = match read(probe.spec, file, shared, &mut carried, readings) {
                Ok(()) => None,
                Err(error) if error.is_gone() && !dir.exists() => return Outcome::Gone,
                Err(error) if error.is_gone() || error.is_unsupported() => {
                    Some(Problem::Missing(probe.spec.missing))
                }
                Err(error) => Some(Problem::Failing(chain(&error))),
            };
            if probe.problem != problem {
                probe.problem = problem;
                outcome = Outcome::AbsencesChanged;
            }
        }
        outcome
    }

    pub(super) fn absences(&self) -> Vec<Absence> {
        let mut absences = Vec::new();
        for probe in &self.probes {
            let reason = match &probe.problem {
                None => continue,
                Some(Problem::Missing(reason)) => *reason,
                Some(Problem::Failing(reason)) => reason.as_str(),
            };
            for metric in probe.spec.metrics {
                absences.push(Absence {
                    metric: (*metric).into(),
                    instance: String::new(),
                    reason: reason.to_owned(),
                });
            }
        }
        absences
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (Source, &str)> {
        self.probes.iter().filter_map(|probe| match &probe.problem {
            Some(Problem::Failing(reason)) => Some((probe.spec.source(), reason.as_str())),
            Some(Problem::Missing(_)) | None => None,
        })
    }
}

/// Whether memory in use hasn't moved so far that what it is made of has to be read again.
fn is_about(now: Option<u64>, then: Option<u64>) -> bool {
    let Some((now, then)) = now.zip(then) else { return now == then };
    now.abs_diff(then) <= (then / ABOUT_PARTS).max(ABOUT_BYTES)
}

fn file(dir: &Path, spec: &Spec, keep: Keep) -> KeptFile {
    let name = match spec.else_name {
        Some(older) if !dir.join(spec.name).exists() => older,
        Some(_) | None => spec.name,
    };
    KeptFile::new(dir.join(name), Shape::Whole, keep)
}

fn read(
    spec: &Spec,
    file: &mut KeptFile,
    shared: &mut Shared,
    carried: &mut Carried,
    readings: &mut Readings,
) -> Result<(), ReadError> {
    let source = spec.source();
    let Shared { buffer, devices, ns_per_tick } = shared;
    file.parse(buffer, |text| {
        match spec.what {
            What::V1CpuTime => readings.whole_counter(source, Metric::ContainerCpuTime, number(text)?),
            What::V1CpuModes => {
                let ticks = keyed(text, ["user", "system"])?;
                let metrics = [Metric::ContainerCpuUserTime, Metric::ContainerCpuSystemTime];
                counters(source, readings, metrics, ticks, *ns_per_tick);
            }
            What::V1Throttling => {
                let [periods, throttled, time_ns] =
                    keyed(text, ["nr_periods", "nr_throttled", "throttled_time"])?;
                counters(source, readings, THROTTLED, [periods, throttled], 1);
                counters(source, readings, [Metric::ContainerCpuThrottledTime], [time_ns], 1);
            }
            What::V2CpuStat => v2_cpu_stat(source, text, readings)?,
            What::V1Quota => {
                carried.quota = match v1_quota(text)? {
                    Limit::At(quota) => Some(quota),
                    Limit::Unlimited => None,
                };
            }
            What::V1Period => {
                let period = number(text)?;
                if let Some(quota) = carried.quota {
                    ceiling(source, readings, Metric::ContainerCpuLimit, cores(quota, period)?);
                }
            }
            What::V2CpuMax => ceiling(source, readings, Metric::ContainerCpuLimit, cpu_max(text)?),
            What::Memory => {
                let bytes = number(text)?;
                carried.memory = Some(bytes);
                readings.whole_gauge(source, Metric::ContainerMemoryCurrent, bytes as f64);
            }
            What::V1MemoryStat => {
                let keys = ["total_inactive_file", "total_rss", "total_cache", "total_swap"];
                let [inactive, anonymous, file, swap] = keyed(text, keys)?;
                memory_stat(source, readings, carried.memory, inactive, [anonymous, file, swap]);
            }
            What::V2MemoryStat => {
                let [inactive, anonymous, file] = keyed(text, ["inactive_file", "anon", "file"])?;
                memory_stat(source, readings, carried.memory, inactive, [anonymous, file, None]);
            }
            What::V1MemoryLimit => {
                let limit = v1_memory_limit(text)?;
                ceiling(source, readings, Metric::ContainerMemoryLimit, limit_f64(limit));
            }
            What::V2MemoryMax => {
                ceiling(source, readings, Metric::ContainerMemoryLimit, limit_f64(limit(text)?));
            }
            What::OomKills => {
                // Linux has the count in v1's `memory.oom_control` since 4.13.
                let kills = keyed(text, ["oom_kill"])?;
                counters(source, readings, [Metric::ContainerMemoryOomKills], kills, 1);
            }
            What::V2Swap => readings.whole_gauge(source, Metric::ContainerMemorySwap, number(text)? as f64),
            What::V1IoBytes => devices.emit(source, readings, BYTES, v1_blkio(text)?.into_iter()),
            What::V1IoOperations => devices.emit(source, readings, OPERATIONS, v1_blkio(text)?.into_iter()),
            What::V2Io => {
                let list = io_stat(text)?;
                devices.emit(
                    source,
                    readings,
                    BYTES,
                    list.iter().map(|(device, bytes, _)| (*device, *bytes)),
                );
                devices.emit(source, readings, OPERATIONS, list.iter().map(|(device, _, io)| (*device, *io)));
            }
            What::Pids => readings.whole_gauge(source, Metric::ContainerPids, number(text)? as f64),
            What::PidsLimit => ceiling(source, readings, Metric::ContainerPidsLimit, limit_f64(limit(text)?)),
            What::Pressure => {
                let pressure = pressure(text)?;
                let totals = [Some(pressure.some.total_ns), pressure.full.map(|full| full.total_ns)];
                for (metric, total) in spec.metrics.iter().zip(totals) {
                    counters(source, readings, [*metric], [total], 1);
                }
            }
        }
        Ok(())
    })
}

const THROTTLED: [Metric; 2] = [Metric::ContainerCpuPeriods, Metric::ContainerCpuThrottledPeriods];
const BYTES: [Metric; 2] = [Metric::ContainerIoReadBytes, Metric::ContainerIoWrittenBytes];
const OPERATIONS: [Metric; 2] = [Metric::ContainerIoReads, Metric::ContainerIoWrites];
const NS_PER_US: u64 = 1000;

fn counters<const N: usize>(
    source: Source,
    readings: &mut Readings,
    metrics: [Metric; N],
    values: [Option<u64>; N],
    factor: u64,
) {
    for (metric, value) in metrics.into_iter().zip(values) {
        if let Some(value) = value {
            readings.whole_counter(source, metric, value.saturating_mul(factor));
        }
    }
}

fn ceiling(source: Source, readings: &mut Readings, metric: Metric, limit: Limit<f64>) {
    match limit {
        Limit::At(value) => readings.whole_gauge(source, metric, value),
        Limit::Unlimited => {}
    }
}

fn limit_f64(limit: Limit<u64>) -> Limit<f64> {
    match limit {
        Limit::At(value) => Limit::At(value as f64),
        Limit::Unlimited => Limit::Unlimited,
    }
}

fn v2_cpu_stat(source: Source, text: &str, readings: &mut Readings) -> Result<(), Malformed> {
    let keys = ["usage_usec", "user_usec", "system_usec", "throttled_usec", "nr_periods", "nr_throttled"];
    let [usage, user, system, throttled, periods, throttled_periods] = keyed(text, keys)?;
    let times = [
        Metric::ContainerCpuTime,
        Metric::ContainerCpuUserTime,
        Metric::ContainerCpuSystemTime,
        Metric::ContainerCpuThrottledTime,
    ];
    counters(source, readings, times, [usage, user, system, throttled], NS_PER_US);
    counters(source, readings, THROTTLED, [periods, throttled_periods], 1);
    Ok(())
}

fn memory_stat(
    source: Source,
    readings: &mut Readings,
    current: Option<u64>,
    inactive_file: Option<u64>,
    values: [Option<u64>; 3],
) {
    if let Some((current, inactive)) = current.zip(inactive_file) {
        // The two are read one after the other, so the second may have outgrown the first.
        let working_set = current.saturating_sub(inactive);
        readings.whole_gauge(source, Metric::ContainerMemoryWorkingSet, working_set as f64);
    }
    let metrics =
        [Metric::ContainerMemoryAnonymous, Metric::ContainerMemoryFile, Metric::ContainerMemorySwap];
    for (metric, value) in metrics.into_iter().zip(values) {
        if let Some(value) = value {
            readings.whole_gauge(source, metric, value as f64);
        }
    }
}

impl Devices {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.join("sys/dev/block"), known: HashMap::new() }
    }

    /// Has every device looked up anew: numbers are used again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Each device, and the sum over those that keep data themselves: a mapping's bytes are its disks' bytes too.
    fn emit<'a>(
        &mut self,
        source: Source,
        readings: &mut Readings,
        [read, written]: [Metric; 2],
        list: impl Iterator<Item = (&'a str, DeviceIo)>,
    ) {
        let mut sum = DeviceIo::default();
        for (number, io) in list {
            let device = self.device(number);
            readings.counter(source, read, &device.instance, io.read);
            readings.counter(source, written, &device.instance, io.written);
            if !device.stacked {
                sum.read = sum.read.saturating_add(io.read);
                sum.written = sum.written.saturating_add(io.written);
            }
        }
        readings.whole_counter(source, read, sum.read);
        readings.whole_counter(source, written, sum.written);
    }

    fn device(&mut self, number: &str) -> Device {
        if let Some(device) = self.known.get(number) {
            return device.clone();
        }
        let link = self.root.join(number);
        let target = fs::read_link(&link).ok();
        let name =
            target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(number);
        let has_slaves = fs::read_dir(link.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some());
        let device = Device { instance: Arc::from(name), stacked: has_slaves || name.starts_with("loop") };
        self.known.insert(number.to_owned(), device.clone());
        device
    }
}
