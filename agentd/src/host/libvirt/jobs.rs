//! The lane that follows jobs, such as a migration or a save, for as long as they run.
//!
//! libvirt doesn't tell when a job begins. So a VM is looked at when what goes with a job happens to it (its state changes,
//! QEMU passes over its memory), and each time that the monitor lane has read it; and then once a second until it has no
//! job any more. Where nothing is to be looked at, libvirt isn't asked.
//!
//! A job is told on the host that the VM leaves: libvirt has no statistics of it on the one to which it comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Absence, Metric, Source, VmJob};

use crate::collect::Bell;
use crate::host::qemu::Known;
use crate::host::readings::Readings;
use crate::host::workers::{Patience, Workers};
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, Taken};

use super::params::Params;
use super::session::{Place, Session, Unavailable};

/// How often a job is looked at.
pub const EVERY: Duration = Duration::from_secs(1);
/// A monitor that works answers in 5 ms. Several that hang make a round late, and nothing else; but each holds one of
/// libvirtd's workers, of which it has 20 as it comes, and of those the monitor lane may hold 8 and the guests' 6.
const PATIENCE: Patience =
    Patience { answer: Duration::from_millis(700), round: Duration::from_secs(3), late: 4 };

/// In bytes, by libvirt's names for them.
const BYTES: [(&str, Metric); 6] = [
    ("data_total", Metric::VmJobDataTotal),
    ("data_processed", Metric::VmJobDataProcessed),
    ("data_remaining", Metric::VmJobDataRemaining),
    ("memory_total", Metric::VmJobMemoryTotal),
    ("memory_processed", Metric::VmJobMemoryProcessed),
    ("memory_remaining", Metric::VmJobMemoryRemaining),
];
/// What a VM lacks that has a job of which nothing can be read.
const METRICS: [Metric; 2] = [Metric::VmJobProgress, Metric::VmJobElapsed];

/// VMs that may have a job, and what is known of those that do: for the lanes that notice them, and the one that tells.
/// By default nobody looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A lane looks at them.
    followed: bool,
    seen: Mutex<HashMap<VmUuid, Seen>>,
    /// The lane that looks at them.
    looker: Bell,
    /// The lane that tells what is done with a VM.
    states: Bell,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It may have one.
    Perhaps,
    Runs(VmJob),
    /// It had one when it last answered.
    Silent(VmJob, String),
}

/// Follows jobs.
#[derive(Debug)]
pub struct VmJobLane {
    name: &'static str,
    place: Place,
    workers: Workers<VmUuid, Answer>,
    jobs: Jobs,
    known: Known,
    whole: Arc<str>,
}

/// `None`: no job runs in it.
type Answer = Result<Option<Params>, Unavailable>;

impl Jobs {
    /// For a [`VmJobLane`]. `states` is rung when a job began or ended.
    pub(super) fn followed(states: Bell) -> Self {
        Self(Arc::new(Shared { followed: true, states, ..Shared::default() }))
    }

    /// Has it looked at whether these have a job, which doesn't wait for anything.
    pub(super) fn look_at(&self, uuids: impl IntoIterator<Item = VmUuid>) {
        if !self.0.followed {
            return;
        }
        let mut any = false;
        let mut seen = self.lock();
        for uuid in uuids {
            any = true;
            seen.entry(uuid).or_insert(Seen::Perhaps);
        }
        drop(seen);
        if any {
            self.0.looker.ring();
        }
    }

    pub(super) fn of(&self, uuid: &VmUuid) -> VmJob {
        match self.lock().get(uuid) {
            Some(Seen::Runs(job) | Seen::Silent(job, _)) => *job,
            Some(Seen::Perhaps) | None => VmJob::Unspecified,
        }
    }

    /// What isn't known of its job, and why.
    pub(super) fn absences(&self, uuid: &VmUuid) -> Vec<Absence> {
        let why = match self.lock().get(uuid) {
            Some(Seen::Silent(_, why)) => why.clone(),
            Some(Seen::Runs(_) | Seen::Perhaps) | None => return Vec::new(),
        };
        let absent =
            |metric: Metric| Absence { metric: metric.into(), instance: String::new(), reason: why.clone() };
        METRICS.map(absent).into()
    }

    fn wanted(&self) -> Vec<VmUuid> {
        self.lock().keys().copied().collect()
    }

    /// Takes in what is known now; gives what was known before.
    fn put(&self, uuid: VmUuid, now: Option<&Seen>) -> Option<Seen> {
        let before = match now {
            Some(seen) => self.lock().insert(uuid, seen.clone()),
            None => self.lock().remove(&uuid),
        };
        let has_job = |seen: Option<&Seen>| seen.is_some_and(|seen| *seen != Seen::Perhaps);
        if before.as_ref() != now && (has_job(before.as_ref()) || has_job(now)) {
            self.0.states.ring();
        }
        before
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VmUuid, Seen>> {
        // Whole after any panic: each change is one step.
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VmJobLane {
    pub(super) fn new(name: &'static str, place: Place, jobs: Jobs, known: Known) -> Self {
        let sessions = Mutex::new(Vec::new());
        let of = place.clone();
        // A session that waits for a hanging monitor is not here: others get another.
        let answer = move |uuid: VmUuid| {
            let free = sessions.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut session = free.unwrap_or_else(|| Session::new(of.clone()));
            let answer = session.call(|connection| connection.job(&uuid));
            sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            answer
        };
        let workers = Workers::new("vm-jobs-libvirt", answer, PATIENCE);
        Self { name, place, workers, jobs, known, whole: Arc::from("") }
    }

    /// Looks at one VM.
    fn look(&mut self, uuid: VmUuid, samples: &mut Vec<ObjectSample>) {
        let mut readings = Readings::new(&self.whole, 16);
        let seen = match self.workers.ask(&uuid.to_string(), uuid) {
            Ok(Ok(Some(params))) => {
                read_params(&params, &mut readings);
                Some(Seen::Runs(operation(&params)))
            }
            // Without libvirt, and without the VM, nothing is known of a job; if it is there again, it is found again.
            Ok(Ok(None) | Err(_)) => None,
            Err(no) => {
                let job = self.jobs.of(&uuid);
                let silent = || Seen::Silent(job, format!("QEMU's monitor: {no}"));
                (job != VmJob::Unspecified).then(silent)
            }
        };
        let runs = matches!(seen, Some(Seen::Runs(_)));
        let ran = matches!(self.jobs.put(uuid, seen.as_ref()), Some(Seen::Runs(_)));
        if runs || ran {
            samples.push(ObjectSample { object: Object::Vm(uuid), readings: readings.into_list() });
        }
    }
}

impl Lane for VmJobLane {
    fn name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> Source {
        Source::QemuMonitor
    }

    fn instance(&self) -> Arc<str> {
        Arc::clone(&self.place.uri)
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.jobs.0.looker)
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let mut samples = Vec::new();
        let wanted = self.jobs.wanted();
        if !wanted.is_empty() {
            let names: Vec<String> = wanted.iter().map(VmUuid::to_string).collect();
            self.workers.begin(|about| names.iter().any(|name| name == about));
        }
        for uuid in wanted {
            if self.known.is_of_another(&uuid, &self.place.uri) {
                self.jobs.put(uuid, None);
            } else {
                self.look(uuid, &mut samples);
            }
        }
        Cycle { taken, found: Found::Nothing, samples, sources: Vec::new(), events: Vec::new() }
    }
}

/// Keys are those of `virDomainGetJobStats`, which has times in milliseconds.
fn read_params(params: &Params, readings: &mut Readings) {
    let source = Source::QemuMonitor;
    let mut gauge = |metric, value: Option<f64>| {
        if let Some(value) = value {
            readings.whole_gauge(source, metric, value);
        }
    };
    for (key, metric) in BYTES {
        gauge(metric, params.number(key).map(|bytes| bytes as f64));
    }
    let seconds = |key| params.number(key).map(|ms| ms as f64 / 1000.0);
    gauge(Metric::VmJobElapsed, seconds("time_elapsed"));
    gauge(Metric::VmJobDowntime, seconds("downtime"));
    gauge(Metric::VmJobTransferRate, params.number("memory_bps").map(|bytes| bytes as f64));
    let pages = params.number("memory_dirty_rate").zip(params.number("memory_page_size"));
    gauge(Metric::VmJobDirtyRate, pages.map(|(pages, bytes)| pages.saturating_mul(bytes) as f64));
    let data = params.number("data_total").zip(params.number("data_remaining"));
    gauge(Metric::VmJobProgress, data.and_then(|(total, remaining)| progress(total, remaining)));
}

fn progress(total: u64, remaining: u64) -> Option<f64> {
    (total > 0).then(|| (1.0 - remaining as f64 / total as f64).clamp(0.0, 1.0) * 100.0)
}

/// Numbers are those of `virDomainJobOperation`.
fn operation(params: &Params) -> VmJob {
    match params.number("operation") {
        Some(1) => VmJob::Start,
        Some(2) => VmJob::Save,
        Some(3) => VmJob::Restore,
        Some(4) => VmJob::MigrationIn,
        Some(5) => VmJob::MigrationOut,
        Some(6) => VmJob::Snapshot,
        Some(7) => VmJob::SnapshotRevert,
        Some(8) => VmJob::Dump,
        Some(9) => VmJob::Backup,
        Some(10) => VmJob::SnapshotDelete,
        _ => VmJob::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::libvirt::params::Param;
    use crate::sample::Value;

    fn read(list: &[(&str, u64)]) -> HashMap<Metric, f64> {
        let list = list.iter().map(|(key, value)| ((*key).to_owned(), Param::Unsigned(*value))).collect();
        let mut readings = Readings::new(&Arc::from(""), 0);
        read_params(&Params::new(list), &mut readings);
        let value = |value| match value {
            Value::Gauge(value) => value,
            Value::Counter(_) => panic!("a job's values are of an instant"),
        };
        readings.into_list().into_iter().map(|reading| (reading.metric, value(reading.value))).collect()
    }

    #[test]
    fn a_migration_has_its_progress_and_how_fast_its_guest_works_against_it() {
        let of = read(&[
            ("time_elapsed", 2500),
            ("data_total", 1000),
            ("data_processed", 900),
            ("data_remaining", 250),
            ("memory_bps", 77),
            ("memory_dirty_rate", 10),
            ("memory_page_size", 4096),
            ("downtime", 300),
        ]);
        assert_eq!(of[&Metric::VmJobElapsed], 2.5);
        assert_eq!(of[&Metric::VmJobProgress], 75.0);
        assert_eq!(of[&Metric::VmJobDirtyRate], 40960.0);
        assert_eq!(of[&Metric::VmJobDowntime], 0.3);
        assert_eq!(of[&Metric::VmJobTransferRate], 77.0);
        assert!(!of.contains_key(&Metric::VmJobMemoryTotal), "what isn't told isn't made up");
    }

    #[test]
    fn a_job_whose_size_is_not_known_yet_has_no_progress() {
        assert!(!read(&[("data_total", 0), ("data_remaining", 0)]).contains_key(&Metric::VmJobProgress));
        assert_eq!(progress(10, 20), Some(0.0), "what remains may be counted after what there is");
    }

    #[test]
    fn a_vm_is_looked_at_until_it_has_no_job_and_a_silent_one_keeps_it() {
        let jobs = Jobs::followed(Bell::default());
        let uuid = VmUuid::from_bytes([7; 16]);
        jobs.look_at([uuid]);
        assert_eq!((jobs.wanted(), jobs.of(&uuid)), (vec![uuid], VmJob::Unspecified));
        jobs.put(uuid, Some(&Seen::Runs(VmJob::Save)));
        jobs.look_at([uuid]);
        assert_eq!((jobs.of(&uuid), jobs.absences(&uuid)), (VmJob::Save, vec![]));
        jobs.put(uuid, Some(&Seen::Silent(VmJob::Save, "no answer".to_owned())));
        assert_eq!((jobs.of(&uuid), jobs.absences(&uuid).len()), (VmJob::Save, METRICS.len()));
        jobs.put(uuid, None);
        assert_eq!((jobs.wanted(), jobs.of(&uuid)), (vec![], VmJob::Unspecified));
    }
}
