//! What a node is made of.

use horcrux_proto::v1::{CpuVirtualization, Disk, HypervisorFeatures, NetworkDevice};
use serde::Serialize;

use super::quantity::{bits_per_second, whole_bytes};
use super::table::{Facts, Table};
use super::{or_dash, shown, word};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkDeviceView {
    pub name: String,
    pub kind: String,
    pub state: String,
    /// The bridge or bond that it is in.
    pub master: Option<String>,
    /// What a VLAN is on.
    pub parent: Option<String>,
    pub speed_bits_per_second: Option<u64>,
    pub mac: Option<String>,
    pub mtu_bytes: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiskView {
    pub name: String,
    pub model: Option<String>,
    pub size_bytes: Option<u64>,
    pub rotational: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HypervisorView {
    /// `vmx`, `svm`, `none`; null where the processor doesn't tell.
    pub cpu_virtualization: Option<String>,
    /// Null: KVM isn't loaded.
    pub nested: Option<bool>,
    pub iommu: bool,
    pub is_guest: bool,
    pub machine: Option<String>,
}

impl From<&NetworkDevice> for NetworkDeviceView {
    fn from(wire: &NetworkDevice) -> Self {
        Self {
            name: wire.name.clone(),
            kind: word(wire.kind().as_str_name(), "NETWORK_DEVICE_KIND_"),
            state: word(wire.state().as_str_name(), "LINK_STATE_"),
            master: wire.master.clone(),
            parent: wire.parent.clone(),
            speed_bits_per_second: wire.speed_bits_per_second,
            mac: wire.mac.clone(),
            mtu_bytes: wire.mtu_bytes,
        }
    }
}

impl From<&Disk> for DiskView {
    fn from(wire: &Disk) -> Self {
        Self {
            name: wire.name.clone(),
            model: wire.model.clone(),
            size_bytes: wire.size_bytes,
            rotational: wire.rotational,
        }
    }
}

impl From<&HypervisorFeatures> for HypervisorView {
    fn from(wire: &HypervisorFeatures) -> Self {
        let cpu = wire.cpu_virtualization();
        let known = cpu != CpuVirtualization::Unspecified;
        Self {
            cpu_virtualization: known.then(|| word(cpu.as_str_name(), "CPU_VIRTUALIZATION_")),
            nested: wire.nested,
            iommu: wire.iommu,
            is_guest: wire.is_guest,
            machine: wire.machine.clone(),
        }
    }
}

impl HypervisorView {
    pub(super) fn facts(&self, facts: &mut Facts) {
        let machine = or_dash(self.machine.as_deref().map(shown));
        let guest = if self.is_guest { ", itself a guest" } else { "" };
        facts.fact("machine", format!("{machine}{guest}"));
        let nested = match self.nested {
            Some(true) => "nested",
            Some(false) => "not nested",
            None => "KVM not loaded",
        };
        let iommu = if self.iommu { "IOMMU" } else { "no IOMMU" };
        let cpu = or_dash(self.cpu_virtualization.as_deref().map(shown));
        facts.fact("virtualization", format!("{cpu}, {nested}, {iommu}"));
    }
}

pub(super) fn network_devices(devices: &[NetworkDeviceView]) -> String {
    if devices.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["DEVICE", "KIND", "STATE", ">SPEED", "PART OF", "MAC", ">MTU"]);
    for device in devices {
        let part_of = device.master.as_deref().or(device.parent.as_deref());
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let speed = device.speed_bits_per_second.map(|bits| bits_per_second(bits as f64));
        table.row(vec![
            shown(&device.name),
            device.kind.clone(),
            device.state.clone(),
            or_dash(speed),
            or_dash(part_of.map(shown)),
            or_dash(device.mac.as_deref().map(shown)),
            or_dash(device.mtu_bytes.map(|bytes| bytes.to_string())),
        ]);
    }
    format!("\n{}", table.text())
}

pub(super) fn disks(disks: &[DiskView]) -> String {
    if disks.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["DISK", ">SIZE", "TURNS", "MODEL"]);
    for disk in disks {
        let turns = disk.rotational.map(|turns| if turns { "yes" } else { "no" }.to_owned());
        table.row(vec![
            shown(&disk.name),
            or_dash(disk.size_bytes.map(whole_bytes)),
            or_dash(turns),
            or_dash(disk.model.as_deref().map(shown)),
        ]);
    }
    format!("\n{}", table.text())
}
