//! What the node is.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use horcrux_proto::v1::{Absence, CgroupMode, Disk, NetworkDevice, NodeFacts, NodePolicy};

use crate::host::cgroup;
use crate::host::read::{ReadError, read_text};

use super::hypervisor::Hypervisor;
use super::memory::Memory;
use super::stat::Stat;

/// Model and flags are among the first lines of `/proc/cpuinfo`, which has as many blocks of 28 as there are cores.
const CPUINFO_LINES: usize = 32;

#[derive(Debug)]
pub(super) struct Facts {
    root: PathBuf,
    /// Read once: `/proc/cpuinfo` is slow where there are many cores.
    cpu_model: Option<String>,
    /// Looked for until there is one: it stays as it is while the machine is up.
    cgroup_mode: CgroupMode,
    hypervisor: Hypervisor,
    names: Option<Names>,
}

/// What the machine calls itself and what it runs.
#[derive(Clone, Debug)]
struct Names {
    hostname: String,
    os: Option<String>,
    kernel: String,
    architecture: String,
}

/// What others know of the node.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) network_devices: Vec<NetworkDevice>,
    pub(super) disks: Vec<Disk>,
    pub(super) absences: Vec<Absence>,
    pub(super) policy: Option<NodePolicy>,
}

impl Facts {
    pub(super) fn new(root: &Path) -> Self {
        let cpuinfo = root.join("proc/cpuinfo");
        let flags = first_processor(&cpuinfo, "flags").or_else(|| first_processor(&cpuinfo, "Features"));
        Self {
            root: root.to_path_buf(),
            cpu_model: first_processor(&cpuinfo, "model name"),
            hypervisor: Hypervisor::new(root, &flags.unwrap_or_default()),
            cgroup_mode: CgroupMode::None,
            names: None,
        }
    }

    /// Has names read anew.
    pub(super) fn look_again(&mut self) {
        self.names = None;
    }

    /// The sources are left to who knows them all.
    pub(super) fn read(
        &mut self,
        stat: &Stat,
        memory: &Memory,
        known: Known,
    ) -> Result<Box<NodeFacts>, ReadError> {
        if self.cgroup_mode == CgroupMode::None {
            self.cgroup_mode = cgroup::mode(&self.root);
        }
        let names = match &self.names {
            Some(names) => names.clone(),
            None => self.names.insert(self.names()?).clone(),
        };
        Ok(Box::new(NodeFacts {
            hostname: names.hostname,
            os: names.os,
            kernel: names.kernel,
            architecture: names.architecture,
            cpu_model: self.cpu_model.clone(),
            cpus: u32::try_from(stat.cores.len()).unwrap_or(u32::MAX),
            memory_bytes: memory.total,
            cgroup_mode: self.cgroup_mode.into(),
            boot_unix_ms: stat.boot_unix_s.saturating_mul(1000),
            sources: Vec::new(),
            network_devices: known.network_devices,
            disks: known.disks,
            hypervisor: Some(self.hypervisor.features()),
            absences: known.absences,
            policy: known.policy,
        }))
    }

    fn names(&self) -> Result<Names, ReadError> {
        let one_line = |name: &str| read_text(&self.root.join(name)).map(|text| text.trim().to_owned());
        let os = read_text(&self.root.join("etc/os-release")).ok().and_then(|text| pretty_name(&text));
        // Linux has `arch` since 6.1; below that, ask it. `uname` can't be asked of another root, but a machine has
        // one architecture.
        let architecture = one_line("proc/sys/kernel/arch")
            .unwrap_or_else(|_| rustix::system::uname().machine().to_string_lossy().into_owned());
        Ok(Names {
            hostname: one_line("proc/sys/kernel/hostname")?,
            os,
            kernel: one_line("proc/sys/kernel/osrelease")?,
            architecture,
        })
    }
}

/// What `/proc/cpuinfo` says of its first processor.
fn first_processor(path: &Path, wanted: &str) -> Option<String> {
    let lines = BufReader::new(File::open(path).ok()?).lines().map_while(Result::ok).take(CPUINFO_LINES);
    let mut pairs = lines.filter_map(|line| {
        line.split_once(':').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.find(|(key, value)| key == wanted && !value.is_empty()).map(|(_, value)| value)
}

/// `PRETTY_NAME` of os-release(5), which is written as a shell would read it.
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim();
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = match (quoted('"'), quoted('\'')) {
        (Some(value), _) => {
            value.replace("\\\"", "\"").replace("\\$", "$").replace("\\`", "`").replace("\\\\", "\\")
        }
        (None, Some(value)) => value.to_owned(),
        (None, None) => value.to_owned(),
    };
    Some(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_system_is_unquoted() {
        let name = |text: &str| pretty_name(text);
        assert_eq!(name("A=1\nPRETTY_NAME=\"Debian 12\"\n").as_deref(), Some("Debian 12"));
        assert_eq!(name("PRETTY_NAME='Arch'\n").as_deref(), Some("Arch"));
        assert_eq!(name("PRETTY_NAME=Void\n").as_deref(), Some("Void"));
        assert_eq!(name("PRETTY_NAME=\"\"\n"), None);
        assert_eq!(name("NAME=x\n"), None);
    }

    #[test]
    fn a_processor_without_a_model_name_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpuinfo");
        std::fs::write(&path, "processor\t: 0\nBogoMIPS\t: 243.75\n").unwrap();
        assert_eq!(first_processor(&path, "model name"), None);
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/proc/hybrid/cpuinfo");
        let model = first_processor(&real, "model name");
        assert_eq!(model.as_deref(), Some("Intel(R) Xeon(R) Processor @ 2.50GHz"));
        assert!(first_processor(&real, "flags").is_some_and(|flags| flags.contains("hypervisor")));
    }
}
