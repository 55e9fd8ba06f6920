use super::*;
use crate::sample::{Reading, Value};

const HEAD: &str = "Inter-|\n face |\n";
const LOOPBACK: &str = "    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n";

/// A tree with a group and processes. Files are their namespaces: two names of one file are one namespace.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.process(1, &format!("{HEAD}{LOOPBACK}  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"));
        host
    }

    fn proc(&self, pid: u32) -> PathBuf {
        self.0.path().join("proc").join(pid.to_string())
    }

    fn process(&self, pid: u32, text: &str) {
        fs::create_dir_all(self.proc(pid).join("net")).unwrap();
        fs::write(self.proc(pid).join("net/dev"), text).unwrap();
    }

    /// Another process of the same namespace.
    fn beside(&self, pid: u32, other: u32) {
        fs::create_dir_all(self.proc(pid).join("net")).unwrap();
        fs::hard_link(self.proc(other).join("net/dev"), self.proc(pid).join("net/dev")).unwrap();
    }

    fn ends(&self, pid: u32) {
        fs::remove_dir_all(self.proc(pid)).unwrap();
    }

    fn group(&self) -> PathBuf {
        self.0.path().join("group")
    }

    fn holds(&self, group: &str, pids: &str) {
        let dir = self.group().join(group);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), pids).unwrap();
    }

    fn read(&self, network: &mut Network) -> (Looked, Vec<Reading>) {
        let mut readings = Readings::new(&Arc::from(""), 0);
        let networks = Networks::new(self.0.path());
        let looked = network.read(&self.group(), &networks, &mut Buffer::default(), &mut readings);
        (looked, readings.into_list())
    }
}

fn eth0(rx_bytes: u64, tx_bytes: u64) -> String {
    format!("{HEAD}{LOOPBACK}  eth0: {rx_bytes} 2 3 4 0 0 0 0 {tx_bytes} 6 7 8 0 0 0 0\n")
}

fn value(readings: &[Reading], metric: Metric, instance: &str) -> Option<u64> {
    let found = readings.iter().find(|reading| reading.metric == metric && &*reading.instance == instance)?;
    match found.value {
        Value::Counter(value) => Some(value),
        Value::Gauge(_) => None,
    }
}

fn rx(readings: &[Reading]) -> Option<u64> {
    value(readings, Metric::ContainerNetworkRxBytes, "")
}

fn reasons(network: &Network) -> Vec<String> {
    let mut reasons: Vec<String> = network.absences().map(|absence| absence.reason).collect();
    assert!(reasons.is_empty() || reasons.len() == METRICS.len());
    reasons.dedup();
    reasons
}

#[test]
fn what_passes_loopback_is_left_out_and_directions_are_not_confused() {
    let host = Host::new();
    host.holds("", "77\n");
    host.process(77, &eth0(100, 200));
    let mut network = Network::new(Keep::Open);
    let (looked, readings) = host.read(&mut network);
    assert_eq!(looked, Looked::default());
    for instance in ["", "eth0"] {
        let values = METRICS.map(|(metric, _)| value(&readings, metric, instance).unwrap());
        assert_eq!(values, [100, 2, 3, 4, 200, 6, 7, 8]);
    }
    assert_eq!(readings.len(), 2 * METRICS.len());
    assert_eq!((reasons(&network), network.open_files()), (vec![], Network::FILES));
}

#[test]
fn a_container_on_the_nodes_network_has_none_of_its_own_and_that_is_said() {
    let host = Host::new();
    host.holds("", "77\n");
    host.beside(77, 1);
    let mut network = Network::new(Keep::Open);
    let (looked, readings) = host.read(&mut network);
    assert!(readings.is_empty() && looked.absences_changed && !looked.lost);
    assert_eq!(reasons(&network), [OF_NODE]);
    assert!(!host.read(&mut network).0.absences_changed, "it is told once");
}

#[test]
fn one_process_of_a_namespace_is_as_good_as_another() {
    let host = Host::new();
    host.holds("", "77\n78\n");
    host.process(77, &eth0(100, 200));
    host.beside(78, 77);
    let mut network = Network::new(Keep::Open);
    assert_eq!(rx(&host.read(&mut network).1), Some(100));
    host.ends(77);
    let (looked, readings) = host.read(&mut network);
    assert_eq!((looked, rx(&readings)), (Looked::default(), Some(100)));
}

#[test]
fn counters_of_another_namespace_are_not_taken_for_the_same_ones_that_grew() {
    let host = Host::new();
    host.holds("", "77\n");
    host.process(77, &eth0(100, 200));
    let mut network = Network::new(Keep::Open);
    host.read(&mut network);
    host.process(78, &eth0(5000, 6000));
    host.ends(77);
    host.holds("", "78\n");
    let (looked, readings) = host.read(&mut network);
    assert_eq!((looked.lost, rx(&readings)), (true, Some(5000)));
    assert!(!host.read(&mut network).0.lost);
}

#[test]
fn a_number_that_means_another_process_now_is_not_read() {
    let host = Host::new();
    host.holds("", "77\n");
    host.process(77, &eth0(100, 200));
    let mut network = Network::new(Keep::Open);
    host.read(&mut network);
    host.ends(77);
    host.process(77, &eth0(5000, 6000));
    host.holds("", "");
    let (looked, readings) = host.read(&mut network);
    assert!(readings.is_empty() && looked.lost);
    assert_eq!(reasons(&network), [NO_PROCESS]);
}

#[test]
fn a_process_that_left_the_container_stands_for_it_no_longer() {
    let host = Host::new();
    host.holds("", "77\n78\n");
    host.process(77, &eth0(100, 200));
    host.process(78, &eth0(1, 2));
    let mut network = Network::new(Keep::Open);
    host.read(&mut network);
    network.check();
    assert_eq!(rx(&host.read(&mut network).1), Some(100));
    host.holds("", "78\n");
    network.check();
    assert_eq!(rx(&host.read(&mut network).1), Some(1));
}

#[test]
fn without_a_descriptor_to_spare_the_process_is_looked_up_each_time() {
    let host = Host::new();
    host.holds("", "77\n");
    host.process(77, &eth0(100, 200));
    let mut network = Network::new(Keep::Closed);
    for _ in 0..2 {
        assert_eq!(rx(&host.read(&mut network).1), Some(100));
        assert_eq!(network.open_files(), 0);
    }
}

#[test]
fn processes_are_found_below_but_not_in_a_container_within() {
    let id = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1";
    let host = Host::new();
    host.holds("", "");
    host.holds("docker", "");
    host.holds(&format!("docker/{id}"), "78\n");
    host.holds("system.slice/cron.service", "77\n");
    host.process(77, &eth0(100, 200));
    host.process(78, &eth0(1, 2));
    assert_eq!(rx(&host.read(&mut Network::new(Keep::Open)).1), Some(100));
}

#[test]
fn what_a_container_makes_for_its_own_containers_is_counted_once() {
    let host = Host::new();
    host.holds("", "77\n");
    let inner = "docker0: 70 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\nveth12: 70 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n";
    host.process(77, &(eth0(100, 200) + inner));
    let (_, readings) = host.read(&mut Network::new(Keep::Open));
    assert_eq!((rx(&readings), readings.len()), (Some(100), 2 * METRICS.len()));
    host.process(77, &format!("{HEAD}{LOOPBACK}veth12: 70 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n"));
    assert_eq!(rx(&host.read(&mut Network::new(Keep::Open)).1), Some(70), "it has nothing else");
}

#[test]
fn loopback_alone_is_no_network_and_a_thousand_interfaces_are_a_sum() {
    let host = Host::new();
    host.holds("", "77\n");
    host.process(77, &format!("{HEAD}{LOOPBACK}"));
    let mut network = Network::new(Keep::Open);
    assert!(host.read(&mut network).1.is_empty());
    assert_eq!(reasons(&network), [LOOPBACK_ALONE]);
    let many: String = (0..1000).map(|n| format!("d{n}: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n")).collect();
    host.process(77, &format!("{HEAD}{LOOPBACK}{many}"));
    let (_, readings) = host.read(&mut network);
    assert_eq!((rx(&readings), readings.len()), (Some(1000), (MOST_INTERFACES + 1) * METRICS.len()));
}

#[test]
fn processes_that_cannot_be_seen_are_no_empty_network() {
    let host = Host::new();
    host.holds("", "77\n0\n");
    let mut network = Network::new(Keep::Open);
    assert!(host.read(&mut network).1.is_empty());
    assert_eq!(reasons(&network), [HIDDEN]);
    host.process(77, "cut short\n\neth0: 1 2\n");
    assert!(host.read(&mut network).1.is_empty());
    assert!(reasons(&network)[0].contains("lacks columns"), "{:?}", reasons(&network));
}
