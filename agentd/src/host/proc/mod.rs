//! The node itself, from /proc and /sys. Files are kept open and parsed here: the five that are read every second cost
//! 40 µs so, and 2.6 times that through the procfs crate; that crate parses what is read rarely (mounts).
//!
//! A file that can't be read gives nothing, and the lane says which and why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Metric, NodeFacts, Source, SourceState};
use horcrux_transport::error::Chain;

use super::cgroup;
use super::file::{Held, ReadError, text};
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, Reading, SourceReport, Taken, Value};

mod devices;
mod filesystems;
mod parse;

use devices::Devices;
use filesystems::Filesystems;

/// Reads the node.
#[derive(Debug)]
pub struct NodeLane {
    root: PathBuf,
    stat: Held,
    meminfo: Held,
    loadavg: Held,
    uptime: Held,
    pressure: [(Held, PressureMetrics); 3],
    devices: Devices,
    filesystems: Filesystems,
    /// Instance names of cores, by number.
    cores: Vec<Arc<str>>,
    whole: Arc<str>,
    ns_per_tick: u64,
}

/// What `some` and `full` of one pressure file are: total time, and the ten-second average.
#[derive(Clone, Copy, Debug)]
struct PressureMetrics {
    some: (Metric, Metric),
    full: (Metric, Metric),
}

/// Readings as they are gathered.
pub(crate) struct Gathered {
    pub(crate) readings: Vec<Reading>,
    problems: Vec<String>,
}

impl Gathered {
    pub(crate) fn put(&mut self, metric: Metric, instance: &Arc<str>, value: Value, source: Source) {
        self.readings.push(Reading { metric, instance: Arc::clone(instance), value, source });
    }

    /// A part that could not be read costs that part.
    pub(crate) fn part(&mut self, read: Result<(), ReadError>) {
        if let Err(error) = read {
            self.problems.push(Chain(&error).to_string());
        }
    }
}

impl NodeLane {
    /// Reads below `root`, which is `/` but in tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let proc = root.join("proc");
        let held = |name: &str| Held::new(proc.join(name));
        let pressure = |name: &str, some, full| (held(name), PressureMetrics { some, full });
        Self {
            stat: held("stat"),
            meminfo: held("meminfo"),
            loadavg: held("loadavg"),
            uptime: held("uptime"),
            pressure: [
                pressure(
                    "pressure/cpu",
                    (Metric::NodePressureCpuSomeTime, Metric::NodePressureCpuSomeAvg10),
                    (Metric::NodePressureCpuFullTime, Metric::NodePressureCpuFullAvg10),
                ),
                pressure(
                    "pressure/memory",
                    (Metric::NodePressureMemorySomeTime, Metric::NodePressureMemorySomeAvg10),
                    (Metric::NodePressureMemoryFullTime, Metric::NodePressureMemoryFullAvg10),
                ),
                pressure(
                    "pressure/io",
                    (Metric::NodePressureIoSomeTime, Metric::NodePressureIoSomeAvg10),
                    (Metric::NodePressureIoFullTime, Metric::NodePressureIoFullAvg10),
                ),
            ],
            devices: Devices::new(root),
            filesystems: Filesystems::new(root),
            cores: Vec::new(),
            whole: Arc::from(""),
            ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            root: root.to_owned(),
        }
    }

    fn cpu(&mut self, out: &mut Gathered) -> Result<(), ReadError> {
        let stat = parse::stat(self.stat.read()?);
        let Some(stat) = stat else { return Err(self.stat.malformed()) };
        for (core, ticks) in &stat.cpus {
            let instance = match core {
                None => &self.whole,
                Some(number) => {
                    while self.cores.len() <= *number {
                        self.cores.push(self.cores.len().to_string().into());
                    }
                    &self.cores[*number]
                }
            };
            for (metric, ticks) in parse::CPU_MODES.iter().zip(ticks) {
                let time = Value::Counter(ticks.saturating_mul(self.ns_per_tick));
                out.put(*metric, instance, time, Source::Proc);
            }
        }
        let gauges = [
            (Metric::NodeProcessesRunning, stat.processes_running),
            (Metric::NodeProcessesBlocked, stat.processes_blocked),
        ];
        for (metric, count) in gauges {
            if let Some(count) = count {
                out.put(metric, &self.whole, Value::Gauge(parse::float(count)), Source::Proc);
            }
        }
        Ok(())
    }

    fn memory(&mut self, out: &mut Gathered) -> Result<(), ReadError> {
        let values = parse::meminfo(self.meminfo.read()?);
        if values.is_empty() {
            return Err(self.meminfo.malformed());
        }
        for (metric, bytes) in values {
            out.put(metric, &self.whole, Value::Gauge(parse::float(bytes)), Source::Proc);
        }
        Ok(())
    }

    fn load(&mut self, out: &mut Gathered) -> Result<(), ReadError> {
        let Some(load) = parse::loadavg(self.loadavg.read()?) else { return Err(self.loadavg.malformed()) };
        for (metric, load) in
            [Metric::NodeLoad1m, Metric::NodeLoad5m, Metric::NodeLoad15m].into_iter().zip(load)
        {
            out.put(metric, &self.whole, Value::Gauge(load), Source::Proc);
        }
        let Some(uptime) = parse::first_float(self.uptime.read()?) else {
            return Err(self.uptime.malformed());
        };
        out.put(Metric::NodeUptime, &self.whole, Value::Gauge(uptime), Source::Proc);
        Ok(())
    }

    fn pressures(&mut self, out: &mut Gathered) {
        for (file, metrics) in &mut self.pressure {
            let text = match file.read() {
                Ok(text) => text,
                // A kernel without pressure accounting: nothing is wrong, and nothing is known.
                Err(error) if error.is_gone() || is_unsupported(&error) => continue,
                Err(error) => {
                    out.part(Err(error));
                    continue;
                }
            };
            for (line, (total, avg10)) in [("some", metrics.some), ("full", metrics.full)] {
                if let Some(pressure) = parse::pressure(text, line) {
                    let time = Value::Counter(pressure.total_us.saturating_mul(1000));
                    out.put(total, &self.whole, time, Source::Proc);
                    out.put(avg10, &self.whole, Value::Gauge(pressure.avg10), Source::Proc);
                }
            }
        }
    }

    fn facts(&mut self) -> Result<NodeFacts, ReadError> {
        let proc = self.root.join("proc");
        let os = text(&self.root.join("etc/os-release")).ok();
        let stat = parse::stat(self.stat.read()?).ok_or_else(|| self.stat.malformed())?;
        let memory = parse::meminfo(self.meminfo.read()?);
        let total = memory.iter().find(|(metric, _)| *metric == Metric::NodeMemoryTotal);
        let total = total.ok_or_else(|| self.meminfo.malformed())?.1;
        let cores = stat.cpus.iter().filter(|(core, _)| core.is_some()).count();
        Ok(NodeFacts {
            hostname: hostname(&self.root)?,
            os: os.as_deref().and_then(parse::os_name),
            kernel: text(&proc.join("sys/kernel/osrelease"))?.trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu_model: text(&proc.join("cpuinfo")).ok().as_deref().and_then(parse::cpu_model),
            cpus: u32::try_from(cores).unwrap_or(u32::MAX),
            memory_bytes: total,
            cgroup_mode: cgroup::mode(&self.root).into(),
            boot_unix_ms: stat.boot_unix_seconds.unwrap_or(0).saturating_mul(1000),
            sources: Vec::new(),
        })
    }
}

impl Lane for NodeLane {
    fn name(&self) -> &'static str {
        "node"
    }

    fn source(&self) -> Source {
        Source::Proc
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let mut out = Gathered { readings: Vec::with_capacity(256), problems: Vec::new() };
        let cpu = self.cpu(&mut out);
        out.part(cpu);
        let memory = self.memory(&mut out);
        out.part(memory);
        let load = self.load(&mut out);
        out.part(load);
        self.pressures(&mut out);
        self.devices.read(&mut out);
        self.filesystems.read(&mut out);
        let found = match self.facts() {
            Ok(facts) => Found::Node(Box::new(facts)),
            Err(error) => {
                out.part(Err(error));
                Found::Nothing
            }
        };
        let state = if out.problems.is_empty() { SourceState::Ok } else { SourceState::Failing };
        let report = SourceReport { source: Source::Proc, state, detail: out.problems.join("; ") };
        let samples = vec![ObjectSample { object: Object::Node, readings: out.readings }];
        Cycle { taken, found, samples, sources: vec![report] }
    }
}

/// The machine's name for itself.
pub fn hostname(root: &Path) -> Result<String, ReadError> {
    text(&root.join("proc/sys/kernel/hostname")).map(|name| name.trim().to_owned())
}

fn is_unsupported(error: &ReadError) -> bool {
    let not_supported = rustix::io::Errno::OPNOTSUPP.raw_os_error();
    matches!(error, ReadError::Io { source, .. } if source.raw_os_error() == Some(not_supported))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect;

    fn counter(cycle: &Cycle, metric: Metric, instance: &str) -> Option<u64> {
        let readings = cycle.samples.iter().flat_map(|s| &s.readings);
        let mut fitting = readings.filter(|r| r.metric == metric && &*r.instance == instance);
        match fitting.next()?.value {
            Value::Counter(count) => Some(count),
            Value::Gauge(_) => None,
        }
    }

    #[test]
    fn this_machine_is_read() {
        let mut lane = NodeLane::new(Path::new("/"));
        let first = lane.read(collect::now());
        assert_eq!(first.sources[0].detail, "");
        let Found::Node(facts) = &first.found else { panic!("no facts: {:?}", first.found) };
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(facts.memory_bytes, total * 1024);
        let all = counter(&first, Metric::NodeCpuIdleTime, "").unwrap();
        let core = counter(&first, Metric::NodeCpuIdleTime, "0").unwrap();
        assert!(all >= core && core > 0);
        let again = lane.read(collect::now());
        assert!(counter(&again, Metric::NodeCpuIdleTime, "").unwrap() >= all);
    }

    #[test]
    fn a_missing_file_costs_what_it_holds_and_is_told() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/loadavg"), "0.50 0.25 0.10 1/100 77\n").unwrap();
        std::fs::write(root.path().join("proc/uptime"), "12.5 3.0\n").unwrap();
        let cycle = NodeLane::new(root.path()).read(collect::now());
        let metrics: Vec<_> = cycle.samples[0].readings.iter().map(|r| r.metric).collect();
        assert_eq!(
            metrics,
            [Metric::NodeLoad1m, Metric::NodeLoad5m, Metric::NodeLoad15m, Metric::NodeUptime]
        );
        assert_eq!(cycle.sources[0].state, SourceState::Failing);
        assert!(cycle.sources[0].detail.contains("meminfo"), "{}", cycle.sources[0].detail);
        assert_eq!(cycle.found, Found::Nothing);
    }
}
