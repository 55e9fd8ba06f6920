//! Fixed inputs in all three forms. JSON and YAML are read by programs: their fields and order don't change.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use horcrux_proto::v1::{
    Absence, CgroupMode, Container, ContainerFacts, ContainerRuntime, ContainerServiceGetResponse, Metric,
    MetricValue, Node, NodeFacts, NodeServiceGetResponse, NodeState, Session, Source, SourceState,
    SourceStatus, Vm, VmFacts, VmServiceGetResponse, VmState, WhoAmIResponse,
};
use horcruxctl::view::container::{ContainerDetailView, ContainerListView, ContainerView};
use horcruxctl::view::context::{ContextListView, ContextView, JoinTokenView};
use horcruxctl::view::node::{NodeDetailView, NodeListView, NodeView};
use horcruxctl::view::vm::{VmDetailView, VmListView, VmView};
use horcruxctl::view::whoami::{VersionView, WhoAmIView};
use horcruxctl::view::{Output, View};

/// 2026-08-04T12:00:00Z.
const NOW_MS: i64 = 1_785_844_800_000;

fn golden(name: &str, view: &impl View) {
    for (form, output) in [("table", Output::Table), ("json", Output::Json), ("yaml", Output::Yaml)] {
        let text = output.render(view, NOW_MS).unwrap();
        insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("{name}_{form}"), text);
        });
    }
}

fn node() -> Node {
    Node {
        name: "nodes/web1".into(),
        id: "0f".repeat(16),
        state: NodeState::Connected.into(),
        state_since_unix_ms: NOW_MS - 273_600_000,
        last_sample_unix_ms: Some(NOW_MS - 2_300),
        enrolled_unix_ms: NOW_MS - 864_000_000,
        certificate_expires_unix_ms: NOW_MS + 864_000_000,
        agent_version: Some("0.1.0".into()),
        clock_offset_ms: Some(-3),
        facts: Some(NodeFacts {
            hostname: "web1".into(),
            os: Some("Debian GNU/Linux 13 (trixie)".into()),
            kernel: "6.12.38".into(),
            architecture: "x86_64".into(),
            cpu_model: Some("AMD EPYC 9354P".into()),
            cpus: 64,
            memory_bytes: 270_000_000_000,
            cgroup_mode: CgroupMode::V2.into(),
            boot_unix_ms: NOW_MS - 900_000_000,
            sources: vec![
                source(Source::Proc, SourceState::Ok, ""),
                source(Source::QemuMonitor, SourceState::Stuck, "a reading takes 61 s"),
            ],
        }),
    }
}

fn source(source: Source, state: SourceState, detail: &str) -> SourceStatus {
    let (source, state, detail) = (source.into(), state.into(), detail.into());
    SourceStatus { source, state, detail, since_unix_ms: NOW_MS - 61_000, skipped: 12 }
}

/// Enrolled, and nothing more is known.
fn new_node() -> Node {
    Node {
        name: "nodes/web2".into(),
        state: NodeState::NeverSeen.into(),
        state_since_unix_ms: NOW_MS - 5_000,
        ..Node::default()
    }
}

fn value(metric: Metric, instance: &str, value: Option<f64>, absent_reason: &str) -> MetricValue {
    let taken_unix_ms = if value.is_some() { NOW_MS - 2_300 } else { 0 };
    MetricValue {
        metric: metric.into(),
        instance: instance.into(),
        value,
        source: Source::Proc.into(),
        taken_unix_ms,
        absent_reason: absent_reason.into(),
    }
}

fn vm(display_name: &str) -> Vm {
    Vm {
        name: "vms/aaaaaaaa-0000-4000-8000-000000000011".into(),
        node: "nodes/web1".into(),
        last_sample_unix_ms: Some(NOW_MS - 1_000),
        facts: Some(VmFacts {
            uuid: "aaaaaaaa-0000-4000-8000-000000000011".into(),
            display_name: display_name.into(),
            state: VmState::ShuttingDown.into(),
            vcpus: Some(4),
            memory_max_bytes: Some(8 << 30),
            persistent: Some(true),
            absences: vec![Absence {
                metric: Metric::VmMemoryUsable.into(),
                instance: String::new(),
                reason: "the guest has no balloon driver".into(),
            }],
        }),
    }
}

fn container() -> Container {
    Container {
        name: format!("containers/web1/{}", "3f2a".repeat(16)),
        node: "nodes/web1".into(),
        last_sample_unix_ms: None,
        facts: Some(ContainerFacts {
            id: "3f2a".repeat(16),
            runtime: ContainerRuntime::Podman.into(),
            cgroup_path: "/machine.slice/libpod-3f2a.scope".into(),
            display_name: None,
            name_unknown_reason: "podman's state can't be read".into(),
            absences: vec![],
        }),
    }
}

#[test]
fn nodes() {
    golden("node_list", &NodeListView(vec![NodeView::from(&node()), NodeView::from(&new_node())]));
    golden("node_list_empty", &NodeListView(vec![]));
    let values = vec![
        value(Metric::NodeCpuUserTime, "0", Some(7_200e9), ""),
        value(Metric::NodeCpuUsage, "", Some(12.345), ""),
        value(Metric::NodeMemoryUsed, "", Some(135e9), ""),
        value(Metric::NodeDiskReadRate, "nvme0n1", Some(1_572_864.0), ""),
        value(Metric::NodePressureCpuFullAvg10, "", None, "the kernel has no PSI"),
        MetricValue { metric: 9999, value: Some(1.0), ..MetricValue::default() },
    ];
    golden("node_get", &NodeDetailView::from(&NodeServiceGetResponse { node: Some(node()), values }));
    let response = NodeServiceGetResponse { node: Some(new_node()), values: vec![] };
    golden("node_get_new", &NodeDetailView::from(&response));
}

#[test]
fn vms() {
    golden("vm_list", &VmListView(vec![VmView::from(&vm("shop")), VmView::from(&Vm::default())]));
    let values = vec![
        value(Metric::VmCpuUsage, "", Some(100.0), ""),
        value(Metric::VmMemoryUsable, "", None, "the guest has no balloon driver"),
    ];
    // A guest chooses its name, and a terminal must not obey it.
    let vm = Some(vm("shop\u{1b}[2J"));
    golden("vm_get", &VmDetailView::from(&VmServiceGetResponse { vm, values }));
}

#[test]
fn containers() {
    golden("container_list", &ContainerListView(vec![ContainerView::from(&container())]));
    let values = vec![value(Metric::ContainerMemoryWorkingSet, "", Some(5e6), "")];
    let response = ContainerServiceGetResponse { container: Some(container()), values };
    golden("container_get", &ContainerDetailView::from(&response));
}

#[test]
fn the_caller_and_the_client() {
    let session = Some(Session {
        id: "s1".into(),
        user: "admin@local".into(),
        created_unix_ms: NOW_MS - 60_000,
        expires_unix_ms: NOW_MS + 43_200_000,
        idle_timeout_seconds: 3600,
    });
    let answer = WhoAmIResponse { session, roles: vec!["Administrator".into()], csrf_token: None };
    golden("whoami", &WhoAmIView::new("lab", "https://web1:8006", &answer));
    let contexts = vec![ContextView {
        name: "lab".into(),
        current: true,
        url: "https://web1:8006".into(),
        user: Some("admin".into()),
        fingerprint: Some("ab".repeat(32)),
        signed_in: true,
    }];
    golden("context_list", &ContextListView(contexts));
    let token = JoinTokenView { token: Some("hxj_x.y.z".into()), token_file: None, expires_unix_ms: NOW_MS };
    golden("join_token", &token);
    assert!(!format!("{token:?}").contains("hxj"));
    let version = VersionView {
        client: "0.1.0".into(),
        controller: Some("0.1.1".into()),
        controller_api: Some("horcrux.v1".into()),
    };
    golden("version", &version);
}
