//! What the readers cost beside their floor: `pread` of the same files, kept open, into one buffer and unparsed.
//!
//! Containers are made of real groups where this may make them (as root, where cgroups are v1 or hybrid), because reads
//! of ordinary files cost nothing like it; otherwise nothing is measured of them.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use horcrux_agentd::host::cgroup::{ContainerLane, mode};
use horcrux_agentd::host::proc::NodeLane;
use horcrux_agentd::host::runtimes::Runtimes;
use horcrux_agentd::local::exporter::{Format, Renderer};
use horcrux_agentd::local::{Local, Tap};
use horcrux_agentd::sample::{Cycle, Found, Lane as _, Object, ObjectSample, Reading, Taken, Value};
use horcrux_proto::catalogue::{CATALOGUE, EntityKind, Kind, MetricInfo};
use horcrux_proto::v1::{CgroupMode, ContainerFacts, Source};

const TAKEN: Taken = Taken { unix_ms: 0, boottime_ns: 0 };
const NODE_FILES: [&str; 9] = [
    "stat",
    "meminfo",
    "loadavg",
    "uptime",
    "diskstats",
    "net/dev",
    "pressure/cpu",
    "pressure/memory",
    "pressure/io",
];
const GROUP_FILES: [(&str, &str); 13] = [
    ("cpuacct", "cpuacct.usage"),
    ("cpuacct", "cpuacct.stat"),
    ("cpu", "cpu.stat"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.stat"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.oom_control"),
    ("blkio", "blkio.throttle.io_service_bytes_recursive"),
    ("blkio", "blkio.throttle.io_serviced_recursive"),
    ("pids", "pids.current"),
    ("pids", "pids.max"),
];
const CONTROLLERS: [&str; 5] = ["cpuacct", "cpu", "memory", "blkio", "pids"];

/// Real groups that look like Docker's, gone when this is dropped.
struct Groups {
    dirs: Vec<PathBuf>,
}

impl Groups {
    fn make(count: usize) -> std::io::Result<Self> {
        let mut groups = Self { dirs: Vec::new() };
        for controller in CONTROLLERS {
            let base = Path::new("/sys/fs/cgroup").join(controller);
            let (top, parent) = (base.join("hxbench"), base.join("hxbench/docker"));
            let ids = (0..count).map(|number| parent.join(format!("{number:064x}")));
            for dir in [top, parent.clone()].into_iter().chain(ids) {
                fs::create_dir(&dir)?;
                groups.dirs.push(dir);
            }
        }
        Ok(groups)
    }

    fn files(count: usize) -> Vec<File> {
        let path = |number: usize, (controller, file): (&str, &str)| {
            format!("/sys/fs/cgroup/{controller}/hxbench/docker/{number:064x}/{file}")
        };
        let paths = (0..count).flat_map(|number| GROUP_FILES.map(|file| path(number, file)));
        paths.filter_map(|path| File::open(path).ok()).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("remove {}: {error}", dir.display());
            }
        }
    }
}

fn floor(files: &[File], buffer: &mut [u8]) -> usize {
    files.iter().map(|file| file.read_at(buffer, 0).unwrap_or(0)).sum()
}

fn node(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("node");
    let mut buffer = vec![0; 64 * 1024];
    let files: Vec<File> =
        NODE_FILES.iter().filter_map(|file| File::open(Path::new("/proc").join(file)).ok()).collect();
    group.bench_function("floor", |bencher| bencher.iter(|| black_box(floor(&files, &mut buffer))));
    let mut lane = NodeLane::new(Path::new("/"));
    group.bench_function("lane", |bencher| bencher.iter(|| black_box(lane.read(TAKEN))));
}

fn containers(criterion: &mut Criterion) {
    if !matches!(mode(Path::new("/")), CgroupMode::V1 | CgroupMode::Hybrid) {
        eprintln!("containers: skipped, cgroups are not v1 here");
        return;
    }
    let mut group = criterion.benchmark_group("containers");
    let mut buffer = vec![0; 64 * 1024];
    for count in [50, 200] {
        let groups = match Groups::make(count) {
            Ok(groups) => groups,
            Err(error) => {
                eprintln!("containers: skipped, no group can be made: {error}");
                return;
            }
        };
        let files = Groups::files(count);
        let name = format!("floor/{count}");
        group.bench_function(name, |bencher| bencher.iter(|| black_box(floor(&files, &mut buffer))));
        // Nobody listens there: names are asked for seldom, and aren't what is measured.
        let runtimes = Runtimes::new(Path::new("/nonexistent/privd.sock"));
        let mut lane = ContainerLane::new(Path::new("/"), runtimes);
        let others = lane.read(TAKEN).samples.len() - count;
        let name = format!("lane/{count}");
        group.bench_function(name, |bencher| bencher.iter(|| black_box(lane.read(TAKEN))));
        drop(groups);
        assert_eq!(lane.read(TAKEN).samples.len(), others, "removed groups are still listed");
    }
}

/// A scrape of a node with this many containers, as their lane gives them on v2.
const EXPORTED: usize = 100;

fn exporter(criterion: &mut Criterion) {
    let local = Local::new(Vec::new());
    let tap = |name, cycle| Tap::fill(&local, name, &cycle);
    let taken = horcrux_agentd::collect::now();
    let mut lane = NodeLane::new(Path::new("/"));
    tap("node", lane.read(taken));
    let measured = |info: &&MetricInfo| info.entity == EntityKind::Container && info.is_measured();
    let readings: Vec<Reading> = CATALOGUE
        .iter()
        .filter(measured)
        .map(|info| {
            let value = match info.kind {
                Kind::Counter => Value::Counter(1_234_567_890),
                Kind::Gauge | Kind::Unspecified => Value::Gauge(12_345_678.0),
            };
            let instance = if info.instance.is_empty() { "" } else { "vda" };
            Reading { metric: info.metric, instance: instance.into(), value, source: Source::CgroupV2 }
        })
        .collect();
    let ids: Vec<String> = (0..EXPORTED).map(|number| format!("{number:064x}")).collect();
    let facts = ids.iter().map(|id| ContainerFacts {
        id: id.clone(),
        cgroup_path: format!("system.slice/docker-{id}.scope"),
        ..ContainerFacts::default()
    });
    let samples = ids
        .iter()
        .filter_map(|id| id.parse().ok())
        .map(|id| ObjectSample { object: Object::Container(id), readings: readings.clone() });
    let cycle = Cycle {
        taken,
        found: Found::Containers(facts.collect()),
        events: Vec::new(),
        samples: samples.collect(),
        sources: Vec::new(),
    };
    tap("containers", cycle.clone());
    let mut group = criterion.benchmark_group("exporter");
    let mut renderer = Renderer::new(Path::new("/"));
    let name = format!("scrape/{EXPORTED}");
    group.bench_function(name, |bencher| {
        bencher.iter(|| black_box(renderer.render(&local, Format::Prometheus).len()));
    });
    let name = format!("tap/{EXPORTED}");
    group.bench_function(name, |bencher| bencher.iter(|| tap("containers", black_box(cycle.clone()))));
}

criterion_group!(benches, node, containers, exporter);
criterion_main!(benches);
