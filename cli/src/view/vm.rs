//! Virtual machines.

use horcrux_proto::v1::{GuestFacts, GuestFilesystem, GuestInterface, Vm, VmJob, VmServiceGetResponse};
use serde::Serialize;

use super::known::{Known, held, node_state};
use super::quantity::whole_bytes;
use super::table::{Facts, Table};
use super::time::{ago, utc};
use super::value::{self, AbsenceView, ValueView};
use super::{View, bare, or_dash, shown, word};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VmView {
    pub name: String,
    pub display_name: String,
    pub node: String,
    pub state: String,
    pub vcpus: Option<u32>,
    pub memory_max_bytes: Option<u64>,
    pub persistent: Option<bool>,
    pub last_sample_unix_ms: Option<i64>,
    pub absent: Vec<AbsenceView>,
    /// Its node's network devices that lead to it.
    pub interfaces: Vec<String>,
    /// A QEMU process that no libvirt knows.
    /// By its node's clock.
    pub started_unix_ms: Option<i64>,
    pub unmanaged: bool,
    /// It doesn't exist: libvirt's test driver made it up.
    pub simulated: bool,
    /// The libvirt connection that tells of it.
    pub connection: Option<String>,
    /// What its guest agent says.
    pub guest: Option<GuestView>,
    /// Why that is null.
    pub guest_unknown_reason: String,
    /// What is done with it now, such as `migration_out`; its progress is among its values.
    pub job: Option<String>,
    /// Why its state is not known.
    pub state_unknown_reason: String,
    /// How its node is: of one that isn't connected, all of this is the last known.
    pub node_state: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestView {
    pub hostname: Option<String>,
    pub os: Option<String>,
    pub kernel: Option<String>,
    pub users: Vec<String>,
    pub interfaces: Vec<GuestInterfaceView>,
    pub filesystems: Vec<GuestFilesystemView>,
    /// Over 1, 5 and 15 minutes.
    pub load: [Option<f64>; 3],
    /// What it doesn't say, and why.
    pub unknown: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestInterfaceView {
    pub name: String,
    pub mac: Option<String>,
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestFilesystemView {
    pub mountpoint: String,
    pub kind: String,
    pub size_bytes: Option<u64>,
    pub used_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct VmListView(pub Vec<VmView>);

/// One VM with its values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VmDetailView {
    #[serde(flatten)]
    pub vm: VmView,
    pub values: Vec<ValueView>,
}

impl From<&Vm> for VmView {
    fn from(wire: &Vm) -> Self {
        let facts = wire.facts.clone().unwrap_or_default();
        Self {
            name: wire.name.clone(),
            state: word(facts.state().as_str_name(), "VM_STATE_"),
            job: job(facts.job()),
            node: wire.node.clone(),
            vcpus: facts.vcpus,
            memory_max_bytes: facts.memory_max_bytes,
            persistent: facts.persistent,
            last_sample_unix_ms: wire.last_sample_unix_ms,
            absent: facts.absences.iter().map(AbsenceView::from).collect(),
            display_name: facts.display_name,
            interfaces: facts.interfaces,
            guest: facts.guest.map(GuestView::from),
            guest_unknown_reason: facts.guest_unknown_reason,
            node_state: node_state(wire.node_state()),
            state_unknown_reason: facts.state_unknown_reason,
            started_unix_ms: facts.started_unix_ms,
            unmanaged: facts.unmanaged,
            simulated: facts.simulated,
            connection: Some(facts.connection).filter(|uri| !uri.is_empty()),
        }
    }
}

impl From<GuestFacts> for GuestView {
    fn from(wire: GuestFacts) -> Self {
        let interface = |GuestInterface { name, mac, addresses }| GuestInterfaceView { name, mac, addresses };
        let filesystem = |wire: GuestFilesystem| {
            let GuestFilesystem { mountpoint, kind, size_bytes, used_bytes } = wire;
            GuestFilesystemView { mountpoint, kind, size_bytes, used_bytes }
        };
        Self {
            hostname: wire.hostname,
            os: wire.os,
            kernel: wire.kernel,
            users: wire.users,
            interfaces: wire.interfaces.into_iter().map(interface).collect(),
            filesystems: wire.filesystems.into_iter().map(filesystem).collect(),
            load: [wire.load_1m, wire.load_5m, wire.load_15m],
            unknown: wire.unknown,
        }
    }
}

impl GuestView {
    fn facts(&self, facts: &mut Facts) {
        let list = |texts: &mut dyn Iterator<Item = &String>| {
            let texts: Vec<String> = texts.map(|text| shown(text)).collect();
            or_dash((!texts.is_empty()).then(|| texts.join(" ")))
        };
        let text = |text: &Option<String>| or_dash(text.as_deref().map(shown));
        facts.fact("guest os", format!("{} {}", text(&self.os), text(&self.kernel)));
        facts.fact("guest name", text(&self.hostname));
        facts.fact("guest users", list(&mut self.users.iter()));
        facts.fact("guest addresses", list(&mut self.interfaces.iter().flat_map(|one| &one.addresses)));
        for GuestFilesystemView { mountpoint, kind, size_bytes, used_bytes } in &self.filesystems {
            let [used, size] = [used_bytes, size_bytes].map(|bytes| or_dash(bytes.map(whole_bytes)));
            facts.fact("guest disk", format!("{} {}: {used} of {size}", shown(mountpoint), shown(kind)));
        }
        let load = self.load.map(|load| or_dash(load.map(|load| format!("{load:.2}"))));
        facts.fact("guest load", load.join(" "));
        for unknown in &self.unknown {
            facts.fact("guest lacks", shown(unknown));
        }
    }
}

impl VmView {
    /// With what must not be overlooked.
    #[must_use]
    pub fn state_in_words(&self) -> String {
        let state = if self.state == "unspecified" { "unknown" } else { &self.state };
        match (self.simulated, self.unmanaged) {
            (true, _) => format!("{state} (simulated)"),
            (false, true) => format!("{state} (unmanaged)"),
            (false, false) => state.to_owned(),
        }
    }
}

fn job(job: VmJob) -> Option<String> {
    (job != VmJob::Unspecified).then(|| word(job.as_str_name(), "VM_JOB_"))
}

impl From<&VmServiceGetResponse> for VmDetailView {
    fn from(wire: &VmServiceGetResponse) -> Self {
        Self {
            vm: VmView::from(&wire.vm.clone().unwrap_or_default()),
            values: wire.values.iter().map(ValueView::from).collect(),
        }
    }
}

impl View for VmListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no VMs\n".to_owned();
        }
        let mut table = Table::new(&["NAME", "NODE", "STATE", ">VCPUS", ">MEMORY", "LAST SAMPLE", "UUID"]);
        for vm in &self.0 {
            table.row(vec![
                shown(&vm.display_name),
                shown(bare(&vm.node)),
                held(&vm.node_state, vm.state_in_words()),
                or_dash(vm.vcpus.map(|n| n.to_string())),
                or_dash(vm.memory_max_bytes.map(whole_bytes)),
                or_dash(vm.last_sample_unix_ms.map(|at| ago(at, now_ms))),
                shown(bare(&vm.name)),
            ]);
        }
        table.text()
    }
}

impl View for VmDetailView {
    fn table(&self, now_ms: i64) -> String {
        let vm = &self.vm;
        let mut facts = Facts::default();
        facts.fact("name", shown(&vm.display_name));
        facts.fact("uuid", shown(bare(&vm.name)));
        facts.fact("node", shown(bare(&vm.node)));
        let known = Known { node: &vm.node, node_state: &vm.node_state, sampled_ms: vm.last_sample_unix_ms };
        let why = Some(&vm.state_unknown_reason).filter(|why| !why.is_empty());
        let state = vm.state_in_words() + &why.map_or_else(String::new, |why| format!(": {}", shown(why)));
        facts.fact("state", known.told(state, now_ms));
        let started = |at| format!("{} ({})", utc(at), ago(at, now_ms));
        facts.fact("started", or_dash(vm.started_unix_ms.map(started)));
        if let Some(job) = &vm.job {
            facts.fact("job", job.replace('_', " "));
        }
        facts.fact("libvirt", vm.connection.as_deref().map_or_else(|| "-".to_owned(), shown));
        facts.fact("vcpus", or_dash(vm.vcpus.map(|n| n.to_string())));
        facts.fact("memory", or_dash(vm.memory_max_bytes.map(whole_bytes)));
        facts.fact("persistent", or_dash(vm.persistent.map(|p| if p { "yes" } else { "no" }.to_owned())));
        let interfaces: Vec<String> = vm.interfaces.iter().map(|name| shown(name)).collect();
        facts.fact("interfaces", or_dash((!interfaces.is_empty()).then(|| interfaces.join(" "))));
        match &vm.guest {
            Some(guest) => guest.facts(&mut facts),
            None if vm.guest_unknown_reason.is_empty() => {}
            None => facts.fact("guest", format!("- ({})", shown(&vm.guest_unknown_reason))),
        }
        facts.fact("last sample", or_dash(vm.last_sample_unix_ms.map(|at| ago(at, now_ms))));
        if self.values.is_empty() && matches!(vm.state.as_str(), "shut_off" | "crashed") {
            return format!("{}\nno values: the VM is {}\n", facts.text(), vm.state.replace('_', " "));
        }
        facts.text() + &value::table(&self.values, now_ms)
    }
}
