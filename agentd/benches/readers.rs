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
use horcrux_agentd::sample::{Lane as _, Taken};
use horcrux_proto::v1::CgroupMode;

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

criterion_group!(benches, node, containers);
criterion_main!(benches);
