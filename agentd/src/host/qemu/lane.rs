//! The lane of QEMUs that no libvirt knows: seen by their processes, and shown as VMs that can't be managed.
//!
//! A process is left to libvirt where libvirt has told of its uuid, where it is in a cgroup that libvirt made, and where its
//! command line names files of the system's libvirt while that is asked. The last two hold when libvirt is lost, or was
//! never there since the agent's start: then its lane shows them itself, by [`Processes::of_system_libvirt`]. So nothing is
//! shown twice, nothing is missing, and nothing of libvirt's turns up as unmanaged.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Absence, Metric, Source, SourceState, VmFacts, VmState};

use crate::host::readings::Readings;
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, SourceReport, Taken};

use super::command_line::CommandLine;
use super::of_libvirt::Started;
use super::{Known, Outcome, Process, Processes};

/// What a process is may change once, shortly after its start: all are looked at again this often.
const LOOK_AGAIN_EVERY: u64 = 12;
/// A host has room for few QEMUs; processes that only look like some are cheap to make.
pub(super) const MOST: usize = 1024;
/// What only a monitor and libvirt tell of a VM.
const UNTOLD: [Metric; 4] =
    [Metric::VmNetworkRxBytes, Metric::VmNetworkTxBytes, Metric::VmMemoryBalloon, Metric::VmDiskCapacity];
const NOBODY_TELLS: &str = "libvirt doesn't know this VM, and nobody else is asked";

/// Finds and reads them.
#[derive(Debug)]
pub struct QemuLane {
    root: PathBuf,
    known: Known,
    /// The system's libvirt is asked, and tells of what it started.
    has_system_libvirt: bool,
    processes: Processes,
    /// By pid.
    vms: BTreeMap<u32, Unmanaged>,
    /// Processes that were looked at.
    seen: HashSet<u32>,
    boot_id: [u8; 16],
    cycles: u64,
    whole: Arc<str>,
}

#[derive(Debug)]
struct Unmanaged {
    uuid: VmUuid,
    told: CommandLine,
    process: Process,
    expected: usize,
}

impl QemuLane {
    /// `known` is shared with the lanes of libvirt.
    #[must_use]
    pub fn new(root: &Path, known: Known, has_system_libvirt: bool) -> Self {
        let boot_id = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Self {
            root: root.to_owned(),
            known,
            has_system_libvirt,
            processes: Processes::new(root),
            vms: BTreeMap::new(),
            seen: HashSet::new(),
            boot_id: boot_id.trim().parse().map_or([0; 16], |id: VmUuid| *id.as_bytes()),
            cycles: 0,
            whole: Arc::from(""),
        }
    }

    fn discover(&mut self) -> Result<(), io::Error> {
        let mut running = HashSet::with_capacity(self.seen.len());
        for entry in fs::read_dir(self.root.join("proc"))? {
            let name = entry?.file_name();
            running.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        if self.cycles.is_multiple_of(LOOK_AGAIN_EVERY) {
            self.seen.clear();
        }
        self.vms.retain(|pid, _| running.contains(pid));
        let mut new: Vec<u32> = running.iter().filter(|pid| !self.seen.contains(*pid)).copied().collect();
        // The one that has a uuid longer keeps it.
        new.sort_unstable();
        for pid in new {
            if !self.vms.contains_key(&pid) && self.vms.len() < MOST {
                self.look_at(pid);
            }
        }
        self.seen = running;
        Ok(())
    }

    /// libvirt may tell of one later than it is seen. Of those nothing holds any more that was read here.
    fn leave_to_libvirt(&mut self) -> Vec<ObjectSample> {
        let left = self.vms.extract_if(.., |_, vm| self.known.has(&vm.uuid));
        left.map(|(_, vm)| ObjectSample { object: Object::Vm(vm.uuid), readings: Vec::new() }).collect()
    }

    fn look_at(&mut self, pid: u32) {
        let dir = self.root.join("proc").join(pid.to_string());
        // A process that ended meanwhile has no command line; a thread of the kernel has an empty one.
        let Ok(line) = fs::read(dir.join("cmdline")) else { return };
        let Some(told) = CommandLine::parse(&line) else { return };
        let is_known = told.uuid.is_some_and(|uuid| self.known.has(&uuid));
        let open = self.vms.values().map(|vm| vm.process.open_files()).sum();
        let Ok(process) = self.processes.at(dir, open) else { return };
        let started = Started { told, process };
        if is_known || (started.is_system_libvirt_s() && self.has_system_libvirt) {
            return;
        }
        let Started { told, process } = started;
        let taken = |uuid: &VmUuid| self.vms.values().any(|vm| vm.uuid == *uuid);
        let uuid = told.uuid.filter(|uuid| !taken(uuid));
        let uuid = uuid.unwrap_or_else(|| made_up(self.boot_id, pid, process.started()));
        self.vms.insert(pid, Unmanaged { uuid, told, process, expected: 0 });
    }
}

impl Lane for QemuLane {
    fn name(&self) -> &'static str {
        "qemu-processes"
    }

    fn source(&self) -> Source {
        Source::QemuProcess
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let discovered = self.discover();
        self.cycles += 1;
        let (mut samples, mut facts, mut gone) = (self.leave_to_libvirt(), Vec::new(), Vec::new());
        for (pid, vm) in &mut self.vms {
            let mut readings = Readings::new(&self.whole, vm.expected);
            if vm.process.read(&mut self.processes, &mut readings) == Outcome::Gone {
                gone.push(*pid);
                continue;
            }
            if let Some(vcpus) = vm.told.vcpus {
                readings.whole_gauge(Source::QemuProcess, Metric::VmVcpus, f64::from(vcpus));
            }
            if let Some(bytes) = vm.told.memory_bytes {
                readings.whole_gauge(Source::QemuProcess, Metric::VmMemoryMax, bytes as f64);
            }
            vm.expected = readings.len();
            samples.push(ObjectSample { object: Object::Vm(vm.uuid), readings: readings.into_list() });
            facts.push(vm.facts(*pid));
        }
        for pid in gone {
            self.vms.remove(&pid);
            // Another process may have its number.
            self.seen.remove(&pid);
        }
        let (found, state, detail) = match discovered {
            Ok(()) => (Found::Vms(facts), SourceState::Ok, String::new()),
            Err(error) => (Found::Nothing, SourceState::Failing, format!("list /proc: {error}")),
        };
        let report = SourceReport { source: Source::QemuProcess, instance: Arc::default(), state, detail };
        Cycle { taken, found, samples, sources: vec![report], events: Vec::new() }
    }
}

impl Unmanaged {
    fn facts(&self, pid: u32) -> VmFacts {
        let untold = UNTOLD.map(|metric| (metric, NOBODY_TELLS));
        let read = self.process.absences.iter().map(|(metric, why)| (*metric, why.as_str()));
        let absence = |(metric, reason): (Metric, &str)| Absence {
            metric: metric.into(),
            instance: String::new(),
            reason: reason.to_owned(),
        };
        VmFacts {
            uuid: self.uuid.to_string(),
            display_name: self.told.name.clone().unwrap_or_else(|| format!("{}-{pid}", self.told.program)),
            // Whether its guest runs or is paused only its monitor knows.
            state: VmState::Unspecified.into(),
            vcpus: self.told.vcpus,
            memory_max_bytes: self.told.memory_bytes,
            persistent: Some(false),
            absences: read.chain(untold).map(absence).collect(),
            unmanaged: true,
            started_unix_ms: Some(self.process.started_unix_ms()),
            guest_unknown_reason: NOBODY_TELLS.to_owned(),
            state_unknown_reason: NOBODY_TELLS.to_owned(),
            ..VmFacts::default()
        }
    }
}

/// An id of its own for a process that has none: the same for as long as it runs, and on no other host. The boot's id is
/// random; what is mixed in is unique within a boot. It is marked as made in a way of our own (RFC 9562, version 8).
fn made_up(boot_id: [u8; 16], pid: u32, started: u64) -> VmUuid {
    let mut id = boot_id;
    for (byte, mixed) in id[2..6].iter_mut().zip(pid.to_be_bytes()) {
        *byte ^= mixed;
    }
    // Ticks of a boot fit 48 bits.
    for (byte, mixed) in id[10..16].iter_mut().zip(&started.to_be_bytes()[2..]) {
        *byte ^= mixed;
    }
    id[6] = (id[6] & 0x0f) | 0x80;
    id[8] = (id[8] & 0x3f) | 0x80;
    VmUuid::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const BOOT: &str = "11111111-2222-4333-8444-555555555555";
    const OF_SYSTEM: &str =
        "-object {\"id\":\"masterKey0\",\"file\":\"/var/lib/libvirt/qemu/domain-1-web/master-key.aes\"}";

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            host.write("proc/sys/kernel/random/boot_id", BOOT);
            host.write("proc/1/cmdline", "/sbin/init\0");
            host
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn qemu(&self, pid: u32, arguments: &str, group: &str) {
            let line = format!("/usr/bin/qemu-system-x86_64 {arguments}").replace(' ', "\0");
            self.write(&format!("proc/{pid}/cmdline"), &line);
            self.write(&format!("proc/{pid}/cgroup"), group);
            self.write(
                &format!("proc/{pid}/stat"),
                &format!("{pid} (qemu-system-x86) S 1 7 7 0 -1 1 1 0 9 0 120 30 0 0 20 0 5 0 4711 7 256 1\n"),
            );
            self.write(&format!("proc/{pid}/io"), "read_bytes: 4096\nwrite_bytes: 8192\n");
        }

        fn lane(&self, known: &Known) -> QemuLane {
            QemuLane::new(self.0.path(), known.clone(), true)
        }
    }

    fn vms(lane: &mut QemuLane) -> Vec<VmFacts> {
        match lane.read(crate::collect::now()).found {
            Found::Vms(vms) => vms,
            other @ (Found::Node(_) | Found::VmsSoFar(_) | Found::Containers(_) | Found::Nothing) => {
                panic!("{other:?}")
            }
        }
    }

    #[test]
    fn a_qemu_that_nobody_knows_is_seen_and_then_gone() {
        let host = Host::new();
        host.qemu(77, &format!("-name web -uuid {UUID} -m 512"), "0::/user.slice\n");
        host.qemu(78, "-m 512", "0::/user.slice\n");
        let mut lane = host.lane(&Known::default());
        let found = vms(&mut lane);
        assert_eq!((found[0].uuid.as_str(), found[0].display_name.as_str()), (UUID, "web"));
        assert!(found.iter().all(|vm| vm.unmanaged && vm.state() == VmState::Unspecified));
        assert_eq!(found[0].memory_max_bytes, Some(512 << 20));
        assert_eq!(found[1].display_name, "qemu-system-x86_64-78");
        assert_eq!(vms(&mut lane)[1].uuid, found[1].uuid, "an id that is made up stays");
        let cycle = lane.read(crate::collect::now());
        assert!(cycle.samples.iter().all(|s| s.readings.iter().any(|r| r.metric == Metric::VmCpuTime)));
        fs::remove_dir_all(host.0.path().join("proc/77")).unwrap();
        assert_eq!(vms(&mut lane).len(), 1);
    }

    #[test]
    fn libvirt_s_own_are_left_to_it_whether_or_not_it_answers() {
        let host = Host::new();
        host.qemu(77, &format!("-uuid {UUID}"), "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope\n");
        host.qemu(78, OF_SYSTEM, "0::/\n");
        assert_eq!(vms(&mut host.lane(&Known::default())), []);
        let alone = &mut QemuLane::new(host.0.path(), Known::default(), false);
        assert_eq!(vms(alone).len(), 2, "no libvirt is asked that would tell of them");
    }

    #[cfg(feature = "libvirt")]
    #[test]
    fn one_that_libvirt_tells_of_later_is_not_shown_any_more() {
        let host = Host::new();
        host.qemu(77, &format!("-uuid {UUID}"), "0::/\n");
        let known = Known::default();
        let mut lane = host.lane(&known);
        assert_eq!(vms(&mut lane).len(), 1);
        known.claim(UUID.parse().unwrap(), &"qemu:///session".into()).unwrap();
        let cycle = lane.read(crate::collect::now());
        assert_eq!(cycle.found, Found::Vms(Vec::new()));
        assert!(cycle.samples.len() == 1 && cycle.samples[0].readings.is_empty(), "nothing holds of it");
        assert_eq!(lane.read(crate::collect::now()).samples, []);
    }

    #[test]
    fn of_two_with_one_uuid_the_second_gets_another() {
        let host = Host::new();
        host.qemu(77, &format!("-uuid {UUID}"), "0::/\n");
        host.qemu(78, &format!("-uuid {UUID}"), "0::/\n");
        let found = vms(&mut host.lane(&Known::default()));
        assert_eq!(found[0].uuid, UUID);
        assert_ne!(found[1].uuid, UUID);
    }

    #[test]
    fn ids_that_are_made_up_differ() {
        let boot = *BOOT.parse::<VmUuid>().unwrap().as_bytes();
        let all: HashSet<VmUuid> =
            [(1, 1), (2, 1), (1, 2), (1, 1 << 40)].map(|(pid, at)| made_up(boot, pid, at)).into();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|id| id.to_string().chars().nth(14) == Some('8')));
    }
}
