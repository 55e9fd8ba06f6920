//! What is served, from what lanes read.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use horcrux_proto::catalogue::{CATALOGUE, EntityKind, Kind};
use horcrux_proto::v1::{
    ContainerFacts, ContainerRuntime, LinkState, Metric, NetworkDevice, NodeFacts, Source, SourceState,
    VmFacts, VmState,
};

use super::text::tests::parsed;
use super::*;
use crate::collect::{self, Watched};
use crate::sample::{Cycle, Found, Object, ObjectSample, Reading, SourceReport, Value};

const UUID: &str = "5c0a1a3e-0000-0000-0000-00000000000a";
const ID: &str = "4b3d";

fn reading(metric: Metric, instance: &str, value: Value) -> Reading {
    Reading { metric, instance: instance.into(), value, source: Source::Proc }
}

fn cycle(found: Found, object: Object, readings: Vec<Reading>) -> Cycle {
    let report =
        |source, state| SourceReport { source, instance: Arc::default(), state, detail: String::new() };
    Cycle {
        taken: collect::now(),
        found,
        events: Vec::new(),
        samples: vec![ObjectSample { object, readings }],
        sources: vec![report(Source::Proc, SourceState::Ok), report(Source::Libvirt, SourceState::Failing)],
    }
}

fn node(readings: Vec<Reading>) -> Cycle {
    let facts = NodeFacts {
        hostname: "n".into(),
        kernel: "6.1".into(),
        architecture: "x86_64".into(),
        boot_unix_ms: 1_500_250,
        ..NodeFacts::default()
    };
    cycle(Found::Node(Box::new(facts)), Object::Node, readings)
}

fn vm(name: &str, readings: Vec<Reading>) -> Cycle {
    let facts = VmFacts {
        uuid: UUID.into(),
        display_name: name.into(),
        state: VmState::Paused.into(),
        ..VmFacts::default()
    };
    cycle(Found::Vms(vec![facts]), Object::Vm(UUID.parse().unwrap()), readings)
}

fn container(readings: Vec<Reading>) -> Cycle {
    let facts = ContainerFacts {
        id: ID.into(),
        runtime: ContainerRuntime::Docker.into(),
        cgroup_path: "docker/4b3d".into(),
        display_name: Some("web".into()),
        image: Some("nginx:1".into()),
        labels: [("io.kubernetes.pod.name", "web-0"), ("a.b", "dot"), ("a-b", "dash")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..ContainerFacts::default()
    };
    cycle(Found::Containers(vec![facts]), Object::Container(ID.parse().unwrap()), readings)
}

fn rendered(cycles: &[(&'static str, Cycle)], format: Format) -> String {
    let local = local(cycles);
    Renderer::new(Path::new("/nonexistent")).render(&local, format).to_owned()
}

fn local(cycles: &[(&'static str, Cycle)]) -> Local {
    let lane = Watched { name: "node", source: Source::Proc, instance: "".into(), progress: Arc::default() };
    let local = Local::new(vec![lane]);
    for &(lane, ref cycle) in cycles {
        local.latest().take(lane, cycle, |_| 0);
    }
    local
}

/// The lines that hold values of `family`.
fn lines<'a>(text: &'a str, family: &str) -> Vec<&'a str> {
    let of = |line: &&str| line.split(['{', ' ']).next() == Some(family);
    text.lines().filter(of).collect()
}

/// One reading of each metric, with an instance where it has any.
fn whole_catalogue() -> Vec<(&'static str, Cycle)> {
    let of = |entity: EntityKind| -> Vec<Reading> {
        let all = CATALOGUE.iter().filter(|info| info.entity == entity);
        all.map(|info| {
            let value = match info.kind {
                Kind::Counter => Value::Counter(1_500_000_000),
                Kind::Gauge | Kind::Unspecified => Value::Gauge(1.5),
            };
            reading(info.metric, if info.instance.is_empty() { "" } else { "x" }, value)
        })
        .collect()
    };
    vec![
        ("node", node(of(EntityKind::Node))),
        ("vms", vm("web", of(EntityKind::Vm))),
        ("containers", container(of(EntityKind::Container))),
    ]
}

#[test]
fn the_whole_catalogue_is_written_and_each_family_once() {
    let cycles = whole_catalogue();
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = rendered(&cycles, format);
        let mut families = HashSet::new();
        let mut series = HashSet::new();
        let mut current = (String::new(), String::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let name = help.split(' ').next().unwrap();
                assert!(families.insert(name.to_owned()), "{name} is in two places");
                current.0 = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, current.0);
                current.1 = kind.to_owned();
            } else {
                let (name, labels, value) = parsed(line);
                let total = format == Format::OpenMetrics && current.1 == "counter";
                assert_eq!(name, if total { format!("{}_total", current.0) } else { current.0.clone() });
                assert!(value.is_finite());
                assert!(series.insert((name, labels)), "written twice: {line}");
            }
        }
        for exposed in names::exposed() {
            assert!(!lines(&text, &exposed.name).is_empty(), "{} is left out", exposed.name);
        }
        assert_eq!(text, rendered_again(&cycles, &text, format), "the order is always the same");
    }
}

/// Once more, less what is of the moment.
fn rendered_again(cycles: &[(&'static str, Cycle)], before: &str, format: Format) -> String {
    let again = rendered(cycles, format);
    let moving = ["node_time_seconds", "horcrux_agent_process_", "container_last_seen"];
    let merged: Vec<&str> = again
        .lines()
        .zip(before.lines())
        .map(|(now, before)| if moving.iter().any(|name| now.starts_with(name)) { before } else { now })
        .collect();
    merged.join("\n") + "\n"
}

#[test]
fn names_labels_and_units_are_those_of_the_exporters_that_people_know() {
    let readings = vec![
        reading(Metric::NodeCpuUserTime, "", Value::Counter(3_000_000_000)),
        reading(Metric::NodeCpuUserTime, "0", Value::Counter(1_230_000_000)),
        reading(Metric::NodeCpuIdleTime, "0", Value::Counter(2_000_000_000)),
        reading(Metric::NodeMemoryTotal, "", Value::Gauge(1024.0)),
        reading(Metric::NodePressureCpuSomeAvg10, "", Value::Gauge(12.5)),
    ];
    let of_vm = vec![
        reading(Metric::VmCpuTime, "", Value::Counter(2_500_000_000)),
        reading(Metric::VmDiskReadBytes, "vda", Value::Counter(7)),
    ];
    let of_container = vec![
        reading(Metric::ContainerCpuTime, "", Value::Counter(500_000_000)),
        reading(Metric::ContainerNetworkRxBytes, "", Value::Counter(7)),
        reading(Metric::ContainerNetworkRxBytes, "eth0", Value::Counter(7)),
    ];
    let text = rendered(
        &[("node", node(readings)), ("vms", vm("a\"b", of_vm)), ("containers", container(of_container))],
        Format::Prometheus,
    );
    let expected = [
        "# TYPE node_cpu_seconds_total counter",
        "node_cpu_seconds_total{mode=\"user\",cpu=\"0\"} 1.23",
        "node_cpu_seconds_total{mode=\"idle\",cpu=\"0\"} 2",
        "node_memory_MemTotal_bytes 1024",
        "horcrux_node_pressure_cpu_some_avg10_ratio 0.125",
        "node_boot_time_seconds 1500.25",
        "libvirt_domain_info_cpu_time_seconds_total{domain=\"a\\\"b\",uuid=\"5c0a1a3e-0000-0000-0000-00000000000a\"} 2.5",
        "libvirt_domain_block_stats_read_bytes_total{domain=\"a\\\"b\",uuid=\"5c0a1a3e-0000-0000-0000-00000000000a\",\
         target_device=\"vda\"} 7",
        "libvirt_domain_info_vstate{domain=\"a\\\"b\",uuid=\"5c0a1a3e-0000-0000-0000-00000000000a\"} 3",
        "libvirt_up 0",
        "container_cpu_usage_seconds_total{cpu=\"total\",id=\"/docker/4b3d\",name=\"web\",image=\"nginx:1\",pod=\"web-0\"} 0.5",
        "container_network_receive_bytes_total{id=\"/docker/4b3d\",name=\"web\",image=\"nginx:1\",pod=\"web-0\",\
         interface=\"eth0\"} 7",
        "horcrux_container_info{id=\"/docker/4b3d\",name=\"web\",image=\"nginx:1\",pod=\"web-0\",container_id=\"4b3d\",\
         runtime=\"docker\",container_label_a_b=\"dash\",container_label_io_kubernetes_pod_name=\"web-0\"} 1",
        "horcrux_agent_source_state{source=\"libvirt\",state=\"failing\"} 1",
        "horcrux_agent_source_state{source=\"libvirt\",state=\"ok\"} 0",
        "horcrux_agent_lane_stuck{lane=\"node\"} 0",
    ];
    for line in expected {
        assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
    }
    assert_eq!(lines(&text, "node_cpu_seconds_total").len(), 2, "the sum would be counted twice");
}

#[test]
fn a_value_is_in_the_unit_that_its_name_promises() {
    let page = rustix::param::page_size() as u64;
    let of_node = node(vec![
        reading(Metric::NodeSwappedIn, "", Value::Counter(3 * page)),
        reading(Metric::NodePagedIn, "", Value::Counter(7 << 10)),
        reading(Metric::NodeTcpMemory, "", Value::Gauge((2 * page) as f64)),
        reading(Metric::NodeNetworkSpeed, "eth0", Value::Gauge(1e9)),
    ]);
    let of_container = container(vec![reading(Metric::ContainerCpuLimit, "", Value::Gauge(1.5))]);
    let cycles = [("node", of_node), ("containers", of_container)];
    let text = rendered(&cycles, Format::OpenMetrics);
    let value = |name: &str| parsed(lines(&text, name)[0]).2;
    for (name, expected) in [
        ("node_vmstat_pswpin", 3.0),
        ("node_vmstat_pgpgin", 7.0),
        ("node_sockstat_TCP_mem", 2.0),
        ("node_sockstat_TCP_mem_bytes", (2 * page) as f64),
        ("node_network_speed_bytes", 125e6),
        ("container_spec_cpu_quota", 150_000.0),
        ("container_spec_cpu_period", 100_000.0),
        ("horcrux_container_cpu_limit", 1.5),
    ] {
        assert!((value(name) - expected).abs() < 1e-9, "{name}: {text}");
    }
    assert!(text.contains("# TYPE node_vmstat_pswpin unknown\n"), "OpenMetrics' counters end in _total");
    assert!(!text.contains("horcrux_node_swapped_in"), "once");
}

#[test]
fn a_network_device_is_up_or_not_and_has_what_is_known_of_it() {
    let device = |name: &str, state: LinkState, mtu_bytes| NetworkDevice {
        name: name.into(),
        state: state.into(),
        mac: (name == "eth0").then(|| "52:54:00:00:00:01".into()),
        mtu_bytes,
        ..NetworkDevice::default()
    };
    let network_devices =
        vec![device("eth0", LinkState::Up, Some(9000)), device("lo", LinkState::Unknown, None)];
    let facts = NodeFacts { network_devices, ..NodeFacts::default() };
    let found = Found::Node(Box::new(facts));
    let text = rendered(&[("node", cycle(found, Object::Node, Vec::new()))], Format::Prometheus);
    assert_eq!(
        lines(&text, "node_network_up"),
        ["node_network_up{device=\"eth0\"} 1", "node_network_up{device=\"lo\"} 0"]
    );
    assert_eq!(lines(&text, "node_network_mtu_bytes"), ["node_network_mtu_bytes{device=\"eth0\"} 9000"]);
    let info = "node_network_info{device=\"eth0\",operstate=\"up\",address=\"52:54:00:00:00:01\"} 1";
    assert_eq!(lines(&text, "node_network_info")[0], info);
}

#[test]
fn what_is_not_known_is_not_written() {
    let readings = vec![
        reading(Metric::NodeLoad1m, "", Value::Gauge(f64::NAN)),
        reading(Metric::NodeLoad5m, "", Value::Gauge(f64::INFINITY)),
        reading(Metric::NodeNetworkRxBytes, "", Value::Counter(5)),
    ];
    let text = rendered(&[("node", node(readings))], Format::Prometheus);
    assert!(!text.contains("node_load") && !text.contains(" NaN") && !text.contains(" inf"), "{text}");
    assert_eq!(lines(&text, "node_network_receive_bytes_total"), ["node_network_receive_bytes_total 5"]);
    assert!(!text.contains("container_") && !text.contains("libvirt_domain"), "{text}");
    let nothing = rendered(&[], Format::OpenMetrics);
    assert!(nothing.contains("horcrux_agent_build_info{") && nothing.ends_with("# EOF\n"));
}

#[test]
fn a_mount_has_its_device_and_type() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("proc/self")).unwrap();
    let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /mnt/a\\040b rw - nfs4 host:/x rw\n";
    fs::write(root.path().join("proc/self/mountinfo"), mounts).unwrap();
    let of = |point| reading(Metric::NodeFilesystemSize, point, Value::Gauge(9.0));
    let local = local(&[("node", node(vec![of("/"), of("/mnt/a b"), of("/unknown")]))]);
    let mut renderer = Renderer::new(root.path());
    let text = renderer.render(&local, Format::Prometheus);
    let seen: HashMap<String, Vec<(String, String)>> = lines(text, "node_filesystem_size_bytes")
        .into_iter()
        .map(|line| parsed(line).1)
        .map(|labels| (labels[0].1.clone(), labels[1..].to_vec()))
        .collect();
    let labels = |device: &str, fstype: &str| {
        vec![("device".to_owned(), device.to_owned()), ("fstype".to_owned(), fstype.to_owned())]
    };
    assert_eq!(seen["/"], labels("/dev/sda1", "ext4"));
    assert_eq!(seen["/mnt/a b"], labels("host:/x", "nfs4"));
    assert_eq!(seen["/unknown"], []);
}

#[tokio::test]
async fn a_token_that_can_be_guessed_or_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let write = |content: &str, mode| {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        token(&path)
    };
    assert_eq!(write("0123456789abcdef\n", 0o600).unwrap().expose(), "0123456789abcdef");
    assert!(write("short\n", 0o600).is_err());
    assert!(write("two words of a good length\n", 0o600).is_err());
    assert!(write("0123456789abcdef\n", 0o644).is_err());
}

#[tokio::test]
async fn without_its_certificate_an_open_port_is_not_bound() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("token"), "0123456789abcdef").unwrap();
    fs::set_permissions(file("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let files = Secured { certificate: file("c"), key: file("k"), token_file: file("token") };
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let settings = config::Exporter { listen: Listen::Tcp(address), secured: Some(files) };
    let refused = Exporter::bind(&settings, Arc::new(local(&[])), Path::new("/"));
    assert!(matches!(refused, Err(ExporterError::Certificate(_))));
}

#[test]
fn an_agent_with_a_controller_tells_how_it_stands_with_it_and_one_without_does_not() {
    let of_link = ["horcrux_agent_controller_connected", "horcrux_agent_controller_unstored_records"];
    let local = local(&[]);
    let mut renderer = Renderer::new(Path::new("/nonexistent"));
    let alone = renderer.render(&local, Format::Prometheus).to_owned();
    assert!(of_link.iter().all(|family| lines(&alone, family).is_empty()), "{alone}");
    local.linked(Arc::default());
    let linked = renderer.render(&local, Format::Prometheus);
    assert_eq!(
        of_link.map(|family| lines(linked, family).concat()),
        of_link.map(|family| format!("{family} 0"))
    );
    let expiry = lines(linked, "horcrux_agent_certificate_expiry_timestamp_seconds");
    assert!(expiry.is_empty(), "no certificate was shown yet");
}
