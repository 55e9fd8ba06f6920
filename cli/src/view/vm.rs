//! Virtual machines.

use horcrux_proto::v1::{Vm, VmServiceGetResponse};
use serde::Serialize;

use super::quantity::whole_bytes;
use super::table::{Facts, Table};
use super::time::ago;
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
    pub unmanaged: bool,
    /// It doesn't exist: libvirt's test driver made it up.
    pub simulated: bool,
    /// The libvirt connection that tells of it.
    pub connection: Option<String>,
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
            node: wire.node.clone(),
            vcpus: facts.vcpus,
            memory_max_bytes: facts.memory_max_bytes,
            persistent: facts.persistent,
            last_sample_unix_ms: wire.last_sample_unix_ms,
            absent: facts.absences.iter().map(AbsenceView::from).collect(),
            display_name: facts.display_name,
            interfaces: facts.interfaces,
            unmanaged: facts.unmanaged,
            simulated: facts.simulated,
            connection: Some(facts.connection).filter(|uri| !uri.is_empty()),
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
                vm.state_in_words(),
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
        facts.fact("state", vm.state_in_words());
        facts.fact("libvirt", vm.connection.as_deref().map_or_else(|| "-".to_owned(), shown));
        facts.fact("vcpus", or_dash(vm.vcpus.map(|n| n.to_string())));
        facts.fact("memory", or_dash(vm.memory_max_bytes.map(whole_bytes)));
        facts.fact("persistent", or_dash(vm.persistent.map(|p| if p { "yes" } else { "no" }.to_owned())));
        let interfaces: Vec<String> = vm.interfaces.iter().map(|name| shown(name)).collect();
        facts.fact("interfaces", or_dash((!interfaces.is_empty()).then(|| interfaces.join(" "))));
        facts.fact("last sample", or_dash(vm.last_sample_unix_ms.map(|at| ago(at, now_ms))));
        if self.values.is_empty() && matches!(vm.state.as_str(), "shut_off" | "crashed") {
            return format!("{}\nno values: the VM is {}\n", facts.text(), vm.state.replace('_', " "));
        }
        facts.text() + &value::table(&self.values, now_ms)
    }
}
