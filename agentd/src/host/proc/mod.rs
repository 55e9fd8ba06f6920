//! The machine itself, from `/proc`; sysfs only tells what its devices are.
//!
//! Files stay open and are read whole into one buffer. A file that can't be read or isn't what the kernel writes gives
//! no readings and is named in the state of the source: nothing is ever taken for zero.

mod disks;
mod facts;
mod filesystems;
mod hugepages;
mod memory;
mod network;
mod stat;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Metric, Source, SourceState};

use crate::host::pressure::{Pressure, pressure};
use crate::host::read::{Buffer, Keep, KeptFile, Malformed, ReadError, Shape, chain};
use crate::host::readings::Readings;
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, SourceReport, Taken};

use self::disks::Disks;
use self::facts::Facts;
use self::filesystems::Filesystems;
use self::hugepages::HugePages;
use self::memory::{Memory, memory};
use self::network::Interfaces;
use self::stat::{MODES, Stat, stat};

/// Facts, filesystems and what devices are change rarely and cost as much as all the rest.
const SLOW_EVERY: u64 = 10;

/// In the order of the columns of `/proc/stat`.
const CPU_METRICS: [Metric; MODES] = [
    Metric::NodeCpuUserTime,
    Metric::NodeCpuNiceTime,
    Metric::NodeCpuSystemTime,
    Metric::NodeCpuIdleTime,
    Metric::NodeCpuIowaitTime,
    Metric::NodeCpuIrqTime,
    Metric::NodeCpuSoftirqTime,
    Metric::NodeCpuStealTime,
    Metric::NodeCpuGuestTime,
    Metric::NodeCpuGuestNiceTime,
];

/// One resource's pressure: total and average of `some`, then of `full`.
const PRESSURES: [(&str, [Metric; 4]); 3] = [
    (
        "cpu",
        [
            Metric::NodePressureCpuSomeTime,
            Metric::NodePressureCpuSomeAvg10,
            Metric::NodePressureCpuFullTime,
            Metric::NodePressureCpuFullAvg10,
        ],
    ),
    (
        "memory",
        [
            Metric::NodePressureMemorySomeTime,
            Metric::NodePressureMemorySomeAvg10,
            Metric::NodePressureMemoryFullTime,
            Metric::NodePressureMemoryFullAvg10,
        ],
    ),
    (
        "io",
        [
            Metric::NodePressureIoSomeTime,
            Metric::NodePressureIoSomeAvg10,
            Metric::NodePressureIoFullTime,
            Metric::NodePressureIoFullAvg10,
        ],
    ),
];

/// Reads the node.
#[derive(Debug)]
pub struct NodeLane {
    root: PathBuf,
    stat: KeptFile,
    meminfo: KeptFile,
    loadavg: KeptFile,
    uptime: KeptFile,
    diskstats: KeptFile,
    net_dev: KeptFile,
    mountinfo: KeptFile,
    pressure: [KeptFile; PRESSURES.len()],
    buffer: Buffer,
    disks: Disks,
    huge_pages: HugePages,
    interfaces: Interfaces,
    filesystems: Filesystems,
    facts: Facts,
    ns_per_tick: u64,
    cycles: u64,
    whole: Arc<str>,
    /// Names of cores by number.
    cores: Vec<Arc<str>>,
    /// How many readings the last cycle gave.
    expected: usize,
    /// What was wrong with filesystems when they were last read.
    filesystem_problems: Vec<String>,
}

/// What went wrong in one cycle.
#[derive(Debug, Default)]
struct Problems {
    failing: Vec<String>,
    /// The kernel doesn't offer it.
    missing: Vec<String>,
}

impl Problems {
    fn keep<T>(&mut self, read: Result<T, ReadError>) -> Option<T> {
        read.map_err(|error| self.failing.push(chain(&error))).ok()
    }
}

impl NodeLane {
    /// `root` is `/`, or a tree that looks like one.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let file = |name: &str, shape| KeptFile::new(root.join("proc").join(name), shape, Keep::Open);
        Self {
            root: root.to_path_buf(),
            stat: file("stat", Shape::Whole),
            meminfo: file("meminfo", Shape::Whole),
            loadavg: file("loadavg", Shape::Whole),
            uptime: file("uptime", Shape::Whole),
            diskstats: file("diskstats", Shape::Records),
            net_dev: file("net/dev", Shape::Records),
            mountinfo: file("self/mountinfo", Shape::Records),
            pressure: PRESSURES.map(|(of, _)| file(&format!("pressure/{of}"), Shape::Whole)),
            buffer: Buffer::default(),
            huge_pages: HugePages::new(root.join("sys/kernel/mm/hugepages")),
            disks: Disks::new(root.join("sys/block")),
            interfaces: Interfaces::new(root.join("sys/class/net")),
            filesystems: Filesystems::new(root),
            facts: Facts::new(root),
            ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            cycles: 0,
            whole: Arc::from(""),
            cores: Vec::new(),
            expected: 0,
            filesystem_problems: Vec::new(),
        }
    }

    fn cpu(&mut self, stat: &Stat, readings: &mut Readings) {
        let ns_per_tick = self.ns_per_tick;
        let mut emit = |instance: &Arc<str>, ticks: &[u64; MODES]| {
            for (metric, ticks) in CPU_METRICS.into_iter().zip(ticks) {
                readings.counter(Source::Proc, metric, instance, ticks.saturating_mul(ns_per_tick));
            }
        };
        emit(&self.whole, &stat.all);
        for (core, ticks) in &stat.cores {
            // Cores are few and numbered without large gaps, so a list serves; a number that is out of all bounds
            // would come from a file that isn't the kernel's.
            if *core < MAX_CORES {
                while self.cores.len() <= *core {
                    self.cores.push(Arc::from(self.cores.len().to_string()));
                }
                emit(&self.cores[*core], ticks);
            }
        }
        for (metric, value) in
            [(Metric::NodeProcessesRunning, stat.running), (Metric::NodeProcessesBlocked, stat.blocked)]
        {
            if let Some(value) = value {
                readings.whole_gauge(Source::Proc, metric, value as f64);
            }
        }
    }

    fn memory(&mut self, memory: &Memory, readings: &mut Readings, problems: &mut Problems) {
        for &(metric, value) in &memory.values {
            readings.whole_gauge(Source::Proc, metric, value as f64);
        }
        // An error isn't answered with what meminfo says: that may be less.
        let Some(pools) = problems.keep(self.huge_pages.read(&mut self.buffer)) else { return };
        let (source, total, free) = match (pools, memory.huge_pages) {
            (Some(pools), _) => (Source::Sysfs, Some(pools.total), Some(pools.free)),
            (None, [total, free]) => (Source::Proc, total, free),
        };
        let metrics = [Metric::NodeMemoryHugepagesTotal, Metric::NodeMemoryHugepagesFree];
        for (metric, value) in metrics.into_iter().zip([total, free]) {
            if let Some(value) = value {
                readings.whole_gauge(source, metric, value as f64);
            }
        }
    }

    fn pressures(&mut self, readings: &mut Readings, problems: &mut Problems) {
        for (file, (_, metrics)) in self.pressure.iter_mut().zip(PRESSURES) {
            match file.parse(&mut self.buffer, pressure) {
                Ok(pressure) => emit_pressure(readings, metrics, pressure),
                Err(error) if error.is_gone() || error.is_unsupported() => {
                    problems.missing.push(chain(&error));
                }
                Err(error) => problems.failing.push(chain(&error)),
            }
        }
    }

    fn sysfs(&self) -> SourceReport {
        let unreadable = ["sys/block", "sys/class/net"].iter().find_map(|dir| {
            std::fs::read_dir(self.root.join(dir)).err().map(|error| format!("read /{dir}: {error}"))
        });
        report(Source::Sysfs, unreadable.into_iter().collect(), &[])
    }
}

/// `NR_CPUS` is at most 8192 (Linux, arch/x86/Kconfig); the same again to spare.
const MAX_CORES: usize = 16_384;

impl Lane for NodeLane {
    fn name(&self) -> &'static str {
        "node"
    }

    fn source(&self) -> Source {
        Source::Proc
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let slow = self.cycles.is_multiple_of(SLOW_EVERY);
        self.cycles += 1;
        if slow {
            self.disks.forget();
            self.huge_pages.look_again();
            self.interfaces.forget();
        }
        let mut problems = Problems::default();
        let mut readings = Readings::new(&self.whole, self.expected);

        let stat = problems.keep(self.stat.parse(&mut self.buffer, stat));
        if let Some(stat) = &stat {
            self.cpu(stat, &mut readings);
        }
        let memory = problems.keep(self.meminfo.parse(&mut self.buffer, memory));
        if let Some(memory) = &memory {
            self.memory(memory, &mut readings, &mut problems);
        }
        if let Some(load) = problems.keep(self.loadavg.parse(&mut self.buffer, decimals)) {
            let metrics = [Metric::NodeLoad1m, Metric::NodeLoad5m, Metric::NodeLoad15m];
            for (metric, load) in metrics.into_iter().zip::<[f64; 3]>(load) {
                readings.whole_gauge(Source::Proc, metric, load);
            }
        }
        if let Some([uptime]) = problems.keep(self.uptime.parse(&mut self.buffer, decimals)) {
            readings.whole_gauge(Source::Proc, Metric::NodeUptime, uptime);
        }
        self.pressures(&mut readings, &mut problems);
        let disks = self.diskstats.parse(&mut self.buffer, |text| self.disks.read(text, &mut readings));
        problems.keep(disks);
        let interfaces =
            self.net_dev.parse(&mut self.buffer, |text| self.interfaces.read(text, &mut readings));
        problems.keep(interfaces);
        self.expected = self.expected.max(readings.len());

        let mut found = Found::Nothing;
        if slow {
            let filesystems =
                self.mountinfo.parse(&mut self.buffer, |text| self.filesystems.read(text, &mut readings));
            self.filesystem_problems = match filesystems {
                Ok(problems) => problems,
                Err(error) => vec![chain(&error)],
            };
            if let Some((stat, memory)) = stat.as_ref().zip(memory.as_ref()) {
                found = problems.keep(self.facts.read(stat, memory)).map_or(Found::Nothing, Found::Node);
            }
        }
        problems.failing.extend_from_slice(&self.filesystem_problems);

        let mut sources = vec![report(Source::Proc, problems.failing, &problems.missing)];
        if slow {
            sources.push(self.sysfs());
        }
        let samples = vec![ObjectSample { object: Object::Node, readings: readings.into_list() }];
        Cycle { taken, found, samples, sources }
    }
}

fn emit_pressure(readings: &mut Readings, metrics: [Metric; 4], pressure: Pressure) {
    let [some_time, some_average, full_time, full_average] = metrics;
    readings.whole_counter(Source::Proc, some_time, pressure.some.total_ns);
    readings.whole_gauge(Source::Proc, some_average, pressure.some.avg10_percent);
    if let Some(full) = pressure.full {
        readings.whole_counter(Source::Proc, full_time, full.total_ns);
        readings.whole_gauge(Source::Proc, full_average, full.avg10_percent);
    }
}

fn report(source: Source, failing: Vec<String>, missing: &[String]) -> SourceReport {
    let state = if failing.is_empty() { SourceState::Ok } else { SourceState::Failing };
    let detail = failing.into_iter().chain(missing.iter().cloned()).collect::<Vec<_>>().join("; ");
    SourceReport { source, state, detail }
}

/// The first numbers of a file that is one line of them: `loadavg`, `uptime`.
fn decimals<const N: usize>(text: &str) -> Result<[f64; N], Malformed> {
    let mut fields = text.split_ascii_whitespace();
    let mut values = [0.0; N];
    for value in &mut values {
        let number =
            fields.next().and_then(|field| field.parse().ok()).filter(|value: &f64| value.is_finite());
        *value = number.ok_or(Malformed("a number is missing"))?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
