//! What is shown is what the kernel says.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use horcrux_integration_tests::{Controller, value, wait_until};
use serde_json::Value;

fn meminfo(key: &str) -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// Available memory moves while other programs run: the two readings are at most seconds apart.
const MEMORY_TOLERANCE_BYTES: f64 = 256.0 * 1024.0 * 1024.0;

#[test]
fn a_nodes_values_agree_with_proc() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    let node = wait_until("a rate", || {
        let node = controller.json(&["node", "get", "here"])?;
        anyhow::ensure!(value(&node, "node_cpu_usage").is_some(), "no CPU usage yet");
        Ok(node)
    })
    .unwrap();
    assert_eq!(value(&node, "node_memory_total"), Some(meminfo("MemTotal")));
    let available = value(&node, "node_memory_available").unwrap();
    assert!((available - meminfo("MemAvailable")).abs() < MEMORY_TOLERANCE_BYTES, "{available}");
    let usage = value(&node, "node_cpu_usage").unwrap();
    assert!((0.0..=100.0).contains(&usage), "{usage}");
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(node["cpus"], cores);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(node["kernel"], kernel.trim());
}

#[test]
fn a_watcher_gets_a_snapshot_and_then_a_value_each_second() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    let mut watch = controller
        .client("admin")
        .unwrap()
        .command(&["-o", "json", "watch", "nodes"])
        .unwrap()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut times = Vec::new();
    for line in lines.take(40) {
        let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(row["resource"], "nodes/here");
        if let Some(taken) = row["taken_unix_ms"].as_i64() {
            times.push(taken);
        }
        times.dedup();
        if times.len() == 4 {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(times.len(), 4, "{times:?}");
    assert!(times.is_sorted() && times[3] - times[1] >= 1500, "two seconds lie between: {times:?}");
}

#[test]
fn a_container_is_found_by_its_cgroup_and_gone_when_it_ends() {
    let hierarchy = writable_hierarchy().expect("this test needs root and a writable cgroup hierarchy");
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    let id = format!("{:064x}", std::process::id());
    let process = Command::new("sleep").arg("600").spawn().unwrap();
    let group = Group::make(&hierarchy, &id, Some(process));
    let left_behind = format!("{}{:032x}", "f".repeat(32), std::process::id());
    let _empty = Group::make(&hierarchy, &left_behind, None);
    let seen = wait_until("the container", || controller.json(&["container", "get", &id])).unwrap();
    assert_eq!(seen["runtime"], "docker");
    assert!(seen["name_unknown_reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{seen}");
    let short = controller.json(&["container", "get", &format!("here/{}", &id[..63])]).unwrap();
    assert_eq!(short["id"], id);
    let empty = controller.ctl(&["container", "get", &left_behind]).unwrap();
    assert_eq!(empty.status.code(), Some(4), "a group without processes is no container");
    drop(group);
    wait_until("its end", || {
        let code = controller.ctl(&["container", "get", &id])?.status.code();
        anyhow::ensure!(code == Some(4), "exit code {code:?}");
        Ok(())
    })
    .unwrap();
}

/// Where groups can be made: the mount of v1's cpuacct, or the v2 tree.
fn writable_hierarchy() -> Option<String> {
    let candidates = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"];
    let probe = |dir: &&&str| {
        let path = format!("{dir}/horcrux-probe-{}", std::process::id());
        fs::create_dir(&path).is_ok() && fs::remove_dir(&path).is_ok()
    };
    candidates.iter().find(probe).map(|dir| (*dir).to_owned())
}

/// A group where Docker would make one, with a process in it or without.
struct Group {
    path: String,
    process: Option<Child>,
}

impl Group {
    fn make(hierarchy: &str, id: &str, process: Option<Child>) -> Self {
        let path = format!("{hierarchy}/docker/{id}");
        fs::create_dir_all(&path).unwrap();
        let group = Self { path, process };
        if let Some(process) = &group.process {
            fs::write(format!("{}/cgroup.procs", group.path), process.id().to_string()).unwrap();
        }
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        // The kernel is done with a process a moment after its parent has heard of its end.
        wait_until("the group's removal", || Ok(fs::remove_dir(&self.path)?)).unwrap();
    }
}
