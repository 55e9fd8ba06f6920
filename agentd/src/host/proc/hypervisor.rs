//! What the machine brings along for running VMs, and whether it is one.

use std::fs;
use std::path::{Path, PathBuf};

use horcrux_proto::v1::{CpuVirtualization, HypervisorFeatures};

use crate::host::read::read_text;

#[derive(Debug)]
pub(super) struct Hypervisor {
    root: PathBuf,
    /// These don't change while the machine is up.
    cpu: CpuVirtualization,
    is_guest: bool,
    machine: Option<String>,
}

/// What a firmware's product is called in a VM whose processor doesn't say that it is one, as on ARM.
const GUESTS: [&str; 6] = ["QEMU", "KVM", "VMware", "VirtualBox", "Virtual Machine", "HVM domU"];

impl Hypervisor {
    /// `flags` are those of a processor.
    pub(super) fn new(root: &Path, flags: &str) -> Self {
        let has = |flag: &str| flags.split_ascii_whitespace().any(|one| one == flag);
        let cpu = match (has("vmx"), has("svm")) {
            (true, _) => CpuVirtualization::Vmx,
            (false, true) => CpuVirtualization::Svm,
            // Of a processor that lists no flags nothing is known.
            (false, false) if flags.is_empty() || !has("fpu") => CpuVirtualization::Unspecified,
            (false, false) => CpuVirtualization::None,
        };
        let machine = machine(root);
        let is_guest = is_guest(root, has("hypervisor"), machine.as_deref());
        Self { root: root.to_path_buf(), cpu, is_guest, machine }
    }

    pub(super) fn features(&self) -> HypervisorFeatures {
        // A module of KVM is loaded when it is first needed.
        let module = ["kvm_intel", "kvm_amd"].into_iter();
        let nested = module
            .map(|name| self.root.join("sys/module").join(name).join("parameters/nested"))
            .find_map(|path| read_text(&path).ok())
            .map(|text| matches!(text.trim(), "1" | "Y"));
        HypervisorFeatures {
            cpu_virtualization: self.cpu.into(),
            nested,
            iommu: ["sys/class/iommu", "sys/kernel/iommu_groups"].iter().any(|dir| {
                fs::read_dir(self.root.join(dir)).is_ok_and(|mut entries| entries.next().is_some())
            }),
            is_guest: self.is_guest,
            machine: self.machine.clone(),
        }
    }
}

/// By the firmware, or else the device tree, or else the hypervisor's own word.
fn machine(root: &Path) -> Option<String> {
    let text = |file: &str| {
        let text = read_text(&root.join(file)).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    };
    let (maker, product) = (text("sys/class/dmi/id/sys_vendor"), text("sys/class/dmi/id/product_name"));
    match (maker, product) {
        (Some(maker), Some(product)) if product.starts_with(&maker) => Some(product),
        (Some(maker), Some(product)) => Some(format!("{maker} {product}")),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => text("proc/device-tree/model").or_else(|| text("sys/hypervisor/type")),
    }
}

fn is_guest(root: &Path, says_processor: bool, machine: Option<&str>) -> bool {
    // Xen's own domain runs below a hypervisor and is the host.
    let is_dom0 = read_text(&root.join("proc/xen/capabilities")).is_ok_and(|text| text.contains("control_d"));
    let says_product = machine.is_some_and(|machine| GUESTS.iter().any(|word| machine.contains(word)));
    let says_tree = root.join("proc/device-tree/hypervisor").exists();
    let says_xen = root.join("sys/hypervisor/type").exists();
    !is_dom0 && (says_processor || says_product || says_tree || says_xen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn a_server_with_all_of_it_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("sys/class/dmi/id/sys_vendor", "Dell Inc."),
            ("sys/class/dmi/id/product_name", "PowerEdge R640"),
            ("sys/module/kvm_intel/parameters/nested", "Y"),
            ("sys/class/iommu/dmar0/x", ""),
        ];
        put(dir.path(), &files);
        let features = Hypervisor::new(dir.path(), "fpu vmx sse").features();
        assert_eq!(features.cpu_virtualization(), CpuVirtualization::Vmx);
        assert_eq!((features.nested, features.iommu, features.is_guest), (Some(true), true, false));
        assert_eq!(features.machine.as_deref(), Some("Dell Inc. PowerEdge R640"));
    }

    #[test]
    fn a_guest_without_anything_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/class/iommu")).unwrap();
        let features = Hypervisor::new(dir.path(), "fpu sse hypervisor").features();
        assert_eq!(features.cpu_virtualization(), CpuVirtualization::None);
        assert_eq!((features.nested, features.iommu, features.is_guest), (None, false, true));
        assert_eq!(features.machine, None);
    }

    #[test]
    fn on_arm_the_firmware_says_that_it_is_a_guest_and_nothing_is_known_of_the_processor() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            &[
                ("sys/class/dmi/id/sys_vendor", "QEMU"),
                ("sys/class/dmi/id/product_name", "QEMU Virtual Machine"),
            ],
        );
        let features = Hypervisor::new(dir.path(), "fp asimd").features();
        assert_eq!(features.cpu_virtualization(), CpuVirtualization::Unspecified);
        assert!(features.is_guest);
        assert_eq!(features.machine.as_deref(), Some("QEMU Virtual Machine"));
    }

    #[test]
    fn the_first_domain_of_xen_is_a_host() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &[("sys/hypervisor/type", "xen"), ("proc/xen/capabilities", "control_d")]);
        assert!(!Hypervisor::new(dir.path(), "fpu svm hypervisor").features().is_guest);
        fs::remove_file(dir.path().join("proc/xen/capabilities")).unwrap();
        assert!(Hypervisor::new(dir.path(), "fpu").features().is_guest);
    }
}
