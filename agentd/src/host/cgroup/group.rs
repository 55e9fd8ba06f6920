//! The files of one container's cgroup, and what they say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Absence, Metric, Source};

use super::super::file::{Held, ReadError};
use super::hierarchy::Hierarchy;
use super::parse::{self, Limit};
use crate::sample::{Reading, Value};

/// One container's files.
#[derive(Debug)]
pub(super) struct Group {
    files: Vec<File>,
    pub(super) source: Source,
    pub(super) absences: Vec<Absence>,
    quota: Option<u64>,
}

#[derive(Debug)]
struct File {
    what: What,
    held: Held,
    /// A second file that is read with it.
    beside: Option<Held>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    CpuV1Usage,
    CpuV1UserSystem,
    CpuV1Throttling,
    CpuV1Quota,
    CpuV1Period,
    CpuV2,
    CpuV2Max,
    Memory,
    MemoryLimit,
    MemoryStatV1,
    MemoryStatV2,
    MemoryEvents,
    Swap,
    IoV1,
    IoV2,
    Pids,
    PidsLimit,
    Pressure(Metric, Metric),
}

/// Instance names of block devices, shared.
pub(super) trait DeviceNames {
    fn name(&mut self, device: &str) -> Arc<str>;
}

const US: u64 = 1000;

impl Group {
    /// The files of the group at `path` below each hierarchy's root. What isn't there is noted as absent.
    pub(super) fn open(hierarchy: &Hierarchy, path: &str) -> Self {
        let is_v2 =
            hierarchy.v1.is_empty() || hierarchy.controller("memory").is_none() && hierarchy.v2.is_some();
        let mut group = Self {
            files: Vec::new(),
            source: if is_v2 { Source::CgroupV2 } else { Source::CgroupV1 },
            absences: Vec::new(),
            quota: None,
        };
        if let (true, Some(root)) = (is_v2, &hierarchy.v2) {
            group.open_v2(&root.join(path));
        } else {
            group.open_v1(hierarchy, path);
        }
        group
    }

    fn open_v2(&mut self, dir: &Path) {
        use Metric as M;
        self.add(What::CpuV2, dir.join("cpu.stat"), M::ContainerCpuTime);
        self.add_quietly(What::CpuV2Max, dir.join("cpu.max"));
        self.add_quietly(What::MemoryLimit, dir.join("memory.max"));
        self.add(What::Memory, dir.join("memory.current"), M::ContainerMemoryCurrent);
        self.add(What::MemoryStatV2, dir.join("memory.stat"), M::ContainerMemoryWorkingSet);
        self.add(What::MemoryEvents, dir.join("memory.events"), M::ContainerMemoryOomKills);
        self.add_quietly(What::Swap, dir.join("memory.swap.current"));
        self.add(What::IoV2, dir.join("io.stat"), M::ContainerIoReadBytes);
        self.add(What::Pids, dir.join("pids.current"), M::ContainerPids);
        self.add_quietly(What::PidsLimit, dir.join("pids.max"));
        let pressures = [
            ("cpu", M::ContainerPressureCpuSomeTime, M::ContainerPressureCpuFullTime),
            ("memory", M::ContainerPressureMemorySomeTime, M::ContainerPressureMemoryFullTime),
            ("io", M::ContainerPressureIoSomeTime, M::ContainerPressureIoFullTime),
        ];
        for (name, some, full) in pressures {
            self.add(What::Pressure(some, full), dir.join(format!("{name}.pressure")), some);
        }
    }

    fn open_v1(&mut self, hierarchy: &Hierarchy, path: &str) {
        use Metric as M;
        let file = |controller: &str, name: &str| {
            let mount = hierarchy.controller(controller).unwrap_or(Path::new("/nonexistent"));
            mount.join(path).join(name)
        };
        self.add(What::CpuV1Usage, file("cpuacct", "cpuacct.usage"), M::ContainerCpuTime);
        self.add_quietly(What::CpuV1UserSystem, file("cpuacct", "cpuacct.stat"));
        self.add_quietly(What::CpuV1Throttling, file("cpu", "cpu.stat"));
        // The quota is read before the period that gives it meaning.
        self.add_quietly(What::CpuV1Quota, file("cpu", "cpu.cfs_quota_us"));
        self.add_quietly(What::CpuV1Period, file("cpu", "cpu.cfs_period_us"));
        self.add_quietly(What::MemoryLimit, file("memory", "memory.limit_in_bytes"));
        self.add(What::Memory, file("memory", "memory.usage_in_bytes"), M::ContainerMemoryCurrent);
        self.add(What::MemoryStatV1, file("memory", "memory.stat"), M::ContainerMemoryWorkingSet);
        self.add(What::MemoryEvents, file("memory", "memory.oom_control"), M::ContainerMemoryOomKills);
        let recursive = file("blkio", "blkio.throttle.io_service_bytes_recursive");
        let suffix = if recursive.exists() { "_recursive" } else { "" };
        self.add(
            What::IoV1,
            file("blkio", &format!("blkio.throttle.io_service_bytes{suffix}")),
            M::ContainerIoReadBytes,
        );
        if let Some(io) = self.files.iter_mut().find(|f| f.what == What::IoV1) {
            io.beside = Some(Held::new(file("blkio", &format!("blkio.throttle.io_serviced{suffix}"))));
        }
        self.add(What::Pids, file("pids", "pids.current"), M::ContainerPids);
        self.add_quietly(What::PidsLimit, file("pids", "pids.max"));
        for metric in [
            M::ContainerPressureCpuSomeTime,
            M::ContainerPressureMemorySomeTime,
            M::ContainerPressureIoSomeTime,
        ] {
            self.absent(metric, "cgroup v1 keeps no pressure of a group");
        }
    }

    fn add(&mut self, what: What, path: PathBuf, metric: Metric) {
        if path.exists() {
            self.files.push(File { what, held: Held::new(path), beside: None });
        } else {
            self.absent(metric, "its controller isn't mounted, or isn't used for this group");
        }
    }

    /// For what is absent by nature in many groups.
    fn add_quietly(&mut self, what: What, path: PathBuf) {
        if path.exists() {
            self.files.push(File { what, held: Held::new(path), beside: None });
        }
    }

    fn absent(&mut self, metric: Metric, reason: &str) {
        self.absences.push(Absence { metric: metric.into(), instance: String::new(), reason: reason.into() });
    }

    /// Closes the files: there are more containers than descriptors.
    pub(super) fn release(&mut self) {
        for file in &mut self.files {
            file.held.close();
            file.beside.iter_mut().for_each(Held::close);
        }
    }

    /// Reads all files. An error that says "gone" means that the container ended.
    pub(super) fn read(
        &mut self,
        whole: &Arc<str>,
        ns_per_tick: u64,
        devices: &mut dyn DeviceNames,
        out: &mut Vec<Reading>,
    ) -> Result<(), ReadError> {
        let source = self.source;
        let mut put = |metric, instance: &Arc<str>, value| {
            out.push(Reading { metric, instance: Arc::clone(instance), value, source });
        };
        let mut current = None;
        for file in &mut self.files {
            let text = file.held.read()?;
            let mut counter = |metric, count: Option<u64>| {
                if let Some(count) = count {
                    put(metric, whole, Value::Counter(count));
                }
            };
            let time = |us: Option<u64>| us.map(|us| us.saturating_mul(US));
            let key = |key| parse::keyed(text, key);
            match file.what {
                What::CpuV1Usage => counter(Metric::ContainerCpuTime, parse::number(text)),
                What::CpuV1UserSystem => {
                    let ticks = |ticks: Option<u64>| ticks.map(|t| t.saturating_mul(ns_per_tick));
                    counter(Metric::ContainerCpuUserTime, ticks(key("user")));
                    counter(Metric::ContainerCpuSystemTime, ticks(key("system")));
                }
                What::CpuV1Throttling => {
                    counter(Metric::ContainerCpuPeriods, key("nr_periods"));
                    counter(Metric::ContainerCpuThrottledPeriods, key("nr_throttled"));
                    counter(Metric::ContainerCpuThrottledTime, key("throttled_time"));
                }
                What::CpuV1Quota => {
                    self.quota = match parse::limit(text) {
                        Some(Limit::At(quota)) => Some(quota),
                        Some(Limit::Unlimited) | None => None,
                    };
                }
                What::CpuV1Period => {
                    let period = parse::number(text);
                    let cores =
                        self.quota.zip(period).and_then(|(quota, period)| parse::cores(quota, period));
                    if let Some(cores) = cores {
                        put(Metric::ContainerCpuLimit, whole, Value::Gauge(cores));
                    }
                }
                What::CpuV2 => {
                    counter(Metric::ContainerCpuTime, time(key("usage_usec")));
                    counter(Metric::ContainerCpuUserTime, time(key("user_usec")));
                    counter(Metric::ContainerCpuSystemTime, time(key("system_usec")));
                    counter(Metric::ContainerCpuPeriods, key("nr_periods"));
                    counter(Metric::ContainerCpuThrottledPeriods, key("nr_throttled"));
                    counter(Metric::ContainerCpuThrottledTime, time(key("throttled_usec")));
                }
                What::CpuV2Max => {
                    if let Some(Some(cores)) = parse::cpu_max(text) {
                        put(Metric::ContainerCpuLimit, whole, Value::Gauge(cores));
                    }
                }
                What::Memory => {
                    current = parse::number(text);
                    gauge(&mut put, Metric::ContainerMemoryCurrent, whole, current);
                }
                What::MemoryLimit => ceiling(&mut put, Metric::ContainerMemoryLimit, whole, text),
                What::MemoryStatV1 => {
                    let inactive = key("total_inactive_file").or_else(|| key("inactive_file"));
                    let set =
                        current.zip(inactive).map(|(current, inactive)| current.saturating_sub(inactive));
                    gauge(&mut put, Metric::ContainerMemoryWorkingSet, whole, set);
                    gauge(&mut put, Metric::ContainerMemoryAnonymous, whole, key("total_rss"));
                    gauge(&mut put, Metric::ContainerMemoryFile, whole, key("total_cache"));
                    gauge(&mut put, Metric::ContainerMemorySwap, whole, key("total_swap"));
                }
                What::MemoryStatV2 => {
                    let set =
                        current.zip(key("inactive_file")).map(|(c, inactive)| c.saturating_sub(inactive));
                    gauge(&mut put, Metric::ContainerMemoryWorkingSet, whole, set);
                    gauge(&mut put, Metric::ContainerMemoryAnonymous, whole, key("anon"));
                    gauge(&mut put, Metric::ContainerMemoryFile, whole, key("file"));
                }
                What::MemoryEvents => counter(Metric::ContainerMemoryOomKills, key("oom_kill")),
                What::Swap => gauge(&mut put, Metric::ContainerMemorySwap, whole, parse::number(text)),
                What::IoV1 => {
                    let operations = file.beside.as_mut().map_or(Ok(""), Held::read)?;
                    io(&mut put, whole, devices, &parse::blkio(text, operations));
                }
                What::IoV2 => io(&mut put, whole, devices, &parse::io_stat(text)),
                What::Pids => gauge(&mut put, Metric::ContainerPids, whole, parse::number(text)),
                What::PidsLimit => ceiling(&mut put, Metric::ContainerPidsLimit, whole, text),
                What::Pressure(some, full) => {
                    counter(some, time(parse::pressure_total(text, "some")));
                    counter(full, time(parse::pressure_total(text, "full")));
                }
            }
        }
        Ok(())
    }
}

fn gauge(
    put: &mut impl FnMut(Metric, &Arc<str>, Value),
    metric: Metric,
    whole: &Arc<str>,
    count: Option<u64>,
) {
    if let Some(count) = count {
        put(metric, whole, Value::Gauge(horcrux_proto::rates::float(count)));
    }
}

/// A limit that is not set is absent, not a number.
fn ceiling(put: &mut impl FnMut(Metric, &Arc<str>, Value), metric: Metric, whole: &Arc<str>, text: &str) {
    if let Some(Limit::At(limit)) = parse::limit(text) {
        gauge(put, metric, whole, Some(limit));
    }
}

fn io(
    put: &mut impl FnMut(Metric, &Arc<str>, Value),
    whole: &Arc<str>,
    devices: &mut dyn DeviceNames,
    all: &[parse::Io],
) {
    const METRICS: [Metric; 4] = [
        Metric::ContainerIoReadBytes,
        Metric::ContainerIoWrittenBytes,
        Metric::ContainerIoReads,
        Metric::ContainerIoWrites,
    ];
    // A group that did no i/o has an empty file: that is a measured zero.
    let mut sums = [0_u64; METRICS.len()];
    for device in all {
        let name = devices.name(&device.device);
        let values = [device.read_bytes, device.written_bytes, device.reads, device.writes];
        for ((metric, sum), value) in METRICS.iter().zip(&mut sums).zip(values) {
            if let Some(value) = value {
                *sum = sum.saturating_add(value);
                put(*metric, &name, Value::Counter(value));
            }
        }
    }
    for (metric, sum) in METRICS.iter().zip(sums) {
        put(*metric, whole, Value::Counter(sum));
    }
}
