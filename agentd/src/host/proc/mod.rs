//! The machine itself, from `/proc`; sysfs only tells what its devices are.
//!
//! Files stay open and are read whole into one buffer. A file that can't be read or isn't what the kernel writes gives
//! no readings and is named in the state of the source: nothing is ever taken for zero.

mod arc;
mod clock;
mod device;
mod disks;
mod facts;
mod hugepages;
mod hypervisor;
mod memory;
mod network;
mod numa;
mod pressures;
mod sockets;
mod stat;
mod vmstat;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{EventKind, Metric, Source, SourceState};

use crate::host::lacking::Lacking;
use crate::host::policy::Policy;
use crate::host::read::{Buffer, Keep, KeptFile, Malformed, ReadError, Shape, chain};
use crate::host::readings::Readings;
use crate::sample::{Cycle, Found, Happened, Lane, Object, SourceReport, Taken};

use self::arc::arc_size;
use self::clock::step_ms;
use self::disks::Disks;
use self::facts::{Facts, Known};
use self::hugepages::HugePages;
use self::memory::{Memory, memory};
use self::network::Interfaces;
pub(in crate::host) use self::network::net_dev;
use self::numa::Numa;
use self::pressures::{Averages, Pressures};
use self::sockets::Sockets;
use self::stat::{MODES, Stat, stat};
use self::vmstat::vmstat;

/// Paging, sockets, NUMA and the states of links: they change rarely and cost as much as all the rest.
const SLOW_EVERY: u64 = 10;
/// What the node and its devices are: a minute of the default cadence. What comes is looked at when it comes.
const LOOK_EVERY: u64 = 60;

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
    vmstat: KeptFile,
    arcstats: KeptFile,
    pressures: Pressures,
    sockets: Sockets,
    buffer: Buffer,
    disks: Disks,
    huge_pages: HugePages,
    interfaces: Interfaces,
    numa: Numa,
    facts: Facts,
    lacking: Lacking,
    policy: Option<Policy>,
    ns_per_tick: u64,
    page_bytes: u64,
    cycles: u64,
    before: Option<Taken>,
    whole: Arc<str>,
    /// Names of cores by number.
    cores: Vec<Arc<str>>,
    /// How many readings the last cycle gave.
    expected: usize,
    /// What was wrong with what is read rarely, when it was last read.
    rare_problems: Vec<String>,
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
        Self::beside(root, Lacking::default())
    }

    /// Tells what other lanes of the node couldn't read.
    #[must_use]
    pub fn beside(root: &Path, lacking: Lacking) -> Self {
        let file = |name: &str, shape| KeptFile::new(root.join("proc").join(name), shape, Keep::Open);
        Self {
            root: root.to_path_buf(),
            stat: file("stat", Shape::Whole),
            meminfo: file("meminfo", Shape::Whole),
            loadavg: file("loadavg", Shape::Whole),
            uptime: file("uptime", Shape::Whole),
            diskstats: file("diskstats", Shape::Records),
            net_dev: file("net/dev", Shape::Records),
            vmstat: file("vmstat", Shape::Records),
            arcstats: file("spl/kstat/zfs/arcstats", Shape::Records),
            pressures: Pressures::new(&root.join("proc/pressure")),
            sockets: Sockets::new(&root.join("proc"), rustix::param::page_size() as u64),
            buffer: Buffer::default(),
            huge_pages: HugePages::new(root.join("sys/kernel/mm/hugepages")),
            disks: Disks::new(root.join("sys/block")),
            interfaces: Interfaces::new(root.join("sys/class/net")),
            numa: Numa::new(root.join("sys/devices/system/node")),
            facts: Facts::new(root),
            lacking,
            policy: None,
            ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            page_bytes: rustix::param::page_size() as u64,
            cycles: 0,
            before: None,
            whole: Arc::from(""),
            cores: Vec::new(),
            expected: 0,
            rare_problems: Vec::new(),
        }
    }

    /// Tells what the node lets a controller do.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
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
        for (metric, value) in [
            (Metric::NodeContextSwitches, stat.context_switches),
            (Metric::NodeInterrupts, stat.interrupts),
            (Metric::NodeForks, stat.forks),
        ] {
            if let Some(value) = value {
                readings.whole_counter(Source::Proc, metric, value);
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

    /// What is read every so many times; gives how sysfs is.
    fn rarely(&mut self, memory: Option<&Memory>, readings: &mut Readings) -> SourceReport {
        let mut problems = Problems::default();
        for &(metric, value) in memory.iter().flat_map(|memory| &memory.rarely) {
            readings.whole_gauge(Source::Proc, metric, value as f64);
        }
        let page_bytes = self.page_bytes;
        let paging = self.vmstat.parse(&mut self.buffer, |text| vmstat(text, page_bytes));
        for (metric, value) in problems.keep(paging).into_iter().flatten() {
            readings.whole_counter(Source::Proc, metric, value);
        }
        match self.arcstats.parse(&mut self.buffer, arc_size) {
            Ok(bytes) => readings.whole_gauge(Source::Proc, Metric::NodeZfsArcSize, bytes as f64),
            // A node without ZFS lacks nothing.
            Err(error) if error.is_gone() => {}
            Err(error) => problems.failing.push(chain(&error)),
        }
        self.sockets.read(&mut self.buffer, readings, &mut problems);
        match processes(&self.root.join("proc")) {
            Ok(count) => readings.whole_gauge(Source::Proc, Metric::NodeProcesses, count as f64),
            Err(error) => problems.failing.push(format!("list /proc: {error}")),
        }
        self.rare_problems = problems.failing;
        self.interfaces.links(readings);
        let mut unreadable: Vec<String> = self.numa.read(readings).iter().map(|error| chain(error)).collect();
        unreadable.extend(["sys/block", "sys/class/net"].iter().find_map(|dir| {
            std::fs::read_dir(self.root.join(dir)).err().map(|error| format!("read /{dir}: {error}"))
        }));
        report(Source::Sysfs, unreadable, &[])
    }

    /// An event, if the wall clock was set since the reading before.
    fn clock(&mut self, taken: Taken) -> Option<Happened> {
        let step_ms = step_ms(self.before.replace(taken)?, taken)?;
        let direction = if step_ms < 0 { "back" } else { "forward" };
        let seconds = step_ms.unsigned_abs() as f64 / 1000.0;
        let detail = format!("the clock was set {direction} by {seconds:.1} s");
        Some(Happened { kind: EventKind::ClockStepped, object: Object::Node, detail })
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
        let look = self.cycles.is_multiple_of(LOOK_EVERY);
        self.cycles += 1;
        if slow {
            self.interfaces.look_again();
        }
        if look {
            self.disks.forget();
            self.huge_pages.look_again();
            self.facts.look_again();
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
        if let Some((load, threads)) = problems.keep(self.loadavg.parse(&mut self.buffer, load)) {
            readings.whole_gauge(Source::Proc, Metric::NodeThreads, threads as f64);
            let metrics = [Metric::NodeLoad1m, Metric::NodeLoad5m, Metric::NodeLoad15m];
            for (metric, load) in metrics.into_iter().zip::<[f64; 3]>(load) {
                readings.whole_gauge(Source::Proc, metric, load);
            }
        }
        if let Some([uptime]) = problems.keep(self.uptime.parse(&mut self.buffer, decimals)) {
            readings.whole_gauge(Source::Proc, Metric::NodeUptime, uptime);
        }
        let averages = if slow { Averages::All } else { Averages::Shortest };
        self.pressures.read(averages, &mut self.buffer, &mut readings, &mut problems);
        let disks = self.diskstats.parse(&mut self.buffer, |text| self.disks.read(text, &mut readings));
        problems.keep(disks);
        let interfaces =
            self.net_dev.parse(&mut self.buffer, |text| self.interfaces.read(text, &mut readings));
        problems.keep(interfaces);
        self.expected = self.expected.max(readings.len());

        let mut found = Found::Nothing;
        let sysfs = slow.then(|| self.rarely(memory.as_ref(), &mut readings));
        if let Some((stat, memory)) = stat.as_ref().zip(memory.as_ref()).filter(|_| slow) {
            let known = Known {
                network_devices: self.interfaces.facts(),
                disks: self.disks.facts(),
                absences: self.lacking.all(),
                policy: self.policy.as_mut().map(Policy::read),
            };
            found = problems.keep(self.facts.read(stat, memory, known)).map_or(Found::Nothing, Found::Node);
        }
        problems.failing.extend_from_slice(&self.rare_problems);

        let mut sources = vec![report(Source::Proc, problems.failing, &problems.missing)];
        sources.extend(sysfs);
        let samples = readings.into_samples(Object::Node, false);
        Cycle { taken, found, samples, sources, events: self.clock(taken).into_iter().collect() }
    }
}

fn report(source: Source, failing: Vec<String>, missing: &[String]) -> SourceReport {
    let state = if failing.is_empty() { SourceState::Ok } else { SourceState::Failing };
    let detail = failing.into_iter().chain(missing.iter().cloned()).collect::<Vec<_>>().join("; ");
    SourceReport { source, instance: Arc::default(), state, detail }
}

/// Load over 1, 5 and 15 minutes, and how many threads there are: `2.01 1.88 1.62 5/154 9747`.
fn load(text: &str) -> Result<([f64; 3], u64), Malformed> {
    let load = decimals(text)?;
    let threads =
        text.split_ascii_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    Ok((load, threads.ok_or(Malformed("no number of threads"))?))
}

/// How many processes `/proc` lists.
fn processes(proc: &Path) -> std::io::Result<usize> {
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    Ok(std::fs::read_dir(proc)?.flatten().filter(|entry| is_process(&entry.file_name())).count())
}

/// The first numbers of a file that is one line of them.
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
