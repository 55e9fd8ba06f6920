//! QEMUs that the system's libvirt started, as their processes tell of them: for as long as libvirt itself doesn't.
//!
//! Whose a process is its command line and its cgroup say. Anyone may write such a command line; of two with one uuid the
//! one in a group that libvirt made is believed. What is believed holds until libvirt answers.

#[cfg(feature = "libvirt")]
use std::collections::BTreeMap;
#[cfg(feature = "libvirt")]
use std::fs;

#[cfg(feature = "libvirt")]
use horcrux_proto::name::VmUuid;

use super::command_line::{CommandLine, StartedBy};
#[cfg(feature = "libvirt")]
use super::lane::MOST;
use super::process::Process;
#[cfg(feature = "libvirt")]
use super::process::Processes;

/// A process, and what it was started with.
pub(in crate::host) struct Started {
    pub(in crate::host) told: CommandLine,
    pub(in crate::host) process: Process,
}

impl Started {
    pub(super) fn is_system_libvirt_s(&self) -> bool {
        self.told.started_by == StartedBy::SystemLibvirt || self.process.is_in_libvirt_s_group()
    }
}

#[cfg(feature = "libvirt")]
impl Processes {
    /// Those of them that `known` doesn't have. So many files are open for others.
    pub(in crate::host) fn of_system_libvirt(
        &mut self,
        known: impl Fn(&VmUuid) -> bool,
        open: usize,
    ) -> BTreeMap<VmUuid, Started> {
        let mut found: BTreeMap<VmUuid, Started> = BTreeMap::new();
        let mut open = open;
        for entry in fs::read_dir(self.root().join("proc")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if found.len() >= MOST || !name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())) {
                continue;
            }
            let dir = entry.path();
            // A process that ended meanwhile has no command line; a QEMU that libvirt only asks what it can do has no uuid.
            let Ok(line) = fs::read(dir.join("cmdline")) else { continue };
            let Some(told) = CommandLine::parse(&line) else { continue };
            let Some(uuid) = told.uuid.filter(|uuid| !known(uuid)) else { continue };
            let Ok(process) = self.at(dir, open) else { continue };
            let started = Started { told, process };
            let other_holds = || {
                found.get(&uuid).is_some_and(|other| {
                    other.process.is_in_libvirt_s_group() || !started.process.is_in_libvirt_s_group()
                })
            };
            if started.is_system_libvirt_s() && !other_holds() {
                open += started.process.open_files();
                found.insert(uuid, started);
            }
        }
        found
    }
}
