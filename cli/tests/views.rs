//! Fixed inputs in all three forms. JSON and YAML are read by programs: their fields and order don't change.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use horcrux_proto::v1::{
    Absence, ApiToken, AuditKind, AuditRecord, CgroupMode, Console, ConsoleGuest, ConsoleKind, ConsoleMode,
    Container, ContainerFacts, ContainerHealth, ContainerRuntime, ContainerServiceGetResponse,
    ContainerState, CpuVirtualization, Disk, Grant, Group, GuestLink, HeldPrivileges, HypervisorFeatures,
    LinkState, Metric, MetricValue, NetworkDevice, NetworkDeviceKind, Node, NodeFacts, NodeMode, NodePolicy,
    NodeServiceGetResponse, NodeState, Pool, Privilege, PrivilegeChange, Recording, RecordingPolicy,
    RecordingScope, Role, Session, Source, SourceState, SourceStatus, Tagged, User, VerifyResponse, Vm,
    VmFacts, VmJob, VmServiceGetResponse, VmState, WhatIfResponse, WhoAmIResponse, WhyEffect, WhyRequest,
    WhyResponse, WhyStep, grant, why_request,
};
use horcruxctl::place::Known;
use horcruxctl::view::audit::{AuditListView, AuditRecordView, VerifyView};
use horcruxctl::view::console::ConsoleListView;
use horcruxctl::view::container::{ContainerDetailView, ContainerListView, ContainerView};
use horcruxctl::view::context::{ContextListView, ContextView};
use horcruxctl::view::grant::{GrantListView, GrantView, RoleListView, RoleView};
use horcruxctl::view::link::{GuestLinkListView, GuestLinkView, NewGuestLinkView};
use horcruxctl::view::node::{NodeDetailView, NodeListView, NodeView};
use horcruxctl::view::people::{GroupListView, GroupView, UserListView, UserView};
use horcruxctl::view::pool::{PoolListView, PoolView, TaggedListView, TaggedView};
use horcruxctl::view::recording::{RecordingListView, RecordingPolicyListView, RecordingView};
use horcruxctl::view::secret::{
    JoinAs, JoinTokenView, NewApiTokenView, RecoveryCodesView, ReenrollView, ReenrolledView,
};
use horcruxctl::view::session::SessionListView;
use horcruxctl::view::token::{ApiTokenListView, ApiTokenView};
use horcruxctl::view::vm::{VmDetailView, VmListView, VmView};
use horcruxctl::view::whoami::{VersionView, WhoAmIView};
use horcruxctl::view::why::{WhatIfView, WhyView};
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
        locked_reason: None,
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
            network_devices: vec![
                NetworkDevice {
                    name: "eth0".into(),
                    kind: NetworkDeviceKind::Physical.into(),
                    state: LinkState::Up.into(),
                    master: Some("br0".into()),
                    speed_bits_per_second: Some(25_000_000_000),
                    mac: Some("52:54:00:00:00:01".into()),
                    mtu_bytes: Some(9000),
                    ..NetworkDevice::default()
                },
                NetworkDevice {
                    name: "vnet0".into(),
                    kind: NetworkDeviceKind::Tap.into(),
                    state: LinkState::LowerLayerDown.into(),
                    ..NetworkDevice::default()
                },
            ],
            disks: vec![Disk {
                name: "nvme0n1".into(),
                model: Some("KIOXIA KCD8".into()),
                size_bytes: Some(3_840_755_982_336),
                rotational: Some(false),
            }],
            hypervisor: Some(HypervisorFeatures {
                cpu_virtualization: CpuVirtualization::Svm.into(),
                nested: Some(true),
                iommu: true,
                is_guest: false,
                machine: Some("Dell Inc. PowerEdge R6625".into()),
            }),
            absences: vec![],
            policy: Some(NodePolicy {
                mode: NodeMode::Observe.into(),
                reason: "/run/horcrux/hold is there\u{7}".into(),
            }),
        }),
    }
}

fn console() -> Console {
    Console {
        name: "consoles/9d2c".into(),
        vm: "vms/aaaaaaaa-0000-4000-8000-000000000011".into(),
        vm_display_name: "shop\u{1b}".into(),
        node: "nodes/web1".into(),
        user: "alice@local".into(),
        kind: ConsoleKind::Serial.into(),
        mode: ConsoleMode::Control.into(),
        in_control: true,
        began_unix_ms: NOW_MS - 61_000,
        source: "192.0.2.7".into(),
        client: "horcruxctl/0.1.0".into(),
        to_viewer_bytes: 3 << 20,
        from_viewer_bytes: 512,
        recorded: false,
        guest: None,
    }
}

fn guest() -> Console {
    let guest = ConsoleGuest {
        link: "links/7f3a00c1d2e3".into(),
        maker: "alice@local".into(),
        comment: "support\u{7}".into(),
    };
    Console {
        name: "consoles/9d2d".into(),
        user: "guest link 7f3a00c1d2e3 of alice@local".into(),
        guest: Some(guest),
        ..console()
    }
}

fn link() -> GuestLink {
    GuestLink {
        name: "links/7f3a00c1d2e3".into(),
        vm: "vms/aaaaaaaa-0000-4000-8000-000000000011".into(),
        vm_display_name: "shop\u{1b}".into(),
        kind: ConsoleKind::Serial.into(),
        mode: ConsoleMode::View.into(),
        maker: "alice@local".into(),
        token: String::new(),
        comment: "support\u{7}".into(),
        created_unix_ms: NOW_MS - 3_600_000,
        expires_unix_ms: NOW_MS + 3_600_000,
        opened_unix_ms: Some(NOW_MS - 61_000),
        opened_from: "192.0.2.7".into(),
    }
}

fn source(source: Source, state: SourceState, detail: &str) -> SourceStatus {
    let instance = if source == Source::Libvirt { "qemu:///system" } else { "" }.to_owned();
    let (source, state, detail) = (source.into(), state.into(), detail.into());
    SourceStatus { source, state, detail, since_unix_ms: NOW_MS - 61_000, skipped: 12, instance }
}

/// Enrolled, and nothing more is known.
fn new_node() -> Node {
    Node {
        name: "nodes/web2".into(),
        state: NodeState::NeverSeen.into(),
        state_since_unix_ms: NOW_MS - 5_000,
        locked_reason: Some("its key\u{1b}[2J was copied".into()),
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
            interfaces: vec!["vnet0".into()],
            unmanaged: false,
            simulated: true,
            connection: "qemu+ssh://b/system".into(),
            guest: None,
            guest_unknown_reason: "the guest agent is not configured".into(),
            job: VmJob::MigrationOut.into(),
            state_unknown_reason: String::new(),
            started_unix_ms: None,
        }),
        node_state: NodeState::Connected.into(),
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
            state_unknown_reason: "podman's state can't be read".into(),
            ..ContainerFacts::default()
        }),
        node_state: NodeState::Connected.into(),
    }
}

#[test]
fn a_policy_says_what_it_means() {
    let said = |mode: i32| {
        let policy = Some(NodePolicy { mode, reason: String::new() });
        let facts = Some(NodeFacts { policy, ..NodeFacts::default() });
        let node = Some(Node { facts, ..Node::default() });
        let text = NodeDetailView::from(&NodeServiceGetResponse { node, values: vec![] }).table(NOW_MS);
        let line = text.lines().find(|line| line.starts_with("policy:")).unwrap();
        line.trim_start_matches("policy:").trim_start().to_owned()
    };
    assert_eq!(said(0), "horcrux-privd is not there, so nothing is done");
    assert_eq!(said(NodeMode::Console.into()), "console: consoles are opened");
    assert_eq!(said(99), "unknown: more than this horcruxctl knows");
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
    let silent = Vm { node_state: NodeState::Down.into(), ..vm("shop") };
    let all = [vm("shop"), silent.clone(), Vm::default()];
    golden("vm_list", &VmListView(all.iter().map(VmView::from).collect()));
    let get = VmServiceGetResponse { vm: Some(silent), values: vec![] };
    let text = VmDetailView::from(&get).table(NOW_MS);
    assert!(text.contains("shutting_down (simulated), last known 1.0s ago: web1 is down\n"), "{text}");
    let values = vec![
        value(Metric::VmCpuUsage, "", Some(100.0), ""),
        value(Metric::VmMemoryUsable, "", None, "the guest has no balloon driver"),
    ];
    // A guest chooses its name, and a terminal must not obey it.
    let vm = Some(vm("shop\u{1b}[2J"));
    golden("vm_get", &VmDetailView::from(&VmServiceGetResponse { vm, values }));
    let facts = Some(VmFacts { state: VmState::ShutOff.into(), ..VmFacts::default() });
    let off = VmServiceGetResponse { vm: Some(Vm { facts, ..Vm::default() }), values: vec![] };
    let text = VmDetailView::from(&off).table(NOW_MS);
    let state_unknown_reason = "libvirt: connect: refused".into();
    let facts = Some(VmFacts { state_unknown_reason, ..VmFacts::default() });
    let unknown = VmServiceGetResponse { vm: Some(Vm { facts, ..Vm::default() }), values: vec![] };
    let unknown = VmDetailView::from(&unknown).table(NOW_MS);
    assert!(unknown.contains("unknown: libvirt: connect: refused"), "{unknown}");
    assert!(text.ends_with("no values: the VM is shut off\n"), "{text}");
}

#[test]
fn containers() {
    let values = vec![value(Metric::ContainerMemoryWorkingSet, "", Some(5e6), "")];
    let response = ContainerServiceGetResponse { container: Some(container()), values };
    golden("container_get", &ContainerDetailView::from(&response));
    let named = ContainerFacts {
        display_name: Some("web".into()),
        name_unknown_reason: String::new(),
        state_unknown_reason: String::new(),
        image: Some("nginx:1.27".into()),
        // Whoever starts a container chooses them, and a terminal must not obey them.
        labels: [("team", "shop"), ("x", "\u{1b}[2J")].map(|(k, v)| (k.into(), v.into())).into(),
        state: ContainerState::Running.into(),
        health: ContainerHealth::Healthy.into(),
        ..container().facts.unwrap_or_default()
    };
    let named = Container { facts: Some(named), ..container() };
    let silent = Container { node_state: NodeState::Late.into(), ..named.clone() };
    let all = [container(), named.clone(), silent];
    golden("container_list", &ContainerListView(all.iter().map(ContainerView::from).collect()));
    let response = ContainerServiceGetResponse { container: Some(named), values: vec![] };
    golden("container_get_named", &ContainerDetailView::from(&response));
}

#[test]
fn the_caller_and_the_client() {
    let held = HeldPrivileges {
        path: "/pools/ci".into(),
        privileges: vec![Privilege::VmAudit.into(), Privilege::VmPowerMgmt.into(), 999],
        propagate: true,
    };
    let holding = |path: &str, privileges: &[Privilege], propagate: bool| HeldPrivileges {
        path: path.into(),
        privileges: privileges.iter().map(|&privilege| privilege.into()).collect(),
        propagate,
    };
    let answer = WhoAmIResponse {
        session: Some(session()),
        user: "admin@local".into(),
        roles: vec!["Administrator".into()],
        groups: vec!["ops".into(), "web".into()],
        second_factor: true,
        held: vec![held, holding("/access", &[Privilege::SysAudit], false), holding("/vms", &[], true)],
        ..WhoAmIResponse::default()
    };
    let role = |name: &str, privileges: &[Privilege]| Role {
        name: name.into(),
        privileges: privileges.iter().map(|&privilege| privilege.into()).collect(),
        built_in: true,
    };
    let roles =
        [role("NoAccess", &[]), role("Auditor", &[Privilege::SysAudit]), role("Root", &[Privilege::VmAudit])];
    golden("whoami", &WhoAmIView::new("lab", "https://web1:8006", &answer, &roles));
    let nothing = WhoAmIResponse { held: vec![], roles: vec![], ..answer.clone() };
    let text = WhoAmIView::new("lab", "https://web1:8006", &nothing, &roles).table(NOW_MS);
    assert!(text.ends_with("nothing is granted to you: ask an administrator\n"), "{text}");
    let token = WhoAmIResponse {
        session: None,
        token: Some("3f2a".into()),
        roles: vec![],
        groups: vec![],
        second_factor: false,
        token_full: Some(false),
        ..answer
    };
    golden("whoami_token", &WhoAmIView::new("lab", "https://web1:8006", &token, &roles));
    golden("console_list", &ConsoleListView::from([console(), guest()].as_slice()));
    let unused = GuestLink { opened_unix_ms: None, opened_from: String::new(), ..link() };
    let all = [&link(), &unused].map(GuestLinkView::from).to_vec();
    golden("link_list", &GuestLinkListView(all));
    let url = "https://web1:8006/guest#hxg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let made = NewGuestLinkView { url, link: (&unused).into() };
    assert!(!format!("{made:?}").contains("hxg_") && !made.talk().contains("hxg_"));
    golden("link_create", &made);
    let recording = Recording {
        name: "recordings/4f0c".into(),
        vm: "vms/c0ffee00-0000-4000-8000-000000000001".into(),
        vm_display_name: "shop\u{7}".into(),
        node: "nodes/web1".into(),
        user: "alice@local".into(),
        kind: ConsoleKind::Serial.into(),
        keeps_input: false,
        began_unix_ms: NOW_MS - 3_600_000,
        ended_unix_ms: Some(NOW_MS - 1_800_000),
        size_bytes: 123_456,
        shed_bytes: 2048,
        last_link: "ab".repeat(32),
    };
    let goes_on = Recording { ended_unix_ms: None, last_link: String::new(), ..recording.clone() };
    let all = [&recording, &goes_on].map(RecordingView::from).to_vec();
    golden("recording_list", &RecordingListView(all));
    let policy =
        RecordingPolicy { subject: "pools/web".into(), scope: RecordingScope::All.into(), keeps_input: true };
    golden("recording_policy_list", &RecordingPolicyListView(vec![(&policy).into()]));
    golden("session_list", &SessionListView::from([session()].as_slice()));
    let contexts = vec![ContextView {
        name: "lab".into(),
        current: true,
        url: "https://web1:8006".into(),
        user: Some("admin".into()),
        fingerprint: Some("ab".repeat(32)),
        signed_in: true,
    }];
    golden("context_list", &ContextListView(contexts));
    let version = VersionView {
        client: "0.1.0".into(),
        controller: Some("0.1.1".into()),
        controller_api: Some("horcrux.v1".into()),
    };
    golden("version", &version);
}

fn session() -> Session {
    Session {
        id: "s1".into(),
        user: "admin@local".into(),
        created_unix_ms: NOW_MS - 60_000,
        expires_unix_ms: NOW_MS + 43_200_000,
        idle_timeout_seconds: 3600,
        last_used_unix_ms: NOW_MS - 1_000,
        source: "192.0.2.7".into(),
        // What a client says of itself is not to be trusted.
        client: "horcruxctl/0.1.0\u{1b}]0;x".into(),
        current: true,
    }
}

fn grant(id: &str, subject: grant::Subject, role: &str, path: &str) -> Grant {
    Grant {
        id: id.into(),
        subject: Some(subject),
        role: role.into(),
        path: path.into(),
        propagate: true,
        not_after_unix_ms: None,
        created_unix_ms: NOW_MS - 864_000_000,
        created_by: "admin@local".into(),
    }
}

#[test]
fn people() {
    let alice = User {
        id: "alice@local".into(),
        display_name: "Alice Doe".into(),
        second_factor: true,
        created_unix_ms: NOW_MS - 864_000_000,
        last_sign_in_unix_ms: Some(NOW_MS - 273_600_000),
        groups: vec!["ops".into(), "web".into()],
        ..User::default()
    };
    let bob = User {
        id: "bob@corp".into(),
        display_name: "\u{202e}boB".into(),
        disabled: true,
        second_factor: true,
        second_factor_locked: true,
        ..User::default()
    };
    golden("user_list", &UserListView(vec![UserView::from(&alice), UserView::from(&bob)]));
    golden("user", &UserView::from(&alice));
    let ops = Group {
        name: "ops".into(),
        comment: "who is on call".into(),
        members: vec!["alice@local".into(), "bob@corp".into()],
    };
    let empty = Group { name: "admins@corp".into(), ..Group::default() };
    golden("group_list", &GroupListView(vec![GroupView::from(&ops), GroupView::from(&empty)]));
    golden("group", &GroupView::from(&ops));
}

#[test]
fn roles_and_grants() {
    let auditor = Role {
        name: "Auditor".into(),
        privileges: vec![Privilege::VmAudit.into(), Privilege::SysAudit.into()],
        built_in: true,
    };
    let nothing = Role { name: "NoAccess".into(), privileges: vec![], built_in: true };
    golden("role_list", &RoleListView(vec![RoleView::from(&auditor), RoleView::from(&nothing)]));
    golden("role", &RoleView::from(&auditor));
    let user = grant("1", grant::Subject::User("alice@local".into()), "VmUser", "/pools/ci");
    let group = Grant {
        propagate: false,
        not_after_unix_ms: Some(NOW_MS + 28_800_000),
        ..grant("2", grant::Subject::Group("ops".into()), "Administrator", "/")
    };
    let token = Grant {
        not_after_unix_ms: Some(NOW_MS - 1_000),
        ..grant("3", grant::Subject::Token("3f2a".into()), "Auditor", "/vms?tag=qa")
    };
    golden("grant_list", &GrantListView([&user, &group, &token].map(GrantView::from).to_vec()));
    golden("grant", &GrantView::from(&user));
}

#[test]
fn explanations() {
    let vm = "/vms/aaaaaaaa-0000-4000-8000-000000000011";
    let above = grant("1", grant::Subject::Group("ops".into()), "VmAdmin", "/vms");
    let own = grant("2", grant::Subject::User("alice@local".into()), "VmUser", vm);
    let step = |path: &str, subject: &str, grant: &Grant, effect: WhyEffect| WhyStep {
        path: path.into(),
        subject: subject.into(),
        grant: Some(grant.clone()),
        effect: effect.into(),
    };
    let asked = WhyRequest {
        subject: Some(why_request::Subject::User("alice@local".into())),
        privilege: Privilege::VmSnapshot.into(),
        path: "/vms/shop".into(),
    };
    let answer = WhyResponse {
        allowed: false,
        path: vm.into(),
        steps: vec![
            step("/vms", "group ops", &above, WhyEffect::Replaced),
            step(vm, "alice@local", &own, WhyEffect::Lacks),
            WhyStep { path: "/pools/ci".into(), ..WhyStep::default() },
        ],
        because: "VmUser does not hold VmSnapshot, and a deeper level replaces a shallower one".into(),
        grants: vec![own.clone()],
    };
    golden("auth_why_denied", &WhyView::new(&asked, Known::No, &answer));
    let asked = WhyRequest {
        subject: Some(why_request::Subject::Token("3f2a".into())),
        privilege: Privilege::VmConsole.into(),
        path: vm.into(),
    };
    let answer = WhyResponse { allowed: true, path: vm.into(), because: "grant 2".into(), ..answer };
    let answer = WhyResponse { steps: vec![], ..answer };
    golden("auth_why_allowed", &WhyView::new(&asked, Known::Yes, &answer));
    let change = PrivilegeChange {
        principal: "alice@local".into(),
        resource: vm.into(),
        gained: vec![Privilege::VmSnapshot.into(), Privilege::VmBackup.into()],
        lost: vec![],
    };
    let lost = PrivilegeChange {
        principal: "token 3f2a".into(),
        gained: vec![],
        lost: vec![Privilege::VmConsole.into()],
        ..change.clone()
    };
    let answer = WhatIfResponse { changes: vec![change, lost], more: 12 };
    golden("auth_what_if", &WhatIfView::from(&answer));
    golden("auth_what_if_nothing", &WhatIfView::from(&WhatIfResponse::default()));
}

#[test]
fn pools_and_tags() {
    let pool = Pool {
        name: "pools/ci".into(),
        comment: "builds".into(),
        members: vec!["nodes/web1".into(), "vms/aaaaaaaa-0000-4000-8000-000000000011".into()],
    };
    let empty = Pool { name: "pools/web".into(), ..Pool::default() };
    golden("pool_list", &PoolListView(vec![PoolView::from(&pool), PoolView::from(&empty)]));
    golden("pool", &PoolView::from(&pool));
    let object = Tagged { name: "nodes/web1".into(), tags: vec!["nightly".into(), "qa".into()] };
    golden("tag_list", &TaggedListView(vec![TaggedView::from(&object)]));
    golden("tag", &TaggedView::from(&object));
}

fn api_token() -> ApiToken {
    ApiToken {
        id: "3f2a".into(),
        owner: "alice@local".into(),
        comment: "ci".into(),
        full: false,
        grants: vec![grant("3", grant::Subject::Token("3f2a".into()), "VmUser", "/pools/ci")],
        networks: vec!["192.0.2.0/24".into()],
        created_unix_ms: NOW_MS - 864_000_000,
        expires_unix_ms: NOW_MS + 864_000_000,
        last_used_unix_ms: Some(NOW_MS - 2_300),
        last_used_from: Some("192.0.2.7".into()),
    }
}

#[test]
fn api_tokens() {
    let full = ApiToken {
        id: "77aa".into(),
        full: true,
        grants: vec![],
        networks: vec![],
        last_used_unix_ms: None,
        last_used_from: None,
        ..api_token()
    };
    golden("token_list", &ApiTokenListView([&api_token(), &full].map(ApiTokenView::from).to_vec()));
}

#[test]
fn what_is_shown_once() {
    let token = JoinTokenView { token: Some("hxj_x.y.z".into()), token_file: None, expires_unix_ms: NOW_MS };
    golden("join_token", &token);
    assert!(!format!("{token:?}").contains("hxj"));
    let next = |join_as| token.talk(join_as, "https://web1:8006");
    assert!(next(JoinAs::NewNode).contains("enroll --controller https://web1:8006 --token-file FILE"));
    assert!(next(JoinAs::Itself).contains("enroll --again --token-file FILE"));
    let made = NewApiTokenView {
        secret: Some("hxt_3f2a_xyz".into()),
        token_file: None,
        token: ApiTokenView::from(&api_token()),
    };
    golden("token_create", &made);
    assert!(!format!("{made:?}").contains("hxt"));
    assert!(!made.talk().contains("hxt"));
    let in_file = NewApiTokenView { secret: None, token_file: Some("ci-token".into()), ..made };
    golden("token_create_file", &in_file);
    let codes = RecoveryCodesView::from(vec!["aaaa-bbbb".to_owned(), "cccc-dddd".to_owned()]);
    golden("recovery_codes", &codes);
    assert!(!format!("{codes:?}").contains("aaaa"));
    let made = ReenrolledView {
        node: "web1".into(),
        token_file: Some("tokens/web1.token".into()),
        expires_unix_ms: Some(NOW_MS + 1_800_000),
        problem: None,
    };
    let not = ReenrolledView {
        node: "web2".into(),
        token_file: None,
        expires_unix_ms: None,
        problem: Some("permission denied: alice@local lacks NodeEnroll on /nodes/web2".into()),
    };
    golden("node_reenroll", &ReenrollView(vec![made, not]));
}

#[test]
fn the_audit_log() {
    let intent = AuditRecord {
        sequence: 41,
        at_unix_ms: NOW_MS - 1_000,
        kind: AuditKind::Intent.into(),
        actor: "alice@local".into(),
        session: "s1".into(),
        source: "192.0.2.7".into(),
        rpc: "/horcrux.v1.GrantService/Create".into(),
        resource: "/pools/ci".into(),
        request_id: "0f".repeat(16),
        decision: "grant 2: Administrator on /".into(),
        outcome: String::new(),
        detail: "user bob@corp role VmUser\u{1b}[2J".into(),
        intent: 0,
        hash: "ab".repeat(32),
    };
    let outcome = AuditRecord {
        sequence: 42,
        kind: AuditKind::Outcome.into(),
        decision: String::new(),
        outcome: "ok".into(),
        detail: String::new(),
        intent: 41,
        ..intent.clone()
    };
    let controller = AuditRecord {
        sequence: 1042,
        kind: AuditKind::Event.into(),
        actor: "controller".into(),
        at_unix_ms: NOW_MS,
        ..AuditRecord::default()
    };
    let rows = [&controller, &outcome, &intent].map(AuditRecordView::from).to_vec();
    assert_eq!(
        rows[1].line(),
        "42  2026-08-04T11:59:59Z  outcome  alice@local  192.0.2.7  GrantService/Create  /pools/ci  ok"
    );
    golden("audit_list", &AuditListView(rows));
    let whole = VerifyResponse {
        intact: true,
        rows: 1042,
        head: format!("1042:{}", "ab".repeat(32)),
        ..VerifyResponse::default()
    };
    golden("audit_verify", &VerifyView::from(&whole));
    let broken = VerifyResponse {
        intact: false,
        broken_at: Some(17),
        problem: "its hash is not that of its content".into(),
        ..whole
    };
    golden("audit_verify_broken", &VerifyView::from(&broken));
}
