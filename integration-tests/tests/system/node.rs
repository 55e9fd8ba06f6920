//! What is told of a node's parts is what its kernel says.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Daemon, Place, succeeded, value, wait_until};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// The value of one instance of a metric.
fn of<'a>(node: &'a Value, metric: &str, instance: &str) -> Option<&'a Value> {
    let values = node["values"].as_array()?;
    values.iter().find(|v| v["metric"] == metric && v["instance"] == instance)
}

fn number(node: &Value, metric: &str, instance: &str) -> Option<f64> {
    of(node, metric, instance)?["value"].as_f64()
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Processes that end and begin while one is counting.
const CHURN: f64 = 20.0;

#[test]
fn a_nodes_parts_agree_with_the_kernel() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    let node = wait_until("as many processes as there are", || {
        let node = controller.json(&["node", "get", "here"])?;
        let here = names("/proc").iter().filter(|name| name.parse::<u32>().is_ok()).count();
        let told = value(&node, "node_processes").unwrap_or_default();
        anyhow::ensure!((told - here as f64).abs() <= CHURN, "told {told}, here {here}");
        Ok(node)
    })
    .unwrap();
    let threads = value(&node, "node_threads").unwrap();
    let here: f64 = names("/proc")
        .iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok())
        .map(|tasks| tasks.count() as f64)
        .sum();
    assert!((threads - here).abs() <= 10.0 * CHURN, "told {threads}, here {here}");
    for numa in names("/sys/devices/system/node").iter().filter_map(|name| name.strip_prefix("node")) {
        let meminfo = text(&format!("/sys/devices/system/node/node{numa}/meminfo")).unwrap();
        let kibibytes: f64 =
            meminfo.lines().next().unwrap().split_whitespace().nth(3).unwrap().parse().unwrap();
        assert_eq!(number(&node, "node_numa_memory_total", numa), Some(kibibytes * 1024.0));
        let free = number(&node, "node_numa_memory_free", numa).unwrap();
        assert!(free > 0.0 && free < kibibytes * 1024.0, "{free}");
    }
    let devices = node["network_devices"].as_array().unwrap();
    for name in names("/sys/class/net") {
        let device = devices.iter().find(|device| device["name"] == *name).unwrap();
        let said = |file: &str| text(&format!("/sys/class/net/{name}/{file}"));
        assert_eq!(device["mtu_bytes"].to_string(), said("mtu").unwrap());
        let megabits = said("speed").and_then(|speed| speed.parse::<u64>().ok());
        if device["kind"] == "physical" {
            assert_eq!(
                device["speed_bits_per_second"].as_u64(),
                megabits.map(|megabits| megabits * 1_000_000)
            );
        }
    }
    let disks = node["disks"].as_array().unwrap();
    for disk in disks {
        let sectors = text(&format!("/sys/block/{}/size", disk["name"].as_str().unwrap())).unwrap();
        assert_eq!(disk["size_bytes"].as_u64(), Some(sectors.parse::<u64>().unwrap() * 512));
    }
    assert_eq!(node["hypervisor"]["is_guest"], text("/proc/cpuinfo").unwrap().contains(" hypervisor "));
    let sensors = node["sources"].as_array().unwrap().iter().find(|s| s["source"] == "hwmon").unwrap();
    let state = if Path::new("/sys/class/hwmon/hwmon0").exists() { "ok" } else { "absent" };
    assert_eq!(sensors["state"], state, "{sensors}");
}

/// What takes what `lab/filesystem` mounts away again.
struct Mounted {
    server: Option<Daemon>,
    dir: tempfile::TempDir,
}

impl Mounted {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/filesystem");
        let mut command = Command::new(script);
        command.arg(dir.path());
        let log = dir.path().with_extension("log");
        let mounted = Self { server: Some(Daemon::start(command, &log).unwrap()), dir };
        wait_until("the filesystem", || {
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            anyhow::ensure!(mounts.contains(mounted.point()), "not mounted");
            Ok(())
        })
        .unwrap();
        mounted
    }

    fn point(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.server.as_ref().unwrap().pid().unwrap(), signal).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What hangs is answered when its server has ended.
        drop(self.server.take());
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).output().unwrap();
        succeeded(&unmounted).unwrap();
        fs::remove_file(self.dir.path().with_extension("log")).unwrap();
    }
}

#[test]
fn a_filesystem_that_hangs_costs_only_itself() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    let mounted = Mounted::start();
    let point = mounted.point();
    let look = |what: &str, look: &dyn Fn(&Value) -> bool| {
        wait_until(what, || {
            let node = controller.json(&["node", "get", "here"])?;
            anyhow::ensure!(look(&node), "{node}");
            Ok(node)
        })
        .unwrap()
    };
    let size = |node: &Value, point: &str| number(node, "node_filesystem_size", point);
    look("its size", &|node| size(node, point) == Some(4096.0 * 1000.0));
    mounted.signal(Signal::STOP);
    let hung = look("its values to be withdrawn, with the reason", &|node| {
        let told = of(node, "node_filesystem_size", point);
        size(node, point).is_none()
            && told.is_some_and(|told| told["absent_reason"].to_string().contains("no answer"))
    });
    let source =
        hung["sources"].as_array().unwrap().iter().find(|s| s["source"] == "statvfs").unwrap().clone();
    assert!(source["state"] == "failing" && source["detail"].to_string().contains(point), "{source}");
    // The others are read on, and so is all else, at their cadence.
    let taken = |node: &Value, metric: &str, instance: &str| {
        of(node, metric, instance).and_then(|told| told["taken_unix_ms"].as_i64()).unwrap_or_default()
    };
    let (root, load) = (taken(&hung, "node_filesystem_size", "/"), taken(&hung, "node_load_1m", ""));
    let later =
        look("newer values of another", &|node| taken(node, "node_filesystem_size", "/") > root + 3000);
    let skipped = |node: &Value| {
        node["sources"].as_array().unwrap().iter().find(|s| s["source"] == "proc").unwrap()["skipped"].clone()
    };
    assert!(taken(&later, "node_load_1m", "") >= load + 2000, "{later}");
    assert_eq!(skipped(&later), skipped(&hung), "the node's own cadence holds");
    mounted.signal(Signal::CONT);
    look("its values again", &|node| size(node, point).is_some());
}

#[test]
fn a_bridge_its_members_and_a_guests_tap_are_told_apart() {
    let lab = Lab::up(1).unwrap();
    lab.start_libvirtd(1).unwrap();
    lab.vm(1, "web1", 1, Work::Idle).unwrap();
    let ip = |arguments: &str| {
        let mut all = vec!["ip"];
        all.extend(arguments.split(' '));
        lab.exec(1, &all).unwrap();
    };
    ip("link add hxbr0 type bridge");
    ip("link add hxv0 type veth peer name hxv1");
    ip("link set hxv0 master hxbr0");
    for device in ["hxbr0", "hxv0", "hxv1"] {
        ip(&format!("link set {device} up"));
    }
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let _agent = lab.join(&controller, 1).unwrap();
    let device = |node: &Value, name: &str| -> Value {
        let devices = node["network_devices"].as_array().cloned().unwrap_or_default();
        devices.into_iter().find(|device| device["name"] == name).unwrap_or_default()
    };
    let node = wait_until("the devices", || {
        let node = controller.json(&["node", "get", "node1"])?;
        anyhow::ensure!(device(&node, "hxbr0")["state"] == "up", "{node}");
        anyhow::ensure!(number(&node, "node_network_speed", "hxbr0").is_some(), "{node}");
        Ok(node)
    })
    .unwrap();
    assert_eq!(device(&node, "hxbr0")["kind"], "bridge");
    assert_eq!(device(&node, "hxv0")["master"], "hxbr0");
    let said = lab.exec(1, &["cat", "/sys/class/net/hxbr0/speed"]).unwrap();
    let bits = said.trim().parse::<f64>().unwrap() * 1e6;
    assert_eq!(device(&node, "hxbr0")["speed_bits_per_second"].as_f64(), Some(bits));
    assert_eq!(number(&node, "node_network_speed", "hxbr0"), Some(bits));
    let tap = wait_until("the VM's interface", || {
        let vm = controller.json(&["vm", "get", "web1"])?;
        let interface = vm["interfaces"][0].as_str().with_context(|| vm.to_string())?;
        let node = controller.json(&["node", "get", "node1"])?;
        let tap = device(&node, interface);
        anyhow::ensure!(tap.is_object(), "{interface}: {node}");
        Ok(tap)
    })
    .unwrap();
    assert_eq!(tap["kind"], "tap", "{tap}");
    assert!(tap["master"].is_string(), "libvirt puts it into a bridge: {tap}");
}
