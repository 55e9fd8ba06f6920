use std::fs;
use std::process::Command;

use horcrux_proto::catalogue::{CATALOGUE, EntityKind, Kind, info};
use horcrux_proto::v1::{CgroupMode, NetworkDeviceKind, NodeFacts};
use proptest::prelude::*;

use super::*;
use crate::sample::{Reading, Value};

const TAKEN: Taken = Taken { unix_ms: 0, boottime_ns: 0 };

/// A tree with the captured files and what sysfs says of them.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let captured = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/proc/hybrid");
    let copied = Command::new("cp").arg("-r").arg(captured).arg(dir.path().join("proc")).status().unwrap();
    assert!(copied.success());
    let dirs = [
        "sys/block/vda/device",
        "sys/block/loop0",
        "sys/class/net/eth0/device",
        "sys/devices/system/node/node0",
        "sys/class/hwmon/hwmon0",
        "etc",
        "proc/4711",
        "proc/1",
    ];
    for inner in dirs {
        fs::create_dir_all(dir.path().join(inner)).unwrap();
    }
    let files = [
        ("sys/class/net/eth0/speed", "10000"),
        ("sys/class/net/eth0/carrier", "1"),
        ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 9 kB\nNode 0 MemFree: 3 kB"),
        ("sys/devices/system/node/node0/cpulist", "0-1"),
        ("sys/class/hwmon/hwmon0/name", "coretemp"),
        ("sys/class/hwmon/hwmon0/temp1_input", "45000"),
        ("sys/class/hwmon/hwmon0/temp1_max", "80000"),
        ("sys/class/hwmon/hwmon0/temp1_crit", "100000"),
        ("sys/class/hwmon/hwmon0/fan1_input", "1200"),
    ];
    for (file, text) in files {
        fs::write(dir.path().join(file), format!("{text}\n")).unwrap();
    }
    fs::create_dir_all(dir.path().join("proc/spl/kstat/zfs")).unwrap();
    let arcstats = "13 1 0x01 123\nname type data\nhits 4 7\nsize 4 8589934592\n";
    fs::write(dir.path().join("proc/spl/kstat/zfs/arcstats"), arcstats).unwrap();
    fs::write(dir.path().join("etc/os-release"), "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap();
    fs::write(dir.path().join("proc/sys/kernel/hostname"), "node-1\n").unwrap();
    dir
}

fn readings(cycle: &Cycle) -> &[Reading] {
    assert_eq!(cycle.samples.len(), 1);
    assert_eq!(cycle.samples[0].object, Object::Node);
    &cycle.samples[0].readings
}

fn value(cycle: &Cycle, metric: Metric, instance: &str) -> Option<Value> {
    let of = |reading: &&Reading| reading.metric == metric && &*reading.instance == instance;
    readings(cycle).iter().find(of).map(|reading| reading.value)
}

fn facts(cycle: &Cycle) -> &NodeFacts {
    match &cycle.found {
        Found::Node(facts) => facts,
        Found::Vms(_) | Found::VmsSoFar(_) | Found::Containers(_) | Found::Nothing => panic!("{cycle:?}"),
    }
}

fn proc_source(cycle: &Cycle) -> &SourceReport {
    cycle.sources.iter().find(|report| report.source == Source::Proc).unwrap()
}

#[test]
fn every_measured_metric_of_a_node_is_read() {
    let dir = tree();
    let (mut node, mut filesystems, mut sensors) = crate::host::node_lanes(dir.path());
    let cycles = [node.read(TAKEN), filesystems.read(TAKEN), sensors.read(TAKEN)];
    let cycle = &cycles[0];
    let all: Vec<&Reading> = cycles.iter().flat_map(readings).collect();
    let measured = CATALOGUE.iter().filter(|info| info.entity == EntityKind::Node && info.is_measured());
    let missing: Vec<&str> = measured
        .filter(|info| !all.iter().any(|reading| reading.metric == info.metric))
        .map(|info| info.name)
        .collect();
    assert_eq!(missing, [""; 0]);
    assert_eq!(proc_source(cycle).state, SourceState::Ok);
}

#[test]
fn kinds_are_those_of_the_catalogue_and_no_value_is_there_twice() {
    let dir = tree();
    let (mut node, mut filesystems, mut sensors) = crate::host::node_lanes(dir.path());
    let cycles = [node.read(TAKEN), filesystems.read(TAKEN), sensors.read(TAKEN)];
    let mut seen = std::collections::HashSet::new();
    for reading in cycles.iter().flat_map(readings) {
        let info = info(reading.metric).unwrap();
        let counter = matches!(reading.value, Value::Counter(_));
        assert_eq!(counter, info.kind == Kind::Counter, "{reading:?}");
        assert!(info.is_measured(), "{reading:?}");
        assert!(reading.instance.is_empty() || !info.instance.is_empty(), "{reading:?}");
        assert!(seen.insert((reading.metric, reading.instance.clone())), "{reading:?}");
    }
}

#[test]
fn ticks_become_nanoseconds() {
    let dir = tree();
    let line = "cpu  7 0 3 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 7 0 3 0 0 0 0 0 0 0\nbtime 1\n";
    fs::write(dir.path().join("proc/stat"), line).unwrap();
    let cycle = NodeLane::new(dir.path()).read(TAKEN);
    let ns = 7_000_000_000 / rustix::param::clock_ticks_per_second();
    assert_eq!(value(&cycle, Metric::NodeCpuUserTime, ""), Some(Value::Counter(ns)));
    assert_eq!(value(&cycle, Metric::NodeCpuUserTime, "1"), Some(Value::Counter(ns)));
    assert_eq!(value(&cycle, Metric::NodeCpuUserTime, "0"), Some(Value::Counter(0)));
}

#[test]
fn facts_come_with_the_first_cycle_and_then_rarely() {
    let dir = tree();
    let mut lane = NodeLane::new(dir.path());
    let first = lane.read(TAKEN);
    let facts = facts(&first);
    assert_eq!((facts.hostname.as_str(), facts.kernel.as_str(), facts.cpus), ("node-1", "6.18.44", 2));
    assert_eq!(facts.os.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    assert_eq!(facts.memory_bytes, 24_684_096 * 1024);
    assert_eq!(facts.cgroup_mode(), CgroupMode::Hybrid);
    assert!(facts.cpu_model.is_some() && facts.boot_unix_ms > 1_700_000_000_000);
    let eth0 = &facts.network_devices.iter().find(|device| device.name == "eth0").unwrap();
    assert_eq!(
        (eth0.kind(), eth0.speed_bits_per_second),
        (NetworkDeviceKind::Physical, Some(10_000_000_000))
    );
    assert_eq!(facts.disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["vda"]);
    assert!(facts.hypervisor.as_ref().is_some_and(|features| features.is_guest && !features.iommu));
    assert_eq!(lane.read(TAKEN).found, Found::Nothing);
    let later = (2..=SLOW_EVERY).map(|_| lane.read(TAKEN)).last().unwrap();
    assert!(matches!(later.found, Found::Node(_)));
}

#[test]
fn a_file_that_cannot_be_read_is_absent_not_zero() {
    let dir = tree();
    fs::remove_file(dir.path().join("proc/meminfo")).unwrap();
    fs::remove_file(dir.path().join("proc/diskstats")).unwrap();
    fs::create_dir(dir.path().join("proc/diskstats")).unwrap();
    let cycle = NodeLane::new(dir.path()).read(TAKEN);
    assert_eq!(value(&cycle, Metric::NodeMemoryTotal, ""), None);
    assert_eq!(value(&cycle, Metric::NodeDiskReadBytes, ""), None);
    assert!(value(&cycle, Metric::NodeLoad1m, "").is_some());
    let report = proc_source(&cycle);
    assert_eq!(report.state, SourceState::Failing);
    assert!(report.detail.contains("meminfo: No such file"), "{report:?}");
    assert!(report.detail.contains("diskstats: Is a directory"), "{report:?}");
    assert_eq!(cycle.found, Found::Nothing);
}

#[test]
fn a_truncated_file_gives_no_values_at_all() {
    let dir = tree();
    let path = dir.path().join("proc/stat");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..60]).unwrap();
    let cycle = NodeLane::new(dir.path()).read(TAKEN);
    assert_eq!(value(&cycle, Metric::NodeCpuUserTime, ""), None);
    assert_eq!(proc_source(&cycle).state, SourceState::Failing);
}

#[test]
fn what_changes_slowly_is_read_rarely() {
    let dir = tree();
    let mut lane = NodeLane::new(dir.path());
    let (first, second) = (lane.read(TAKEN), lane.read(TAKEN));
    let slow = [
        Metric::NodePressureCpuSomeAvg300,
        Metric::NodePageFaults,
        Metric::NodeMemorySlabReclaimable,
        Metric::NodeFilesOpen,
        Metric::NodeSocketsUsed,
        Metric::NodeTcpEstablished,
        Metric::NodeTcpListenDrops,
        Metric::NodeProcesses,
        Metric::NodeMemoryCommitted,
        Metric::NodeZfsArcSize,
    ];
    for metric in slow {
        assert!(value(&first, metric, "").is_some() && value(&second, metric, "").is_none(), "{metric:?}");
    }
    assert_eq!(value(&first, Metric::NodeProcesses, ""), Some(Value::Gauge(2.0)));
    assert_eq!(value(&second, Metric::NodeThreads, ""), Some(Value::Gauge(89.0)));
    assert_eq!(value(&second, Metric::NodeForks, ""), Some(Value::Counter(20_252)));
    let later = (2..=SLOW_EVERY).map(|_| lane.read(TAKEN)).last().unwrap();
    assert!(slow.iter().all(|metric| value(&later, *metric, "").is_some()));
}

#[test]
fn a_node_without_zfs_lacks_nothing_and_what_cannot_be_read_rarely_stays_told() {
    let dir = tree();
    fs::remove_dir_all(dir.path().join("proc/spl")).unwrap();
    let mut lane = NodeLane::new(dir.path());
    assert_eq!(proc_source(&lane.read(TAKEN)).state, SourceState::Ok);
    fs::write(dir.path().join("proc/vmstat"), "").unwrap();
    let later = (1..=SLOW_EVERY).map(|_| lane.read(TAKEN)).last().unwrap();
    for cycle in [later, lane.read(TAKEN)] {
        assert!(proc_source(&cycle).detail.contains("vmstat"), "{cycle:?}");
    }
}

#[test]
fn a_clock_that_is_set_is_told_once() {
    let dir = tree();
    let mut lane = NodeLane::new(dir.path());
    let mut at =
        |unix_ms, seconds: u64| lane.read(Taken { unix_ms, boottime_ns: seconds * 1_000_000_000 }).events;
    assert_eq!(at(1_000_000, 1), []);
    assert_eq!(at(1_001_000, 2), []);
    let events = at(941_000, 4);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, EventKind::ClockStepped);
    assert_eq!(events[0].detail, "the clock was set back by 62.0 s");
    assert_eq!(at(942_000, 5), []);
}

#[test]
fn what_other_lanes_lack_is_told_with_what_the_node_is() {
    let dir = tree();
    fs::remove_file(dir.path().join("sys/class/hwmon/hwmon0/fan1_input")).unwrap();
    fs::create_dir(dir.path().join("sys/class/hwmon/hwmon0/fan1_input")).unwrap();
    let (mut node, _, mut sensors) = crate::host::node_lanes(dir.path());
    sensors.read(TAKEN);
    let cycle = node.read(TAKEN);
    let absences = &facts(&cycle).absences;
    assert_eq!(absences.len(), 1);
    assert_eq!(
        (absences[0].metric(), absences[0].instance.as_str()),
        (Metric::NodeFanSpeed, "coretemp/fan1")
    );
}

#[test]
fn a_kernel_without_pressure_is_not_failing() {
    let dir = tree();
    fs::remove_dir_all(dir.path().join("proc/pressure")).unwrap();
    let cycle = NodeLane::new(dir.path()).read(TAKEN);
    assert_eq!(value(&cycle, Metric::NodePressureCpuSomeTime, ""), None);
    let report = proc_source(&cycle);
    assert_eq!(report.state, SourceState::Ok);
    assert!(report.detail.contains("pressure/cpu"), "{report:?}");
}

#[test]
fn without_sysfs_no_disk_is_guessed_and_nothing_is_summed() {
    let dir = tree();
    fs::remove_dir_all(dir.path().join("sys")).unwrap();
    let cycle = NodeLane::new(dir.path()).read(TAKEN);
    assert_eq!(value(&cycle, Metric::NodeDiskReadBytes, "vda"), None);
    assert_eq!(value(&cycle, Metric::NodeNetworkRxBytes, ""), None);
    assert!(value(&cycle, Metric::NodeNetworkRxBytes, "eth0").is_some());
    assert!(cycle.sources.iter().any(|r| r.source == Source::Sysfs && r.state == SourceState::Failing));
}

#[test]
fn a_file_that_comes_back_is_read_again() {
    let dir = tree();
    let (path, aside) = (dir.path().join("proc/loadavg"), dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    let mut lane = NodeLane::new(dir.path());
    assert_eq!(value(&lane.read(TAKEN), Metric::NodeLoad1m, ""), None);
    fs::rename(&aside, &path).unwrap();
    assert!(value(&lane.read(TAKEN), Metric::NodeLoad1m, "").is_some());
}

#[test]
fn this_machine_spends_cpu_time_and_keeps_its_memory() {
    let mut lane = NodeLane::new(Path::new("/"));
    let total = |cycle: &Cycle| -> u64 {
        let times = CPU_METRICS.iter().map(|metric| value(cycle, *metric, ""));
        times.map(|time| if let Some(Value::Counter(ns)) = time { ns } else { panic!("no time") }).sum()
    };
    let first = lane.read(TAKEN);
    let grown = (0..10_000_000).any(|_| total(&lane.read(TAKEN)) > total(&first));
    assert!(grown);
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: f64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(value(&first, Metric::NodeMemoryTotal, ""), Some(Value::Gauge(kibibytes * 1024.0)));
    assert_eq!(facts(&first).cpus as usize, std::thread::available_parallelism().unwrap().get());
}

proptest! {
    #[test]
    fn load_never_panics(text in "([0-9.]{1,22}|/| |\\n|.){0,20}") {
        let _load = load(&text);
    }

    #[test]
    fn decimals_never_panics(text in "([0-9.]{1,20}|inf|NaN| |\\n|.){0,20}") {
        if let Ok(values) = decimals::<3>(&text) {
            prop_assert!(values.iter().all(|value| value.is_finite()));
        }
    }
}
