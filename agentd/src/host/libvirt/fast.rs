//! The lane that finds VMs and reads what no monitor is needed for.
//!
//! ```text
//!  libvirt hasn't told ──► seen by their processes ──libvirt tells──► as libvirt tells ◄──lost, back──► as it told last
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Source, SourceState, VmState};

use crate::collect::Bell;
use crate::host::qemu::{Known, Process, Processes};
use crate::host::readings::Readings;
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, SourceReport, Taken};

use super::Others;
use super::domain::Domain;
use super::params::Device;
use super::raw::{Connection, Details, Wanted};
use super::relay::{GIVE_UP, Relay};
use super::session::{Place, Session, Unavailable, ok};

/// What a domain is made of changes rarely, and costs more than all the rest.
const DETAILS_EVERY: u64 = 12;
/// A process that was not found is looked for this often: all of `/proc` is read for it.
const SEARCH_EVERY: u64 = 6;
/// A detail is read by people.
const SHOWN_ELSEWHERE: usize = 3;
/// libvirtd answers for a thousand domains in a tenth of a second.
const DEADLINE: Duration = Duration::from_secs(3);

/// Reads VMs.
#[derive(Debug)]
pub struct VmLane {
    name: &'static str,
    place: Place,
    bell: Bell,
    known: Known,
    libvirt: Result<Relay<(), Answer>, String>,
    processes: Processes,
    /// As libvirt last told them.
    domains: BTreeMap<VmUuid, Domain>,
    /// libvirt has told of its domains once: the list is all there is.
    listed: bool,
    others: Others,
    /// VMs that another connection told of first, and whose they are.
    elsewhere: BTreeMap<VmUuid, Arc<str>>,
    cycles: u64,
    whole: Arc<str>,
}

type Answer = Result<Vec<Seen>, Unavailable>;

/// Of what a running domain does.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) interfaces: Vec<Device<8>>,
    /// Nanoseconds, where libvirt was asked for them: it has them from the same kernel as its process has.
    pub(super) cpu_time: Option<u64>,
}

/// A domain in one answer.
#[derive(Debug)]
struct Seen {
    uuid: VmUuid,
    name: String,
    state: VmState,
    told: Told,
    details: Option<Details>,
}

impl VmLane {
    pub(super) fn new(
        name: &'static str,
        root: &Path,
        place: Place,
        others: Others,
        bell: Bell,
        known: Known,
    ) -> Self {
        let of = place.clone();
        let libvirt = Relay::start("vms-libvirt", GIVE_UP, move || {
            let mut observer = Observer { session: Session::new(of.clone()), seen: HashMap::new(), looks: 0 };
            Box::new(move |()| observer.look())
        });
        Self {
            name,
            place,
            bell,
            known,
            libvirt: libvirt.map_err(|error| format!("start a thread: {error}")),
            processes: Processes::new(root),
            domains: BTreeMap::new(),
            listed: false,
            others,
            elsewhere: BTreeMap::new(),
            cycles: 0,
            whole: Arc::from(""),
        }
    }

    fn ask(&mut self) -> Answer {
        match &mut self.libvirt {
            Ok(worker) => worker
                .ask((), DEADLINE)
                .unwrap_or_else(|no| Err(Unavailable::Stuck(format!("libvirtd: {no}")))),
            Err(why) => Err(Unavailable::Failing(why.clone())),
        }
    }

    /// Takes in a list of all domains; gives what was told of what they do.
    fn take_in(&mut self, seen: Vec<Seen>) -> HashMap<VmUuid, Told> {
        let mut before = std::mem::take(&mut self.domains);
        self.listed = true;
        self.elsewhere.clear();
        let mut all = HashMap::with_capacity(seen.len());
        for Seen { uuid, name, state, told, details } in seen {
            if let Err(holder) = self.known.claim(uuid, &self.place.uri) {
                self.elsewhere.insert(uuid, holder);
                continue;
            }
            let mut domain = before.remove(&uuid).unwrap_or_default();
            domain.attached = told.interfaces.iter().map(|device| device.name.clone()).collect();
            (domain.name, domain.state) = (name, state);
            domain.details = details.or(domain.details);
            all.insert(uuid, told);
            self.domains.insert(uuid, domain);
        }
        for gone in before.keys() {
            self.known.give_up(gone, &self.place.uri);
        }
        all
    }

    /// Until libvirt has told of its domains once, those that it started before are seen by their processes.
    fn see_processes(&mut self) {
        if !self.place.is_system_s() || !self.cycles.is_multiple_of(SEARCH_EVERY) {
            return;
        }
        let open = self.open_files();
        let found = self.processes.of_system_libvirt(|uuid| self.domains.contains_key(uuid), open);
        for (uuid, started) in found {
            if self.known.claim(uuid, &self.place.uri).is_ok() {
                self.domains.insert(uuid, Domain::seen(started));
            }
        }
    }

    /// Of one that was only seen by its process nothing is left with that.
    fn forget_unseen(&mut self) {
        for (gone, _) in self.domains.extract_if(.., |_, domain| domain.process.is_err()) {
            self.known.give_up(&gone, &self.place.uri);
        }
    }

    fn open_files(&self) -> usize {
        self.domains.values().flat_map(|domain| domain.process.as_ref().map(Process::open_files)).sum()
    }

    /// That it answers, and what of it is not shown: a VM is one connection's.
    fn report(&self) -> SourceReport {
        let report = ok(self.place.source(), &self.place);
        if self.elsewhere.is_empty() {
            return report;
        }
        let of = |(uuid, holder): (&VmUuid, &Arc<str>)| format!("{uuid} is not shown: {holder} has it too");
        let detail = self.elsewhere.iter().take(SHOWN_ELSEWHERE).map(of).collect::<Vec<_>>().join("; ");
        SourceReport { state: SourceState::Failing, detail, ..report }
    }

    fn find_processes(&mut self) {
        if let Some(why) = self.place.without_processes() {
            for domain in self.domains.values_mut() {
                domain.process = Err(why.to_owned());
            }
            return;
        }
        let again = self.cycles.is_multiple_of(SEARCH_EVERY);
        // One that was never looked for has no reason why it isn't there.
        let lacks = |domain: &Domain| match &domain.process {
            Ok(_) => false,
            Err(why) => domain.has_process() && (why.is_empty() || again),
        };
        let wanted: Vec<VmUuid> =
            self.domains.iter().filter(|(_, domain)| lacks(domain)).map(|(uuid, _)| *uuid).collect();
        if wanted.is_empty() {
            return;
        }
        let open = self.open_files();
        for (uuid, found) in self.processes.find(&wanted, open) {
            if let Some(domain) = self.domains.get_mut(&uuid) {
                domain.process = found;
            }
        }
    }
}

impl Lane for VmLane {
    fn name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> Source {
        self.place.source()
    }

    fn instance(&self) -> Arc<str> {
        Arc::clone(&self.place.uri)
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.bell)
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let (told, report, lost) = match self.ask() {
            Ok(seen) => (self.take_in(seen), self.report(), None),
            Err(why) => {
                let lost = format!("libvirt: {}", why.why());
                (HashMap::new(), why.report(self.place.source(), &self.place), Some(lost))
            }
        };
        if !self.listed {
            self.see_processes();
        }
        self.find_processes();
        self.cycles += 1;
        let source = self.place.source();
        let mut samples = Vec::with_capacity(self.domains.len());
        let mut facts = Vec::with_capacity(self.domains.len());
        for (uuid, domain) in &mut self.domains {
            let mut readings = Readings::new(&self.whole, domain.expected);
            domain.read(&self.place, &mut self.processes, told.get(uuid), &mut readings);
            if !self.listed && domain.process.is_err() {
                continue;
            }
            domain.read_size(source, lost.as_deref(), &mut readings);
            domain.expected = readings.len();
            samples.push(ObjectSample { object: Object::Vm(*uuid), readings: readings.into_list() });
            let mut of_one = domain.facts(*uuid, &self.place, lost.as_deref(), &self.others);
            if domain.has_process() {
                match self.others.guests.of(uuid, of_one.state()) {
                    Ok(guest) => of_one.guest = Some(guest),
                    Err(why) => of_one.guest_unknown_reason = why,
                }
            }
            facts.push(of_one);
        }
        let found = if self.listed {
            Found::Vms(facts)
        } else {
            self.forget_unseen();
            Found::VmsSoFar(facts)
        };
        let sources: Vec<SourceReport> = vec![report];
        Cycle { taken, found, samples, sources, events: Vec::new() }
    }
}

/// Lives on the worker's thread: asks libvirt, and knows which domains are not as they were.
#[derive(Debug)]
struct Observer {
    session: Session,
    /// State at the last look.
    seen: HashMap<VmUuid, VmState>,
    looks: u64,
}

impl Observer {
    fn look(&mut self) -> Answer {
        let records = self.session.call(|connection| connection.all(Wanted::Known))?;
        let mut details = HashMap::new();
        // Only where it has answered: one that is away is dialled once.
        if self.looks.is_multiple_of(DETAILS_EVERY) {
            details = self.session.call(Connection::all_details).unwrap_or_default();
        }
        self.looks += 1;
        let mut before = std::mem::take(&mut self.seen);
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let state = record.params.state();
            let is_as_before = before.remove(&record.uuid) == Some(state);
            let mut details = details.remove(&record.uuid);
            if details.is_none() && !is_as_before {
                // It may be gone since it was listed; the next list says so.
                details = self.session.call(|connection| connection.details(&record.uuid)).ok();
            }
            self.seen.insert(record.uuid, state);
            all.push(Seen {
                uuid: record.uuid,
                name: record.name,
                state,
                told: Told {
                    interfaces: record.params.interfaces(),
                    cpu_time: record.params.number("cpu.time"),
                },
                details,
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use horcrux_proto::v1::{Metric, VmFacts};

    use super::super::Missing;
    use super::super::guest::Guests;
    use super::super::jobs::Jobs;
    use super::*;
    use crate::collect;
    use crate::config::LOCAL_LIBVIRT;
    use crate::host::qemu::QemuLane;

    const UUID: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const STAT: &str = "77 (qemu-system-x86) S 1 7 7 0 -1 1 1 0 9 0 120 30 0 0 20 0 5 0 4711 7 256 1\n";

    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let process = host.path().join("proc/77");
        fs::create_dir_all(&process).unwrap();
        let key = "{\"id\":\"masterKey0\",\"file\":\"/var/lib/libvirt/qemu/domain-1-web/master-key.aes\"}";
        let line = format!(
            "/usr/bin/qemu-system-x86_64 -name guest=web -object {key} -m size=65536k -smp 2 -uuid {UUID}"
        );
        fs::write(process.join("cmdline"), line.replace(' ', "\0")).unwrap();
        fs::write(process.join("stat"), STAT).unwrap();
        host
    }

    fn lane(host: &Path, known: &Known) -> VmLane {
        let place = Place::new(LOCAL_LIBVIRT, host);
        let others =
            Others { missing: Missing::default(), guests: Guests::not_asked(), jobs: Jobs::default() };
        VmLane::new("vms", host, place, others, Bell::default(), known.clone())
    }

    fn one(cycle: &Cycle) -> &VmFacts {
        let (Found::Vms(vms) | Found::VmsSoFar(vms)) = &cycle.found else { panic!("{:?}", cycle.found) };
        assert_eq!(vms.len(), 1);
        &vms[0]
    }

    #[test]
    fn a_vm_is_seen_by_its_process_until_libvirt_tells_of_it_for_the_first_time() {
        let (host, known) = (host(), Known::default());
        let mut lane = lane(host.path(), &known);
        let cycle = lane.read(collect::now());
        let vm = one(&cycle);
        assert!(matches!(cycle.found, Found::VmsSoFar(_)));
        assert_eq!((vm.uuid.as_str(), vm.display_name.as_str()), (UUID, "web"));
        assert_eq!(
            (vm.state(), vm.unmanaged, vm.connection.as_str()),
            (VmState::Unspecified, false, LOCAL_LIBVIRT)
        );
        assert_eq!((vm.vcpus, vm.memory_max_bytes), (Some(2), Some(64 << 20)));
        assert!(vm.state_unknown_reason.starts_with("libvirt: libvirtd is not running"), "{vm:?}");
        let lacks = |metric: Metric| {
            vm.absences.iter().any(|a| a.metric() == metric && a.reason.starts_with("libvirt: "))
        };
        assert!(lacks(Metric::VmMemoryBalloon) && lacks(Metric::VmNetworkRxBytes), "{vm:?}");
        for metric in [Metric::VmCpuTime, Metric::VmMemoryResident, Metric::VmVcpus] {
            assert!(cycle.samples[0].readings.iter().any(|reading| reading.metric == metric), "{cycle:?}");
        }
        let mut beside = QemuLane::new(host.path(), known.clone(), true);
        assert_eq!(beside.read(collect::now()).found, Found::Vms(Vec::new()), "it is shown once");

        let uuid = UUID.parse().unwrap();
        let told =
            Seen { uuid, name: "web".into(), state: VmState::Running, told: Told::default(), details: None };
        lane.take_in(vec![told]);
        assert!(lane.domains[&uuid].process.is_ok(), "its process needn't be looked for");
        let cycle = lane.read(collect::now());
        assert!(matches!(cycle.found, Found::Vms(_)));
        assert_eq!((one(&cycle).state(), one(&cycle).state_unknown_reason.as_str()), (VmState::Running, ""));
    }

    #[test]
    fn one_that_ends_before_libvirt_tells_of_it_is_gone() {
        let (host, known) = (host(), Known::default());
        let mut lane = lane(host.path(), &known);
        lane.read(collect::now());
        let process = host.path().join("proc/77");
        fs::remove_file(process.join("cmdline")).unwrap();
        // Open files of a process that ended tell nothing; these would go on to.
        fs::write(process.join("stat"), STAT.replace("4711", "4712")).unwrap();
        assert_eq!(lane.read(collect::now()).found, Found::VmsSoFar(Vec::new()));
        assert!(!known.has(&UUID.parse().unwrap()));
    }
}
