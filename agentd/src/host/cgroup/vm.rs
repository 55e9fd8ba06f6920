//! The group in which libvirt keeps the process of one VM: its CPU time to the nanosecond, its I/O where v2 counts it.
//!
//! v1's block counters leave out what the kernel writes back later, which is most of what is written: they are not used.

use std::path::Path;

use horcrux_proto::v1::Source;

use crate::host::read::{Buffer, Keep, KeptFile, ReadError, Shape};

use super::hierarchy::{Controller, Hierarchies};
use super::parse::{io_stat, keyed, number};

/// The hierarchies, to find groups in.
#[derive(Debug)]
pub(crate) struct VmGroups(Hierarchies);

#[derive(Debug)]
pub(crate) struct VmGroup {
    cpu: Option<(Source, KeptFile)>,
    io: Option<KeptFile>,
}

impl VmGroups {
    pub(crate) fn find(root: &Path) -> Self {
        Self(Hierarchies::find(root))
    }

    /// The group named in a process's `/proc/PID/cgroup`, if it is one that libvirt made for a VM.
    pub(crate) fn of(&self, text: &str, keep: Keep) -> Option<VmGroup> {
        let file = |dir: &Path, path: &str, name: &str| {
            KeptFile::new(dir.join(path.trim_start_matches('/')).join(name), Shape::Whole, keep)
        };
        let mut found = VmGroup { cpu: None, io: None };
        let mut is_of_a_vm = false;
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next().and_then(vm_group)) else {
                continue;
            };
            is_of_a_vm = true;
            if controllers.is_empty() {
                if let Some(dir) = &self.0.unified {
                    found.io = Some(file(dir, path, "io.stat"));
                    if found.cpu.is_none() {
                        found.cpu = Some((Source::CgroupV2, file(dir, path, "cpu.stat")));
                    }
                }
            } else if controllers.split(',').any(|controller| controller == "cpuacct")
                && let Some(dir) = self.0.v1(Controller::Cpuacct)
            {
                found.cpu = Some((Source::CgroupV1, file(dir, path, "cpuacct.usage")));
            }
        }
        is_of_a_vm.then_some(found)
    }
}

impl VmGroup {
    /// CPU time of all that runs in the group, in nanoseconds; `None` where no controller counts it.
    pub(crate) fn cpu_ns(&mut self, buffer: &mut Buffer) -> Option<(Source, u64)> {
        let (source, file) = self.cpu.as_mut()?;
        let v1 = *source == Source::CgroupV1;
        let read = file.parse(buffer, |text| {
            if v1 {
                return number(text).map(Some);
            }
            let [usec] = keyed(text, ["usage_usec"])?;
            Ok(usec.map(|usec| usec.saturating_mul(1000)))
        });
        Some((*source, read.ok()??))
    }

    /// Bytes read and written; `None` where v2 doesn't count them.
    pub(crate) fn io(&mut self, buffer: &mut Buffer) -> Option<Result<(u64, u64), ReadError>> {
        let read = self.io.as_mut()?.parse(buffer, |text| {
            let devices = io_stat(text)?;
            Ok(devices.iter().fold((0, 0), |(read, written), (_, bytes, _)| {
                (bytes.read.saturating_add(read), bytes.written.saturating_add(written))
            }))
        });
        match read {
            Err(error) if error.is_gone() => None,
            read => Some(read),
        }
    }
}

/// A path up to the component that libvirt names after a VM: `…/machine-qemu\x2d1\x2dweb.scope` under systemd,
/// `…/qemu-1-web.libvirt-qemu` elsewhere. Groups below it hold parts of the VM.
fn vm_group(path: &str) -> Option<&str> {
    let mut end = 0;
    for component in path.split_inclusive('/') {
        end += component.len();
        let name = component.trim_end_matches('/');
        if name.starts_with("machine-qemu\\x2d") || name.ends_with(".libvirt-qemu") {
            return Some(path[..end].trim_end_matches('/'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_group_of_the_whole_vm_is_found_from_any_part_of_it() {
        let systemd = "/machine.slice/machine-qemu\\x2d3\\x2dweb.scope";
        assert_eq!(vm_group(&format!("{systemd}/libvirt/emulator")), Some(systemd));
        assert_eq!(vm_group(systemd), Some(systemd));
        let plain = "/machine/qemu-1-web.libvirt-qemu";
        assert_eq!(vm_group(&format!("{plain}/vcpu0")), Some(plain));
        assert_eq!(vm_group("/user.slice/session-1.scope"), None);
        assert_eq!(vm_group(""), None);
    }

    #[test]
    fn v2_gives_cpu_time_and_io() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("sys/fs/cgroup");
        let group = base.join("machine.slice/machine-qemu\\x2d3\\x2dweb.scope");
        fs::create_dir_all(&group).unwrap();
        fs::write(base.join("cgroup.controllers"), "cpu io\n").unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n").unwrap();
        fs::write(
            group.join("io.stat"),
            "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n",
        )
        .unwrap();
        let groups = VmGroups::find(root.path());
        let text = "0::/machine.slice/machine-qemu\\x2d3\\x2dweb.scope/libvirt/emulator\n";
        let mut found = groups.of(text, Keep::Open).unwrap();
        let mut buffer = Buffer::default();
        assert_eq!(found.cpu_ns(&mut buffer), Some((Source::CgroupV2, 1_500_000)));
        assert_eq!(found.io(&mut buffer).unwrap().unwrap(), (11, 22));
        assert!(groups.of("0::/user.slice/session-1.scope\n", Keep::Open).is_none());
    }

    #[test]
    fn a_group_without_the_io_controller_has_no_io() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("sys/fs/cgroup");
        fs::create_dir_all(base.join("machine/qemu-1-web.libvirt-qemu")).unwrap();
        fs::write(base.join("cgroup.controllers"), "cpu\n").unwrap();
        let groups = VmGroups::find(root.path());
        let mut found = groups.of("0::/machine/qemu-1-web.libvirt-qemu/emulator\n", Keep::Open).unwrap();
        assert!(found.io(&mut Buffer::default()).is_none());
        assert_eq!(found.cpu_ns(&mut Buffer::default()), None);
    }
}
