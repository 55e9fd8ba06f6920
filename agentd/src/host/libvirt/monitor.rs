//! The lane that has libvirt ask QEMU's monitors: balloon and block devices.
//!
//! A monitor may not answer for as long as it likes, and nothing can call a question back. So VMs are asked in groups as
//! long as all answer; in one that doesn't, and in all others until it does, each VM is asked by itself with a deadline. The
//! worker whose VM did not answer stays with it, with its connection, and another takes its place for the others. The VM
//! is asked again when its old question was answered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{Absence, Metric, Source, SourceState};
use horcrux_transport::clock;

use crate::host::qemu::Known;
use crate::host::readings::Readings;
use crate::host::worker::{NoAnswer, Worker};
use crate::sample::{Cycle, Found, Lane, Object, ObjectSample, SourceReport, Taken};

use super::Missing;
use super::jobs::Jobs;
use super::params::{BALLOON, BLOCK_COUNTERS, BLOCK_METRICS, Params};
use super::raw::{Connection, Record, Wanted};
use super::relay::{GIVE_UP, MOST_GIVEN_UP};
use super::session::{Place, Session, Unavailable, ok};

/// A monitor that works answers in 5 ms, and in 100 ms on a busy host.
const DEADLINE: Duration = Duration::from_secs(2);
/// VMs that are asked together: on a busy host they answer within the deadline.
const TOGETHER: usize = 16;
/// Each hanging monitor holds one of libvirtd's workers, of which it has 20 as it comes.
const MOST_HANGING: usize = 8;
/// What a guest's driver said longer ago than this is no longer so.
const DRIVER_SILENT: Duration = Duration::from_secs(300);

/// Reads what QEMU's monitor tells.
#[derive(Debug)]
pub struct VmMonitorLane {
    name: &'static str,
    place: Place,
    idle: Vec<Monitor>,
    /// VMs of which something is known.
    read: HashSet<VmUuid>,
    hanging: HashMap<VmUuid, Monitor>,
    /// Of a group in which one hangs.
    group: Option<Monitor>,
    /// Those whom libvirtd itself keeps waiting, the one asked last at the end.
    waiting: Vec<Monitor>,
    missing: Missing,
    jobs: Jobs,
    known: Known,
    whole: Arc<str>,
}

type Monitor = Worker<Question, Answer>;

#[derive(Debug)]
enum Question {
    /// Which domains run.
    Running,
    One(VmUuid),
    /// One call for all of them: each call costs libvirtd a tenth of what asking a monitor does.
    Some(Vec<VmUuid>),
}

#[derive(Debug)]
enum Answer {
    Running(Vec<(VmUuid, String)>),
    One(Option<Record>),
    Some(Vec<Record>),
    None(Unavailable),
}

impl VmMonitorLane {
    pub(super) fn new(
        name: &'static str,
        place: Place,
        (missing, jobs): (Missing, Jobs),
        known: Known,
    ) -> Self {
        Self {
            name,
            place,
            idle: Vec::new(),
            read: HashSet::new(),
            hanging: HashMap::new(),
            group: None,
            waiting: Vec::new(),
            missing,
            jobs,
            known,
            whole: Arc::from(""),
        }
    }

    /// Asks with a worker that is free. One that did not answer is given back.
    fn ask(&mut self, question: Question) -> Result<Answer, (Unavailable, Option<Monitor>)> {
        let mut worker = match self.idle.pop() {
            Some(worker) => worker,
            None => {
                let mut session = Session::new(self.place.clone());
                let started = Worker::start("vm-monitor", move |question| answer(&mut session, &question));
                started.map_err(|e| (Unavailable::Failing(format!("start a thread: {e}")), None))?
            }
        };
        match worker.ask(question, DEADLINE) {
            Ok(answer) => {
                self.idle.push(worker);
                Ok(answer)
            }
            Err(no) => Err((Unavailable::Stuck(no.to_string()), Some(worker))),
        }
    }

    /// Workers whose VM answered after all are free again.
    fn gather(&mut self) {
        let is_back = |worker: &mut Monitor| !matches!(worker.is_free(), Err(NoAnswer::Late(_)));
        let mut free: Vec<Monitor> =
            self.hanging.extract_if(|_, worker| is_back(worker)).map(|(_, worker)| worker).collect();
        free.extend(self.group.take_if(is_back));
        free.extend(self.waiting.extract_if(.., is_back));
        // One whose thread ended can't be asked any more.
        free.retain_mut(|worker| worker.is_free().is_ok());
        self.idle.extend(free);
    }

    fn running(&mut self) -> Result<Vec<(VmUuid, String)>, Unavailable> {
        // Another is sent where the last seems to wait for ever: each is a thread with a connection.
        if let Some(Err(no)) = self.waiting.last_mut().map(Worker::is_free)
            && let NoAnswer::Late(since) = no
            && (since < GIVE_UP || self.waiting.len() > MOST_GIVEN_UP)
        {
            return Err(Unavailable::Stuck(format!("libvirtd: {no}")));
        }
        match self.ask(Question::Running) {
            Ok(Answer::Running(running)) => Ok(running),
            Ok(Answer::None(why)) => Err(why),
            Ok(Answer::One(_) | Answer::Some(_)) => {
                Err(Unavailable::Failing("an answer to another question".to_owned()))
            }
            // libvirtd itself hangs.
            Err((why, worker)) => {
                self.waiting.extend(worker);
                Err(why)
            }
        }
    }

    /// What those tell who are asked together, none of whom is known to hang. Who isn't in it is to be asked by itself.
    fn together(&mut self, running: &[(VmUuid, String)]) -> HashMap<VmUuid, Record> {
        let mut told = HashMap::new();
        let asked: Vec<VmUuid> =
            running.iter().map(|(uuid, _)| *uuid).filter(|uuid| !self.hanging.contains_key(uuid)).collect();
        for group in asked.chunks(TOGETHER) {
            // One of an earlier group hangs: not more than one of libvirtd's workers for that.
            if self.group.is_some() {
                break;
            }
            match self.ask(Question::Some(group.to_vec())) {
                Ok(Answer::Some(records)) => {
                    told.extend(records.into_iter().map(|record| (record.uuid, record)));
                }
                // Asked by itself, each says why.
                Ok(Answer::Running(_) | Answer::One(_) | Answer::None(_)) => {}
                Err((_, worker)) => self.group = worker,
            }
        }
        told
    }

    /// Reads one VM, or says why it can't be.
    fn one(&mut self, uuid: VmUuid, readings: &mut Readings) -> Result<Vec<Absence>, String> {
        if let Some(worker) = self.hanging.get_mut(&uuid) {
            return Err(match worker.is_free() {
                Err(no) => format!("QEMU's monitor: {no}"),
                Ok(()) => "QEMU's monitor answered again".to_owned(),
            });
        }
        if self.hanging.len() >= MOST_HANGING {
            return Err(format!("not asked, because {MOST_HANGING} QEMU monitors hang"));
        }
        match self.ask(Question::One(uuid)) {
            Ok(Answer::One(Some(record))) => Ok(read_params(&record.params, readings)),
            Ok(Answer::One(None)) => Err("libvirt told nothing of it".to_owned()),
            Ok(Answer::Running(_) | Answer::Some(_)) => Err("an answer to another question".to_owned()),
            Ok(Answer::None(why)) => Err(format!("libvirt: {}", why.why())),
            Err((why, worker)) => {
                if let Some(worker) = worker {
                    self.hanging.insert(uuid, worker);
                }
                Err(format!("QEMU's monitor: {}", why.why()))
            }
        }
    }
}

fn read_params(params: &Params, readings: &mut Readings) -> Vec<Absence> {
    let mut absences = Vec::new();
    let silent = silent_driver(params, clock::unix_ms());
    for (at, (key, metric, counter, unit)) in BALLOON.into_iter().enumerate() {
        let is_the_driver_s = at > 0;
        match (params.number(key), silent) {
            (Some(value), reason) if reason.is_none() || !is_the_driver_s => {
                let value = value.saturating_mul(unit);
                if counter {
                    readings.whole_counter(Source::QemuMonitor, metric, value);
                } else {
                    readings.whole_gauge(Source::QemuMonitor, metric, value as f64);
                }
            }
            (_, reason) => absences.push(absent(
                metric,
                reason
                    .unwrap_or("the guest's balloon driver doesn't tell it, or isn't asked (<stats period>)"),
            )),
        }
    }
    let mut sums = [None; BLOCK_COUNTERS];
    for device in params.blocks() {
        let instance: Arc<str> = Arc::from(device.name.as_str());
        for (at, (metric, value)) in BLOCK_METRICS.into_iter().zip(device.values).enumerate() {
            let Some(value) = value else { continue };
            match sums.get_mut(at) {
                Some(sum) => {
                    readings.counter(Source::QemuMonitor, metric, &instance, value);
                    *sum = Some(sum.unwrap_or(0_u64).wrapping_add(value));
                }
                None => readings.gauge(Source::QemuMonitor, metric, &instance, value as f64),
            }
        }
    }
    for (metric, sum) in BLOCK_METRICS.into_iter().zip(sums) {
        if let Some(sum) = sum {
            readings.whole_counter(Source::QemuMonitor, metric, sum);
        }
    }
    absences
}

/// Why the balloon driver's own figures are not to be taken.
fn silent_driver(params: &Params, now_unix_ms: i64) -> Option<&'static str> {
    let told = i64::try_from(params.number("balloon.last-update")?).ok()?;
    if told == 0 {
        return Some("the guest's balloon driver has told nothing yet");
    }
    let silent_ms = now_unix_ms.saturating_sub(told.saturating_mul(1000));
    let limit_ms = i64::try_from(DRIVER_SILENT.as_millis()).unwrap_or(i64::MAX);
    (silent_ms > limit_ms).then_some("the guest's balloon driver has told nothing for 5 minutes")
}

fn absent(metric: Metric, reason: &str) -> Absence {
    Absence { metric: metric.into(), instance: String::new(), reason: reason.to_owned() }
}

/// All that this lane reads is missing.
pub(super) fn nothing_read(reason: &str) -> Vec<Absence> {
    let all = BALLOON.iter().map(|(_, metric, ..)| *metric).chain(BLOCK_METRICS);
    all.map(|metric| absent(metric, reason)).collect()
}

/// On a worker's thread.
fn answer(session: &mut Session, question: &Question) -> Answer {
    let answered = match question {
        Question::Running => session.call(Connection::active).map(Answer::Running),
        Question::Some(uuids) => {
            session.call(|connection| connection.some(uuids, Wanted::Monitor)).map(Answer::Some)
        }
        Question::One(uuid) => {
            session.call(|connection| connection.one(uuid, Wanted::Monitor)).map(Answer::One)
        }
    };
    answered.unwrap_or_else(Answer::None)
}

impl Lane for VmMonitorLane {
    fn name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> Source {
        Source::QemuMonitor
    }

    fn instance(&self) -> Arc<str> {
        Arc::clone(&self.place.uri)
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        self.gather();
        let (mut samples, mut missing, mut hanging) = (Vec::new(), HashMap::new(), Vec::new());
        let mut answering = Vec::new();
        let report = match self.running() {
            Ok(mut running) => {
                running.retain(|(uuid, _)| !self.known.is_of_another(uuid, &self.place.uri));
                let now: HashSet<VmUuid> = running.iter().map(|(uuid, _)| *uuid).collect();
                for ended in self.read.difference(&now) {
                    samples.push(ObjectSample { object: Object::Vm(*ended), readings: Vec::new() });
                }
                self.read = now;
                let mut together = self.together(&running);
                for (uuid, name) in running {
                    let mut readings = Readings::new(&self.whole, 32);
                    let read = match together.remove(&uuid) {
                        Some(record) => Ok(read_params(&record.params, &mut readings)),
                        None => self.one(uuid, &mut readings),
                    };
                    let absences = match read {
                        Ok(absences) => {
                            answering.push(uuid);
                            absences
                        }
                        Err(why) => {
                            hanging.push(format!("{name}: {why}"));
                            nothing_read(&why)
                        }
                    };
                    missing.insert(uuid, absences);
                    samples.push(ObjectSample { object: Object::Vm(uuid), readings: readings.into_list() });
                }
                if hanging.is_empty() {
                    ok(Source::QemuMonitor, &self.place)
                } else {
                    let detail = hanging.join("; ");
                    let instance = Arc::clone(&self.place.uri);
                    SourceReport {
                        source: Source::QemuMonitor,
                        instance,
                        state: SourceState::Failing,
                        detail,
                    }
                }
            }
            Err(why) => {
                let reason = format!("libvirt: {}", why.why());
                let known = self.missing.uuids().into_iter();
                missing.extend(known.map(|uuid| (uuid, nothing_read(&reason))));
                why.report(Source::QemuMonitor, &self.place)
            }
        };
        // Only those whose monitor answers: each that hangs holds one of libvirtd's workers already.
        self.jobs.look_at(answering);
        self.missing.replace(missing);
        Cycle { taken, found: Found::Nothing, samples, sources: vec![report], events: Vec::new() }
    }
}
