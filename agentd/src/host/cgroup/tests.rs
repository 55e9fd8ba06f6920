//! The lane against trees as kernels lay them out.

use horcrux_proto::v1::Metric;

use super::*;
use crate::collect;
use crate::sample::Value;

const ID: &str = "3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d";

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn v2() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "proc/self/mountinfo", "1 0 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    let base = format!("sys/fs/cgroup/system.slice/docker-{ID}.scope");
    let files = [
        (
            "cpu.stat",
            "usage_usec 2500\nuser_usec 2000\nsystem_usec 500\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
        ),
        ("cpu.max", "50000 100000\n"),
        ("memory.current", "1000000\n"),
        ("memory.stat", "anon 600000\nfile 400000\ninactive_file 300000\n"),
        ("memory.max", "max\n"),
        ("memory.events", "low 0\nhigh 0\nmax 0\noom 1\noom_kill 1\n"),
        ("io.stat", "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"),
        ("pids.current", "3\n"),
        ("pids.max", "100\n"),
        (
            "cpu.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0 avg60=0 avg300=0 total=0\n",
        ),
    ];
    for (name, content) in files {
        write(root, &format!("{base}/{name}"), content);
    }
    dir
}

fn v1() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let controllers = ["cpu", "cpuacct", "memory", "blkio", "pids"];
    let mounts: String = controllers
        .iter()
        .map(|c| format!("1 0 0:2 / /sys/fs/cgroup/{c} rw - cgroup cgroup rw,{c}\n"))
        .collect();
    write(root, "proc/self/mountinfo", &mounts);
    let files = [
        ("cpuacct", "cpuacct.usage", "5000000\n"),
        ("cpuacct", "cpuacct.stat", "user 3\nsystem 1\n"),
        ("cpu", "cpu.cfs_quota_us", "-1\n"),
        ("cpu", "cpu.cfs_period_us", "100000\n"),
        ("memory", "memory.usage_in_bytes", "1000000\n"),
        ("memory", "memory.limit_in_bytes", "67108864\n"),
        (
            "memory",
            "memory.stat",
            "cache 1\ntotal_cache 300\ntotal_rss 200\ntotal_swap 0\ntotal_inactive_file 250000\n",
        ),
        ("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("blkio", "blkio.throttle.io_service_bytes", "254:0 Read 8\n254:0 Write 9\nTotal 17\n"),
        ("blkio", "blkio.throttle.io_serviced", "254:0 Read 1\n254:0 Write 2\nTotal 3\n"),
        ("pids", "pids.current", "1\n"),
        ("pids", "pids.max", "max\n"),
    ];
    for (controller, name, content) in files {
        write(root, &format!("sys/fs/cgroup/{controller}/docker/{ID}/{name}"), content);
    }
    dir
}

fn value(cycle: &Cycle, metric: Metric, instance: &str) -> Option<Value> {
    let readings = cycle.samples.iter().flat_map(|s| &s.readings);
    let mut fitting = readings.filter(|r| r.metric == metric && &*r.instance == instance);
    fitting.next().map(|r| r.value)
}

fn facts(cycle: &Cycle) -> &[ContainerFacts] {
    let Found::Containers(facts) = &cycle.found else { panic!("no list: {:?}", cycle.found) };
    facts
}

#[test]
fn a_v2_container_is_read() {
    let root = v2();
    let cycle = ContainerLane::new(root.path()).read(collect::now());
    assert_eq!(cycle.sources[0].detail, "");
    assert_eq!(facts(&cycle).len(), 1);
    assert!(facts(&cycle)[0].name_unknown_reason.contains("not asked"));
    let expected = [
        (Metric::ContainerCpuTime, Value::Counter(2_500_000)),
        (Metric::ContainerCpuLimit, Value::Gauge(0.5)),
        (Metric::ContainerMemoryWorkingSet, Value::Gauge(700_000.0)),
        (Metric::ContainerMemoryOomKills, Value::Counter(1)),
        (Metric::ContainerIoReadBytes, Value::Counter(4096)),
        (Metric::ContainerPids, Value::Gauge(3.0)),
        (Metric::ContainerPressureCpuSomeTime, Value::Counter(12_000)),
    ];
    for (metric, expected) in expected {
        assert_eq!(value(&cycle, metric, ""), Some(expected), "{metric:?}");
    }
    assert_eq!(value(&cycle, Metric::ContainerMemoryLimit, ""), None, "max is no limit");
    assert_eq!(value(&cycle, Metric::ContainerIoReads, "254:0"), Some(Value::Counter(1)));
}

#[test]
fn a_v1_container_is_read() {
    let root = v1();
    let cycle = ContainerLane::new(root.path()).read(collect::now());
    let expected = [
        (Metric::ContainerCpuTime, Value::Counter(5_000_000)),
        (Metric::ContainerMemoryLimit, Value::Gauge(67_108_864.0)),
        (Metric::ContainerMemoryWorkingSet, Value::Gauge(750_000.0)),
        (Metric::ContainerIoWrites, Value::Counter(2)),
    ];
    for (metric, expected) in expected {
        assert_eq!(value(&cycle, metric, ""), Some(expected), "{metric:?}");
    }
    assert_eq!(value(&cycle, Metric::ContainerCpuLimit, ""), None);
    assert_eq!(value(&cycle, Metric::ContainerPressureCpuSomeTime, ""), None);
    let reasons: Vec<_> = facts(&cycle)[0].absences.iter().map(|a| a.reason.as_str()).collect();
    assert!(reasons.contains(&"cgroup v1 keeps no pressure of a group"), "{reasons:?}");
}

#[test]
fn a_container_that_ended_is_gone_and_not_zero() {
    let root = v2();
    let mut lane = ContainerLane::new(root.path());
    assert_eq!(facts(&lane.read(collect::now())).len(), 1);
    fs::remove_dir_all(root.path().join("sys/fs/cgroup/system.slice")).unwrap();
    let cycle = lane.read(collect::now());
    assert_eq!((facts(&cycle).len(), cycle.samples.len()), (0, 0));
    assert_eq!(cycle.sources[0].state, SourceState::Ok);
}

#[test]
fn a_host_without_cgroups_says_so() {
    let root = tempfile::tempdir().unwrap();
    let cycle = ContainerLane::new(root.path()).read(collect::now());
    assert_eq!(cycle.sources[0].state, SourceState::Absent);
}
