use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;

use horcrux_transport::clock;

use super::*;
use crate::sample::Value;

const TAKEN: Taken = Taken { unix_ms: 0, boottime_ns: 0 };

/// Makes a chip's directory.
fn put(root: &Path, dir: &str, device: Option<&str>, files: &[(&str, &str)]) {
    let path = root.join("sys/class/hwmon").join(dir);
    fs::create_dir_all(&path).unwrap();
    if let Some(device) = device {
        symlink(format!("../../../devices/{device}"), path.join("device")).unwrap();
    }
    for (file, text) in files {
        fs::write(path.join(file), format!("{text}\n")).unwrap();
    }
}

/// Two cores and a package, an NVMe drive, a board with two fans of which one isn't connected.
fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let cores = [
        ("name", "coretemp"),
        ("temp1_input", "45000"),
        ("temp1_label", "Package id 0"),
        ("temp1_max", "80000"),
        ("temp1_crit", "100000"),
        ("temp2_input", "44000"),
        ("temp2_label", "Core 0"),
    ];
    put(dir.path(), "hwmon0", Some("coretemp.0"), &cores);
    let nvme = [("name", "nvme"), ("temp1_input", "38850"), ("temp1_label", "Composite")];
    put(dir.path(), "hwmon1", Some("nvme0"), &nvme);
    let board = [
        ("name", "nct6775"),
        ("fan1_input", "1200"),
        ("fan2_input", "0"),
        ("fan2_fault", "1"),
        ("in0_input", "872"),
    ];
    put(dir.path(), "hwmon2", Some("nct6775.656"), &board);
    dir
}

fn lane(root: &Path) -> SensorLane {
    SensorLane::new(root, Lacking::default())
}

fn values(cycle: &Cycle, metric: Metric) -> Vec<(&str, f64)> {
    let readings = cycle.samples.iter().flat_map(|sample| &sample.readings);
    let value = |value| if let Value::Gauge(value) = value { value } else { panic!("a counter") };
    readings.filter(|r| r.metric == metric).map(|r| (&*r.instance, value(r.value))).collect()
}

#[test]
fn temperatures_limits_and_fans_are_read_with_their_labels() {
    let dir = machine();
    let cycle = lane(dir.path()).read(TAKEN);
    let temperatures =
        [("coretemp.0/Package id 0", 45.0), ("coretemp.0/Core 0", 44.0), ("nvme0/Composite", 38.85)];
    assert_eq!(values(&cycle, Metric::NodeTemperature), temperatures);
    assert_eq!(values(&cycle, Metric::NodeTemperatureMax), [("coretemp.0/Package id 0", 80.0)]);
    assert_eq!(values(&cycle, Metric::NodeTemperatureCritical), [("coretemp.0/Package id 0", 100.0)]);
    assert_eq!(values(&cycle, Metric::NodeFanSpeed), [("nct6775.656/fan1", 1200.0)]);
}

#[test]
fn a_sensor_that_fails_costs_itself_and_says_why() {
    let dir = machine();
    fs::remove_file(dir.path().join("sys/class/hwmon/hwmon0/temp2_input")).unwrap();
    fs::create_dir(dir.path().join("sys/class/hwmon/hwmon0/temp2_input")).unwrap();
    let mut lane = lane(dir.path());
    let cycle = lane.read(TAKEN);
    assert_eq!(values(&cycle, Metric::NodeTemperature).len(), 2);
    assert_eq!(cycle.sources[0].state, SourceState::Failing);
    let lacking = lane.lacking.all();
    let of = |instance: &str| lacking.iter().find(|a| a.instance == instance).map(|a| a.reason.as_str());
    assert!(of("coretemp.0/Core 0").unwrap().contains("directory"), "{lacking:?}");
    assert!(of("nct6775.656/fan2").unwrap().contains("not connected"), "{lacking:?}");
}

/// Held by the test while the drive's sensor is to hang.
static BUS: Mutex<()> = Mutex::new(());

fn hangs(question: &Question) -> Answer {
    if let Question::Read(sensor) = question
        && sensor.label == "Composite"
    {
        let _answers = BUS.lock().unwrap();
    }
    answer(question)
}

#[test]
fn a_sensor_that_hangs_costs_itself_and_comes_back() {
    let dir = machine();
    fs::remove_file(dir.path().join("sys/class/hwmon/hwmon2/fan2_input")).unwrap();
    let patience = Patience { answer: Duration::from_millis(50), round: Duration::from_secs(60), late: 64 };
    let mut lane = SensorLane::with(dir.path(), Lacking::default(), hangs, patience);
    assert_eq!(values(&lane.read(TAKEN), Metric::NodeTemperature).len(), 3);
    let held = BUS.lock().unwrap();
    let cycle = lane.read(TAKEN);
    assert!(cycle.samples[0].readings.is_empty(), "what it said before is withdrawn");
    assert_eq!(values(&cycle, Metric::NodeTemperature).len(), 2);
    assert!(cycle.sources[0].detail.starts_with("nvme0/Composite: no answer"), "{cycle:?}");
    drop(held);
    let until = clock::monotonic() + Duration::from_secs(10);
    while values(&lane.read(TAKEN), Metric::NodeTemperature).len() < 3 {
        assert!(clock::monotonic() < until, "it never came back");
    }
    assert_eq!(lane.read(TAKEN).sources[0].state, SourceState::Ok);
}

#[test]
fn two_chips_of_one_name_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for (chip, value) in [("hwmon0", "20000"), ("hwmon1", "30000")] {
        let files = [
            ("name", "acpitz"),
            ("temp1_input", value),
            ("temp2_input", value),
            ("temp1_label", "x"),
            ("temp2_label", "x"),
        ];
        put(dir.path(), chip, None, &files);
    }
    let cycle = lane(dir.path()).read(TAKEN);
    let names: Vec<&str> =
        values(&cycle, Metric::NodeTemperature).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["acpitz/x", "acpitz/x (temp2)", "acpitz hwmon1/x", "acpitz hwmon1/x (temp2)"]);
}

#[test]
fn a_number_that_is_given_to_another_chip_is_another_chip() {
    let dir = machine();
    let mut lane = lane(dir.path());
    lane.read(TAKEN);
    fs::remove_dir_all(dir.path().join("sys/class/hwmon/hwmon1")).unwrap();
    put(dir.path(), "hwmon1", Some("nvme7"), &[("name", "nvme"), ("temp1_input", "1000")]);
    let cycle = lane.read(TAKEN);
    assert_eq!(values(&cycle, Metric::NodeTemperature)[2], ("nvme7/temp1", 1.0));
}

#[test]
fn a_machine_without_sensors_is_not_failing() {
    let dir = tempfile::tempdir().unwrap();
    let cycle = lane(dir.path()).read(TAKEN);
    assert_eq!(cycle.sources[0].state, SourceState::Absent);
    assert!(cycle.samples[0].readings.is_empty());
}
