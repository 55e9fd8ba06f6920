//! The lane that finds VMs and reads what no monitor is needed for.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Absence, Metric, Source, SourceState, VmFacts, VmState};

use crate::collect::Bell;
use crate::host::qemu::{Known, Outcome, Process, Processes};
use crate::host::readings::Readings;
use crate::host::worker::Worker;
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, SourceReport, Taken};

use super::Others;
use super::params::{Device, INTERFACE_METRICS};
use super::raw::{Details, Wanted};
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
    libvirt: Result<Worker<(), Answer>, String>,
    processes: Processes,
    /// As libvirt last told them.
    domains: BTreeMap<VmUuid, Domain>,
    /// libvirt has told of its domains once: an empty list means that there are none.
    listed: bool,
    others: Others,
    /// VMs that another connection told of first, and whose they are.
    elsewhere: BTreeMap<VmUuid, Arc<str>>,
    cycles: u64,
    whole: Arc<str>,
}

type Answer = Result<Vec<Seen>, Unavailable>;

/// A domain in one answer.
#[derive(Debug)]
struct Seen {
    uuid: VmUuid,
    name: String,
    state: VmState,
    interfaces: Vec<Device<8>>,
    details: Option<Details>,
}

#[derive(Debug)]
struct Domain {
    name: String,
    state: VmState,
    details: Option<Details>,
    process: Result<Process, String>,
    /// Names of interfaces, kept and shared.
    interfaces: HashMap<String, Arc<str>>,
    /// Those that it has now, as libvirt last told them.
    attached: Vec<String>,
    /// How many readings it gave last.
    expected: usize,
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
        let mut observer = Observer { session: Session::new(place.clone()), seen: HashMap::new(), looks: 0 };
        let libvirt = Worker::start("vms-libvirt", move |()| observer.look());
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

    /// Takes in a list of all domains; gives what was told of their interfaces.
    fn take_in(&mut self, seen: Vec<Seen>) -> HashMap<VmUuid, Vec<Device<8>>> {
        let mut before = std::mem::take(&mut self.domains);
        self.listed = true;
        self.elsewhere.clear();
        let mut interfaces = HashMap::with_capacity(seen.len());
        for Seen { uuid, name, state, interfaces: devices, details } in seen {
            if let Err(holder) = self.known.claim(uuid, &self.place.uri) {
                self.elsewhere.insert(uuid, holder);
                continue;
            }
            let mut domain = before.remove(&uuid).unwrap_or_else(|| Domain {
                name: String::new(),
                state,
                details: None,
                process: Err(String::new()),
                interfaces: HashMap::new(),
                attached: Vec::new(),
                expected: 0,
            });
            domain.attached = devices.iter().map(|device| device.name.clone()).collect();
            (domain.name, domain.state) = (name, state);
            domain.details = details.or(domain.details);
            interfaces.insert(uuid, devices);
            self.domains.insert(uuid, domain);
        }
        for gone in before.keys() {
            self.known.give_up(gone, &self.place.uri);
        }
        interfaces
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
        let open =
            self.domains.values().flat_map(|domain| domain.process.as_ref().map(Process::open_files)).sum();
        for (uuid, found) in self.processes.find(&wanted, open) {
            if let Some(domain) = self.domains.get_mut(&uuid) {
                domain.process = found;
            }
        }
    }
}

impl Domain {
    fn has_process(&self) -> bool {
        match self.state {
            VmState::Running
            | VmState::Blocked
            | VmState::Paused
            | VmState::ShuttingDown
            | VmState::PmSuspended => true,
            VmState::ShutOff | VmState::Crashed | VmState::Unspecified => false,
        }
    }

    fn read(
        &mut self,
        place: &Place,
        processes: &mut Processes,
        interfaces: &[Device<8>],
        readings: &mut Readings,
    ) {
        if !self.has_process() {
            self.process = Err(String::new());
            return;
        }
        let source = place.source();
        if let Ok(process) = &mut self.process
            && process.read(processes, readings) == Outcome::Gone
        {
            self.process = Err("its process has gone, and libvirt has not said so yet".to_owned());
        }
        let mut sums = [None; INTERFACE_METRICS.len()];
        for device in interfaces {
            let instance =
                self.interfaces.entry(device.name.clone()).or_insert_with(|| Arc::from(device.name.as_str()));
            for ((metric, value), sum) in INTERFACE_METRICS.into_iter().zip(device.values).zip(&mut sums) {
                if let Some(value) = value {
                    readings.counter(source, metric, instance, value);
                    *sum = Some(sum.unwrap_or(0_u64).wrapping_add(value));
                }
            }
        }
        for (metric, sum) in INTERFACE_METRICS.into_iter().zip(sums) {
            if let Some(sum) = sum {
                readings.whole_counter(source, metric, sum);
            }
        }
    }

    /// While libvirt says nothing, only that it ran, and that its process has gone, is known.
    fn state_now(&self, libvirt_lost: Option<&str>) -> VmState {
        let gone = self.has_process() && self.process.is_err();
        if libvirt_lost.is_some() && gone { VmState::Unspecified } else { self.state }
    }

    fn facts(&self, uuid: VmUuid, place: &Place, libvirt_lost: Option<&str>, others: &Others) -> VmFacts {
        let absent = |metric: Metric, reason: &str| Absence {
            metric: metric.into(),
            instance: String::new(),
            reason: reason.to_owned(),
        };
        let mut absences = Vec::new();
        if self.has_process() {
            match &self.process {
                Ok(process) => {
                    absences.extend(process.absences.iter().map(|(metric, why)| absent(*metric, why)));
                }
                Err(why) => absences.extend(
                    [
                        Metric::VmCpuTime,
                        Metric::VmVcpuTime,
                        Metric::VmMemoryResident,
                        Metric::VmIoReadBytes,
                        Metric::VmIoWrittenBytes,
                    ]
                    .map(|metric| absent(metric, why)),
                ),
            }
            if let Some(why) = libvirt_lost {
                absences.extend(INTERFACE_METRICS.map(|metric| absent(metric, why)));
            }
            absences.extend(others.missing.of(&uuid));
            absences.extend(others.jobs.absences(&uuid));
        }
        VmFacts {
            uuid: uuid.to_string(),
            display_name: self.name.clone(),
            state: self.state_now(libvirt_lost).into(),
            vcpus: self.details.map(|details| details.vcpus),
            memory_max_bytes: self.details.map(|details| details.memory_max_bytes),
            persistent: self.details.map(|details| details.persistent),
            absences,
            interfaces: self.attached.clone(),
            unmanaged: false,
            simulated: place.is_simulated(),
            connection: place.uri.to_string(),
            job: others.jobs.of(&uuid).into(),
            guest: None,
            guest_unknown_reason: String::new(),
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
        let (interfaces, report, lost) = match self.ask() {
            Ok(seen) => (self.take_in(seen), self.report(), None),
            Err(why) => {
                let lost = format!("libvirt: {}", why.why());
                (HashMap::new(), why.report(self.place.source(), &self.place), Some(lost))
            }
        };
        self.find_processes();
        self.cycles += 1;
        let source = self.place.source();
        let mut samples = Vec::with_capacity(self.domains.len());
        let mut facts = Vec::with_capacity(self.domains.len());
        for (uuid, domain) in &mut self.domains {
            let mut readings = Readings::new(&self.whole, domain.expected);
            let devices = interfaces.get(uuid).map(Vec::as_slice).unwrap_or_default();
            domain.read(&self.place, &mut self.processes, devices, &mut readings);
            if let Some(details) = domain.details.filter(|_| lost.is_none() && domain.has_process()) {
                readings.whole_gauge(source, Metric::VmVcpus, f64::from(details.vcpus));
                let bytes = details.memory_max_bytes as f64;
                readings.whole_gauge(source, Metric::VmMemoryMax, bytes);
            }
            domain.expected = readings.len();
            samples.push(ObjectSample { object: Object::Vm(*uuid), readings: readings.into_list() });
            let mut of_one = domain.facts(*uuid, &self.place, lost.as_deref(), &self.others);
            if domain.has_process() {
                match self.others.guests.of(uuid) {
                    Ok(guest) => of_one.guest = Some(guest),
                    Err(why) => of_one.guest_unknown_reason = why,
                }
            }
            facts.push(of_one);
        }
        let found = if self.listed { Found::Vms(facts) } else { Found::Nothing };
        let sources: Vec<SourceReport> = vec![report];
        Cycle { taken, found, samples, sources, events: Vec::new() }
    }
}

/// Lives on the worker's thread: asks libvirt, and knows whose details it asked for when.
#[derive(Debug)]
struct Observer {
    session: Session,
    /// State at the last look, and the look at which details were asked for.
    seen: HashMap<VmUuid, (VmState, u64)>,
    looks: u64,
}

impl Observer {
    fn look(&mut self) -> Answer {
        let records = self.session.call(|connection| connection.all(Wanted::Known))?;
        self.looks += 1;
        let mut before = std::mem::take(&mut self.seen);
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let state = record.params.state();
            let known = before.remove(&record.uuid);
            let due = known.is_none_or(|(was, asked)| was != state || self.looks - asked >= DETAILS_EVERY);
            let details = due.then(|| self.session.call(|connection| connection.details(&record.uuid)));
            let asked = match (&details, known) {
                (None, Some((_, asked))) => asked,
                // Spread over the looks that follow, so that not all are due in the same one.
                _ => self.looks - u64::from(record.uuid.as_bytes()[15]) % (DETAILS_EVERY / 2).min(self.looks),
            };
            self.seen.insert(record.uuid, (state, asked));
            all.push(Seen {
                uuid: record.uuid,
                name: record.name,
                state,
                interfaces: record.params.interfaces(),
                // A domain may be gone since it was listed; the next list says so.
                details: details.and_then(Result::ok),
            });
        }
        Ok(all)
    }
}
