//! Families that are no metric of the catalogue: what things are, and how their sources are doing.

use std::collections::BTreeMap;
use std::path::Path;

use horcrux_proto::v1::{ContainerFacts, LinkState, NetworkDevice, Source, SourceState, VmFacts};

use crate::collect::Watched;
use crate::host::read::read_text;
use crate::local::Latest;
use crate::present::source_name;
use crate::sample::{Object, Taken};

use super::text::{Number, Text, Type};

/// What `uname` says and no fact does.
#[derive(Debug)]
pub(super) struct System {
    version: String,
    domain: String,
}

const STATES: [(SourceState, &str); 4] = [
    (SourceState::Ok, "ok"),
    (SourceState::Absent, "absent"),
    (SourceState::Failing, "failing"),
    (SourceState::Stuck, "stuck"),
];

impl System {
    pub(super) fn read(root: &Path) -> Self {
        let line = |file: &str| {
            let text = read_text(&root.join("proc/sys/kernel").join(file));
            text.map(|text| text.trim_end().to_owned()).unwrap_or_default()
        };
        Self { version: line("version"), domain: line("domainname") }
    }
}

/// cAdvisor's name of what the kubelet calls a container, and the kubelet's label for it.
const IN_POD: [(&str, &str); 3] = [
    ("namespace", "io.kubernetes.pod.namespace"),
    ("pod", "io.kubernetes.pod.name"),
    ("container", "io.kubernetes.container.name"),
];

/// A container's labels, cAdvisor's: what isn't known is left out.
pub(super) fn with_labels<T>(container: &ContainerFacts, labels: impl FnOnce(&[(&str, &str)]) -> T) -> T {
    let path = container.cgroup_path.as_str();
    let rooted = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut known = vec![("id", rooted.as_str())];
    known.extend(container.display_name.as_deref().map(|name| ("name", name)));
    known.extend(container.image.as_deref().map(|image| ("image", image)));
    known.extend(IN_POD.iter().filter_map(|(name, key)| Some((*name, container.labels.get(*key)?.as_str()))));
    labels(&known)
}

/// A container's own labels as cAdvisor names them; of those that come to the same name, the first.
fn own_labels(container: &ContainerFacts) -> BTreeMap<String, &str> {
    let mut keys: Vec<_> = container.labels.iter().collect();
    keys.sort();
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut labels = BTreeMap::new();
    for (key, value) in keys {
        let name = format!("container_label_{}", key.chars().map(word).collect::<String>());
        labels.entry(name).or_insert(value.as_str());
    }
    labels
}

pub(super) fn write(text: &mut Text, latest: &Latest, now: Taken, system: &System, lanes: &[Watched]) {
    node(text, latest, now, system);
    network(text, latest);
    vms(text, latest);
    containers(text, latest);
    sources(text, latest, now, lanes);
}

fn node(text: &mut Text, latest: &Latest, now: Taken, system: &System) {
    let help = "System time in seconds since the epoch.";
    text.single("node_time_seconds", Type::Gauge, help, milliseconds(now.unix_ms));
    let Some(node) = latest.present().node() else { return };
    let help = "When the node booted, in seconds since the epoch.";
    text.single("node_boot_time_seconds", Type::Gauge, help, milliseconds(node.boot_unix_ms));
    text.family("node_uname_info", Type::Gauge, "What uname says; always 1.");
    text.line("node_uname_info")
        .label("domainname", &system.domain)
        .label("machine", &node.architecture)
        .label("nodename", &node.hostname)
        .label("release", &node.kernel)
        .label("sysname", "Linux")
        .label("version", &system.version)
        .value(Number::Whole(1));
    if let Some(os) = &node.os {
        text.family("node_os_info", Type::Gauge, "What /etc/os-release says; always 1.");
        text.line("node_os_info").label("pretty_name", os).value(Number::Whole(1));
    }
}

/// As `ip link` has them.
fn network(text: &mut Text, latest: &Latest) {
    let devices = latest.present().node().map_or(&[] as &[NetworkDevice], |node| &node.network_devices);
    let told = || devices.iter().filter(|device| device.state() != LinkState::Unspecified);
    if told().next().is_some() {
        let name = "node_network_up";
        text.family(name, Type::Gauge, "1 for a device whose state is up, otherwise 0.");
        for device in told() {
            let value = Number::Whole(u64::from(device.state() == LinkState::Up));
            text.line(name).label("device", &device.name).value(value);
        }
        let name = "node_network_info";
        text.family(name, Type::Gauge, "What is known of a device; always 1.");
        for device in told() {
            let line =
                text.line(name).label("device", &device.name).label("operstate", operstate(device.state()));
            let mac = device.mac.as_deref();
            mac.into_iter().fold(line, |line, mac| line.label("address", mac)).value(Number::Whole(1));
        }
    }
    if devices.iter().any(|device| device.mtu_bytes.is_some()) {
        let name = "node_network_mtu_bytes";
        text.family(name, Type::Gauge, "Longest packet that a device sends whole.");
        for (device, mtu) in devices.iter().filter_map(|device| Some((device, device.mtu_bytes?))) {
            text.line(name).label("device", &device.name).value(Number::Whole(mtu.into()));
        }
    }
}

/// The kernel's word.
fn operstate(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Down => "down",
        LinkState::LowerLayerDown => "lowerlayerdown",
        LinkState::Dormant => "dormant",
        LinkState::Testing => "testing",
        LinkState::NotPresent => "notpresent",
        LinkState::Unknown | LinkState::Unspecified => "unknown",
    }
}

fn vms(text: &mut Text, latest: &Latest) {
    let present = latest.present();
    let libvirts = present.sources().filter(|status| status.source() == Source::Libvirt);
    let up = libvirts.filter_map(|libvirt| match libvirt.state() {
        SourceState::Ok => Some(1),
        SourceState::Failing | SourceState::Stuck => Some(0),
        SourceState::Absent | SourceState::Unspecified => None,
    });
    if let Some(up) = up.min() {
        text.single("libvirt_up", Type::Gauge, "Whether each libvirt answers.", Number::Whole(up));
    }
    if present.vms().is_empty() {
        return;
    }
    let name = "libvirt_domain_info_vstate";
    let help = "State of the VM: 1 running, 2 blocked, 3 paused, 4 shutting down, 5 shut off, 6 crashed, \
                7 suspended by guest power management.";
    text.family(name, Type::Gauge, help);
    for vm in present.vms().values() {
        // The contract's numbers are libvirt's.
        let state = Number::Whole(u64::try_from(vm.state).unwrap_or(0));
        let line = vm_labels(vm).iter().fold(text.line(name), |line, (name, value)| line.label(name, value));
        line.value(state);
    }
}

/// What tells VMs apart, and those that are not what they seem.
pub(super) fn vm_labels(vm: &VmFacts) -> Vec<(&'static str, &str)> {
    let mut labels = vec![("domain", vm.display_name.as_str()), ("uuid", vm.uuid.as_str())];
    labels.extend(vm.unmanaged.then_some(("unmanaged", "true")));
    labels.extend(vm.simulated.then_some(("simulated", "true")));
    labels
}

fn containers(text: &mut Text, latest: &Latest) {
    let containers = latest.present().containers();
    if containers.is_empty() {
        return;
    }
    let name = "container_last_seen";
    text.family(name, Type::Gauge, "When the container was read last, in seconds since the epoch.");
    for container in containers.values() {
        let taken = container.id.parse().ok().and_then(|id| latest.taken(&Object::Container(id)));
        let Some(taken) = taken else { continue };
        with_labels(container, |labels| {
            let line = labels.iter().fold(text.line(name), |line, (name, value)| line.label(name, value));
            line.value(milliseconds(taken.unix_ms));
        });
    }
    let name = "horcrux_container_info";
    text.family(name, Type::Gauge, "Which container it is, by its runtime's id, with its labels; always 1.");
    for container in containers.values() {
        let runtime =
            container.runtime().as_str_name().trim_start_matches("CONTAINER_RUNTIME_").to_lowercase();
        with_labels(container, |labels| {
            let line = labels.iter().fold(text.line(name), |line, (name, value)| line.label(name, value));
            let line = line.label("container_id", &container.id).label("runtime", &runtime);
            let own = own_labels(container);
            own.iter().fold(line, |line, (name, value)| line.label(name, value)).value(Number::Whole(1));
        });
    }
}

fn sources(text: &mut Text, latest: &Latest, now: Taken, lanes: &[Watched]) {
    let name = "horcrux_agent_source_state";
    text.family(name, Type::Gauge, "1 for the state in which what the agent reads from is.");
    for status in latest.present().sources() {
        let is_stuck = lanes.iter().any(|lane| {
            let is_its = lane.source == status.source() && *lane.instance == *status.instance;
            is_its && lane.progress.stuck_for(now).is_some()
        });
        let state = if is_stuck { SourceState::Stuck } else { status.state() };
        let source = source_name(status.source());
        for (of, word) in STATES {
            let value = Number::Whole(u64::from(of == state));
            let line = text.line(name).label("source", &source);
            let line = if status.instance.is_empty() { line } else { line.label("of", &status.instance) };
            line.label("state", word).value(value);
        }
    }
}

/// As seconds.
fn milliseconds(ms: i64) -> Number {
    Number::Nanoseconds(u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000))
}
