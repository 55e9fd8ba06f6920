//! Containers of Podman and LXC, on a node of a lab: what is told of them is what their groups say, and what Podman and LXC
//! say themselves.

use std::collections::BTreeMap;

use anyhow::Context as _;
use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Daemon, Place, value, wait_until};
use horcrux_proto::catalogue::{CATALOGUE, EntityKind};
use horcrux_transport::clock;
use serde_json::Value;

const MIB: f64 = 1024.0 * 1024.0;
/// How long a container may be there unseen, or be seen though it has gone.
const SEEN_WITHIN_MS: i64 = 2000;
/// What the way to a client may take beside it.
const TOLD_WITHIN_MS: i64 = 1000;
/// What moves in a container that only burns CPU.
const ROOM_BYTES: f64 = 2.0 * MIB;

/// A lab of one node that has containers, and its controller and agent.
struct Node {
    // In the order in which they end.
    _agent: Daemon,
    controller: Controller,
    lab: Lab,
}

/// What a group's files say, by hierarchy and name.
type Said = BTreeMap<(&'static str, &'static str), f64>;

/// Files of a v1 group that hold one number.
const FILES: [(&str, &str); 6] = [
    ("cpuacct", "cpuacct.usage"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.limit_in_bytes"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("pids", "pids.current"),
];
/// Keys of its files of lines, and what each is called here.
const KEYS: [(&str, &str, &str, &str); 6] = [
    ("memory", "memory.stat", "total_rss ", "total_rss"),
    ("memory", "memory.stat", "total_cache ", "total_cache"),
    ("memory", "memory.oom_control", "oom_kill ", "oom_kill"),
    ("cpu", "cpu.stat", "nr_throttled ", "nr_throttled"),
    ("cpu", "cpu.stat", "throttled_time ", "throttled_time"),
    ("unified", "cpu.pressure", "some ", "some"),
];

impl Node {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let agent = lab.join(&controller, 1).unwrap();
        Self { _agent: agent, controller, lab }
    }

    /// Waits until a container is as `look` wants it.
    fn container(&self, what: &str, id: &str, look: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            let container = self.controller.json(&["container", "get", id])?;
            anyhow::ensure!(look(&container), "{container}");
            Ok(container)
        })
        .unwrap()
    }

    /// Waits until a container is seen that was just started.
    fn appears(&self, id: &str) -> Value {
        let done_ms = clock::unix_ms();
        let first = self.container("it to be seen", id, |_| true);
        let (all_ms, read_ms) = (clock::unix_ms() - done_ms, first["last_sample_unix_ms"].as_i64().unwrap());
        let late_ms = read_ms - done_ms;
        assert!(
            late_ms < SEEN_WITHIN_MS && all_ms < SEEN_WITHIN_MS + TOLD_WITHIN_MS,
            "{id}: read after {late_ms} ms, known after {all_ms} ms"
        );
        first
    }

    /// Waits until a container is gone that was just ended.
    fn disappears(&self, id: &str) {
        let done_ms = clock::unix_ms();
        wait_until("its end", || {
            let code = self.controller.ctl(&["container", "get", id])?.status.code();
            anyhow::ensure!(code == Some(4), "exit code {code:?}");
            Ok(())
        })
        .unwrap();
        let all_ms = clock::unix_ms() - done_ms;
        assert!(all_ms < SEEN_WITHIN_MS + TOLD_WITHIN_MS, "{id}: gone after {all_ms} ms");
    }

    /// What the kernel says of a group, read by the test.
    fn said(&self, group: &str) -> Said {
        let file = |tree: &str, name: &str| format!("/sys/fs/cgroup/{tree}/{group}/{name}");
        let read = |tree: &str, name: &str| {
            let path = file(tree, name);
            self.lab.exec(1, &["cat", &path]).unwrap()
        };
        let mut said = Said::new();
        for (tree, name) in FILES {
            said.insert((tree, name), read(tree, name).trim().parse().unwrap());
        }
        for (tree, name, head, key) in KEYS {
            let text = read(tree, name);
            let rest = text.lines().find_map(|line| line.strip_prefix(head)).with_context(|| text.clone());
            let last = rest.unwrap().rsplit([' ', '=']).next().unwrap();
            said.insert((tree, key), last.parse().unwrap());
        }
        said
    }

    /// Holds what is told of a container against what its group said before and after, and gives both the last.
    fn compare(&self, id: &str, group: &str) -> (Value, Said) {
        let begun_ms = clock::unix_ms();
        let before = self.said(group);
        let told = self.container("newer values", id, |container| {
            let values = container["values"].as_array().unwrap();
            let mut there = values.iter().filter(|v| !v["value"].is_null());
            there.all(|v| v["taken_unix_ms"].as_i64().is_some_and(|taken| taken > begun_ms))
                && value(container, "container_cpu_usage").is_some()
        });
        let after = self.said(group);
        let between = |metric: &str, key: (&'static str, &'static str), unit: f64, room: f64| {
            let value = value(&told, metric).unwrap_or_else(|| panic!("{metric}: {told}"));
            let (first, last) = (before[&key] * unit, after[&key] * unit);
            let (least, most) = (first.min(last), first.max(last));
            assert!(
                (least - room..=most + room).contains(&value),
                "{metric}: {value}, where the kernel says {least} to {most}"
            );
        };
        between("container_cpu_time", ("cpuacct", "cpuacct.usage"), 1.0, 0.0);
        between("container_cpu_throttled_periods", ("cpu", "nr_throttled"), 1.0, 0.0);
        between("container_cpu_throttled_time", ("cpu", "throttled_time"), 1.0, 0.0);
        between("container_memory_current", ("memory", "memory.usage_in_bytes"), 1.0, ROOM_BYTES);
        between("container_memory_limit", ("memory", "memory.limit_in_bytes"), 1.0, 0.0);
        between("container_memory_anonymous", ("memory", "total_rss"), 1.0, ROOM_BYTES);
        between("container_memory_file", ("memory", "total_cache"), 1.0, ROOM_BYTES);
        between("container_memory_oom_kills", ("memory", "oom_kill"), 1.0, 0.0);
        between("container_pids", ("pids", "pids.current"), 1.0, 1.0);
        between("container_pressure_cpu_some_time", ("unified", "some"), 1000.0, 0.0);
        let cores = after[&("cpu", "cpu.cfs_quota_us")] / after[&("cpu", "cpu.cfs_period_us")];
        assert_eq!(value(&told, "container_cpu_limit"), Some(cores));
        (told, after)
    }
}

/// Every metric of a container has a value, or a reason why not.
fn every_metric_is_there_or_says_why_not(container: &Value) {
    for info in CATALOGUE.iter().filter(|info| info.entity == EntityKind::Container) {
        let listed = |list: &str| {
            let all = container[list].as_array().unwrap();
            all.iter().find(|one| one["metric"] == info.name).cloned().unwrap_or_default()
        };
        let (told, absent) = (listed("values"), listed("absent"));
        let reason = absent["reason"].as_str().or(told["absent_reason"].as_str()).unwrap_or_default();
        let number = told["value"].as_f64();
        assert!(
            number.is_some_and(|number| number >= 0.0) || !reason.is_empty(),
            "{}: {told} {absent}",
            info.name
        );
        if info.name.starts_with("container_network_") {
            continue;
        }
        assert!(number.is_some(), "{}: it is not to be had: {reason}", info.name);
    }
}

/// It burns half of a core, all that it may, and holds 24 MiB.
fn is_what_it_does(container: &Value) {
    let usage = value(container, "container_cpu_usage").unwrap();
    assert!((50.0..=115.0).contains(&usage), "of its limit: {usage} %");
    let held = value(container, "container_memory_current").unwrap();
    assert!((24.0 * MIB..40.0 * MIB).contains(&held), "{held}");
    assert_eq!(value(container, "container_memory_limit"), Some(64.0 * MIB));
    assert_eq!(value(container, "container_cpu_limit"), Some(0.5));
}

#[test]
fn podman_s_containers_are_what_podman_says() {
    let node = Node::start();
    let id = node.lab.podman(1, "pod1", Work::Busy).unwrap();
    let unnamed = node.appears(&id);
    assert_eq!((&unnamed["runtime"], &unnamed["display_name"]), (&"podman".into(), &Value::Null));
    let why = unnamed["name_unknown_reason"].as_str().unwrap();
    assert!(why.starts_with("horcrux-privd is not running: "), "{why}");
    let (told, said) = node.compare(&id, &format!("libpod_parent/libpod-{id}"));
    every_metric_is_there_or_says_why_not(&told);
    is_what_it_does(&told);
    let stats = node.lab.podman_stats(1, "pod1").unwrap();
    let text = |key: &str| stats[key].as_str().unwrap_or_else(|| panic!("{stats}")).to_owned();
    let seconds = text("cpu_time");
    let seconds: f64 = seconds.strip_suffix('s').unwrap_or_else(|| panic!("{stats}")).parse().unwrap();
    let cpu = value(&told, "container_cpu_time").unwrap() / 1e9;
    // It was read a moment before: at half of a core, up to five seconds later.
    assert!((cpu..=cpu + 3.0).contains(&seconds), "told {cpu}, Podman says {seconds}");
    let used = text("mem_usage");
    let used: f64 = used.split_once("MB / 67.11MB").unwrap_or_else(|| panic!("{stats}")).0.parse().unwrap();
    let held = said[&("memory", "memory.usage_in_bytes")];
    assert!((used * 1e6 - held).abs() < ROOM_BYTES, "Podman says {used} MB, the kernel {held}");
    assert_eq!(stats["pids"], value(&told, "container_pids").unwrap().to_string());

    // What it is called is Podman's to tell, by privd.
    node.lab.start_podman_api(1).unwrap();
    let privd = node.lab.start_privd(1).unwrap();
    let named = node.container("its name", &id, |c| c["display_name"] == "pod1");
    assert_eq!(
        (&named["image"], &named["state"]),
        (&"localhost/lab/busybox:latest".into(), &"running".into())
    );
    assert_eq!((&named["labels"]["tier"], &named["name_unknown_reason"]), (&"web".into(), &"".into()));
    let podman = |verb: &str| {
        let at = format!("http://podman/v4.0.0/libpod/containers/pod1/{verb}");
        let asked = ["curl", "-sf", "-X", "POST", "--unix-socket", "/run/podman/podman.sock", &at];
        node.lab.exec(1, &asked).unwrap()
    };
    podman("pause");
    node.container("its pause", &id, |c| c["state"] == "paused");
    podman("unpause");
    node.container("its return", &id, |c| c["state"] == "running");
    podman("kill");
    node.disappears(&id);
    drop(privd);
}

#[test]
fn lxc_s_containers_have_their_names_and_are_what_lxc_says() {
    let node = Node::start();
    node.lab.lxc(1, "box1", Work::Busy).unwrap();
    let named = node.appears("box1");
    assert_eq!((&named["runtime"], &named["display_name"]), (&"lxc".into(), &"box1".into()));
    assert_eq!((&named["id"], &named["name_unknown_reason"]), (&"box1".into(), &"".into()));
    let all = node.controller.json(&["container", "list"]).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1, "its monitor's group is no container: {all}");
    let (told, _) = node.compare("box1", "lxc.payload.box1");
    every_metric_is_there_or_says_why_not(&told);
    is_what_it_does(&told);
    let info = node.lab.exec(1, &["lxc-info", "--no-humanize", "--name", "box1"]).unwrap();
    let said = |key: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{key}: {info}")).trim().parse().unwrap()
    };
    let (cpu, later) = (value(&told, "container_cpu_time").unwrap(), said("CPU use"));
    assert!((cpu..=cpu + 3e9).contains(&later), "told {cpu}, LXC says {later}");
    let (held, now) = (value(&told, "container_memory_current").unwrap(), said("Memory use"));
    assert!((held - now).abs() < ROOM_BYTES, "told {held}, LXC says {now}");

    // Its state is privd's to tell, which has it from the kernel: no daemon of LXC's knows it.
    let privd = node.lab.start_privd(1).unwrap();
    node.container("its state", "box1", |c| c["state"] == "running" && c["display_name"] == "box1");
    node.lab.exec(1, &["lxc-freeze", "--name", "box1"]).unwrap();
    node.container("its pause", "box1", |c| c["state"] == "paused");
    node.lab.exec(1, &["lxc-unfreeze", "--name", "box1"]).unwrap();
    node.container("its return", "box1", |c| c["state"] == "running");
    node.lab.exec(1, &["lxc-stop", "--kill", "--name", "box1"]).unwrap();
    node.disappears("box1");
    drop(privd);
}
