//! The lane that asks what runs inside VMs, through their guest agents.
//!
//! libvirt asks a guest agent for those only who may change the VM: on a read-only connection it refuses. So this lane runs
//! where the settings say so, and has connections of its own that no other lane uses. Without it, that is the reason that is
//! told. An agent that hangs keeps its VM's worker, and costs the others nothing.
//!
//! ```text
//!  a tick ─────────────────────────────────► all VMs that run are asked ──┐
//!  libvirt told: an agent came or went,      those are asked ─────────────┴─► Guests ──rung──► VmLane, which lists the VMs
//!  a VM started or ended ──► Guests ──rung──►
//! ```

mod said;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_libvirt::virt::error::{Error, ErrorNumber};
use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{GuestFacts, Source, VmState};

use crate::collect::Bell;
use crate::host::qemu::Known;
use crate::host::worker::Worker;
use crate::host::workers::{Patience, Unanswered, Workers};
use crate::sample::{Cycle, Found, Lane, SourceReport, Taken};

use super::params::Params;
use super::raw::{CallError, GuestInfo, Wanted};
use super::session::{Place, Session, Unavailable, ok};

/// How often a guest is asked.
pub const EVERY: Duration = Duration::from_secs(30);
/// A round that was rung for so long before all are due is one of all.
const NEARLY: Duration = Duration::from_secs(3);
/// An agent that works answers in a few milliseconds; one in a guest that swaps, in a second or two. Each that hangs holds
/// one of libvirtd's workers, of which it has 20 as it comes, and a guest can have its agent hang for as long as it likes.
const PATIENCE: Patience =
    Patience { answer: Duration::from_secs(3), round: Duration::from_secs(20), late: 6 };
/// libvirtd answers for a thousand domains in a tenth of a second.
const LIST_DEADLINE: Duration = Duration::from_secs(3);
/// Why nothing is known where this lane doesn't run.
const NOT_ASKED: &str = "not asked: guest agents answer over a read-write connection to libvirt only, which the agent opens \
                         where its settings have ask_guest_agents = true";

/// What guests say of themselves: for the lane that asks, for the one that lists the VMs, and for the one that hears what
/// happens to them.
#[derive(Clone, Debug)]
pub(super) struct Guests(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    told: Mutex<HashMap<VmUuid, Said>>,
    changed: Mutex<Changed>,
    /// The lane that asks.
    asker: Bell,
    /// The lane that lists the VMs.
    states: Bell,
}

/// To be asked before they are due.
#[derive(Debug, Default)]
struct Changed {
    all: bool,
    these: HashSet<VmUuid>,
}

/// What one guest says, or why that isn't known.
type Said = Result<GuestFacts, String>;

/// Asks guest agents.
#[derive(Debug)]
pub struct GuestLane {
    name: &'static str,
    place: Place,
    lister: Result<Worker<(), Listed>, String>,
    workers: Workers<(VmUuid, GuestInfo), Answer>,
    known: Known,
    shared: Arc<Shared>,
    /// When all were asked last.
    asked_ns: Option<u64>,
}

/// VMs that run.
type Listed = Result<Vec<VmUuid>, Unavailable>;

#[derive(Debug)]
enum Answer {
    Said(Params),
    /// The VM has no agent that would answer another question.
    NoAgent(String),
    None(Unavailable),
}

/// What is asked for, each with a deadline of its own, and what it is called. Filesystems are last: where one of them hangs
/// in the guest, so does its agent.
const ASKED: [(GuestInfo, &str); 6] = [
    (GuestInfo::Os, "operating system"),
    (GuestInfo::Hostname, "host name"),
    (GuestInfo::Users, "users"),
    (GuestInfo::Interfaces, "addresses"),
    (GuestInfo::Load, "load"),
    (GuestInfo::Filesystems, "filesystems"),
];

impl Guests {
    /// Where no lane asks.
    pub(super) fn not_asked() -> Self {
        Self(None)
    }

    /// What a guest says, or why that isn't known.
    pub(super) fn of(&self, uuid: &VmUuid, state: VmState) -> Said {
        let Some(shared) = &self.0 else { return Err(NOT_ASKED.to_owned()) };
        match state {
            VmState::Paused => Err("not asked: the VM is paused".to_owned()),
            VmState::PmSuspended => Err("not asked: the VM is suspended".to_owned()),
            VmState::ShuttingDown => Err("not asked: the VM shuts down".to_owned()),
            VmState::Running
            | VmState::Blocked
            | VmState::ShutOff
            | VmState::Crashed
            | VmState::Unspecified => {
                lock(&shared.told).get(uuid).cloned().unwrap_or_else(|| Err("not asked yet".to_owned()))
            }
        }
    }

    /// Has it asked before it is due, which doesn't wait for anything.
    pub(super) fn look_at(&self, uuid: VmUuid) {
        if let Some(shared) = &self.0 {
            lock(&shared.changed).these.insert(uuid);
            shared.asker.ring();
        }
    }

    /// Has all asked before they are due.
    pub(super) fn look_at_all(&self) {
        if let Some(shared) = &self.0 {
            lock(&shared.changed).all = true;
            shared.asker.ring();
        }
    }
}

impl GuestLane {
    /// `states` is rung when a guest begins or ceases to say something.
    pub(super) fn new(name: &'static str, place: Place, states: Bell, known: Known) -> (Self, Guests) {
        let sessions = Mutex::new(Vec::new());
        let of = place.clone();
        // A session that waits for a hanging agent is not here: others get another.
        let answer = move |question| {
            let free = lock(&sessions).pop();
            let mut session = free.unwrap_or_else(|| Session::that_may_change(of.clone()));
            let answer = answer(&mut session, question);
            lock(&sessions).push(session);
            answer
        };
        let workers = Workers::new("guest-agents", answer, PATIENCE);
        let mut session = Session::that_may_change(place.clone());
        let lister = Worker::start("guests-libvirt", move |()| running(&mut session));
        let lister = lister.map_err(|error| format!("start a thread: {error}"));
        let shared = Arc::new(Shared { states, ..Shared::default() });
        let guests = Guests(Some(Arc::clone(&shared)));
        (Self { name, place, lister, workers, known, shared, asked_ns: None }, guests)
    }

    fn running(&mut self) -> Listed {
        let all = match &mut self.lister {
            Ok(worker) => worker
                .ask((), LIST_DEADLINE)
                .unwrap_or_else(|no| Err(Unavailable::Stuck(format!("libvirtd: {no}")))),
            Err(why) => Err(Unavailable::Failing(why.clone())),
        }?;
        let own = |uuid: &VmUuid| !self.known.is_of_another(uuid, &self.place.uri);
        Ok(all.into_iter().filter(own).collect())
    }

    /// What one guest says. Without any answer: why.
    fn guest(&mut self, uuid: VmUuid, before: Option<&Said>) -> Said {
        let mut facts = GuestFacts::default();
        let mut unknown: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let (mut answered, mut no_agent) = (false, None);
        let about = uuid.to_string();
        for (info, what) in ASKED {
            let why = match &no_agent {
                Some(why) => String::clone(why),
                None => match self.workers.ask(&about, (uuid, info)) {
                    Ok(Answer::Said(params)) => {
                        answered = true;
                        said::take_in(&params, info, &mut facts);
                        continue;
                    }
                    Ok(Answer::None(why)) => why.why().to_owned(),
                    Ok(Answer::NoAgent(why)) => no_agent.insert(why).clone(),
                    // It is the others' fault, and was only just asked.
                    Err(Unanswered::NoTime) if !answered && matches!(before, Some(Ok(_))) => {
                        return before.cloned().unwrap_or_else(|| Err(Unanswered::NoTime.to_string()));
                    }
                    // One agent answers one question at a time.
                    Err(no) => no_agent.insert(format!("its guest agent: {no}")).clone(),
                },
            };
            unknown.entry(why).or_default().push(what);
        }
        if !answered {
            return Err(unknown.into_keys().collect::<Vec<_>>().join("; "));
        }
        facts.unknown.extend(unknown.into_iter().map(|(why, what)| format!("{}: {why}", what.join(", "))));
        Ok(facts)
    }

    /// Asks those whose turn it is, and keeps what the others said.
    fn ask(&mut self, running: Vec<VmUuid>, changed: &HashSet<VmUuid>, all: bool) {
        // A VM that is asked is shown as it was until it has answered.
        let before = lock(&self.shared.told).clone();
        let names: HashSet<String> = running.iter().map(VmUuid::to_string).collect();
        // Of VMs that are gone nobody waits for an answer.
        self.workers.begin(|about| names.contains(about));
        let mut news = false;
        let mut told = HashMap::with_capacity(running.len());
        for uuid in running {
            let was = before.get(&uuid);
            let said = match was {
                Some(was) if !all && !changed.contains(&uuid) => was.clone(),
                was => self.guest(uuid, was),
            };
            news |= was.is_none_or(|was| was.is_ok() != said.is_ok());
            told.insert(uuid, said);
        }
        *lock(&self.shared.told) = told;
        if news {
            self.shared.states.ring();
        }
    }
}

impl Lane for GuestLane {
    fn name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> Source {
        Source::GuestAgent
    }

    fn instance(&self) -> Arc<str> {
        Arc::clone(&self.place.uri)
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.shared.asker)
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let changed = std::mem::take(&mut *lock(&self.shared.changed));
        let since = self.asked_ns.map(|at| Duration::from_nanos(taken.boottime_ns.saturating_sub(at)));
        let all = changed.all || since.is_none_or(|since| since + NEARLY > EVERY);
        let report: SourceReport = match self.running() {
            Ok(running) => {
                if all {
                    self.asked_ns = Some(taken.boottime_ns);
                }
                self.ask(running, &changed.these, all);
                ok(Source::GuestAgent, &self.place)
            }
            Err(why) => {
                self.asked_ns = None;
                let reason = format!("libvirt: {}", why.why());
                for told in lock(&self.shared.told).values_mut() {
                    *told = Err(reason.clone());
                }
                why.report(Source::GuestAgent, &self.place)
            }
        };
        let (samples, events) = (Vec::new(), Vec::new());
        Cycle { taken, found: Found::Nothing, samples, sources: vec![report], events }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after any panic: each change is one step.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On a worker's thread; so is what follows.
fn running(session: &mut Session) -> Listed {
    let all = session.call(|connection| connection.all(Wanted::Known))?;
    let runs = |state| matches!(state, VmState::Running | VmState::Blocked);
    Ok(all.iter().filter(|record| runs(record.params.state())).map(|record| record.uuid).collect())
}

fn answer(session: &mut Session, (uuid, info): (VmUuid, GuestInfo)) -> Answer {
    let answered = session.call(|connection| match connection.guest_info(&uuid, info) {
        Ok(params) => Ok(Answer::Said(params)),
        Err(CallError::Libvirt { doing, error }) => match no_agent(&error) {
            Some(why) => Ok(Answer::NoAgent(why)),
            None => Err(CallError::Libvirt { doing, error }),
        },
        Err(error) => Err(error),
    });
    answered.unwrap_or_else(Answer::None)
}

/// Why the VM has no agent that answers, if that is what libvirt says.
fn no_agent(error: &Error) -> Option<String> {
    if error.code().is(ErrorNumber::ArgumentUnsupported) {
        return Some("the VM has no channel named org.qemu.guest_agent.0, through which its guest agent would be asked".into());
    }
    let silent = error.code().is(ErrorNumber::AgentUnresponsive);
    silent.then(|| format!("{}; does qemu-guest-agent run in the guest?", error.message()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_guest_that_is_not_asked_and_one_that_does_not_answer_have_reasons() {
        let place = Place::new("test:///default", Path::new("/"));
        let (mut lane, guests) = GuestLane::new("guest-agents", place, Bell::default(), Known::default());
        let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f".parse().unwrap();
        let why = |state| guests.of(&uuid, state).unwrap_err();
        assert_eq!(why(VmState::Running), "not asked yet");
        lane.read(crate::collect::now());
        // libvirt's test driver has no guests.
        assert!(why(VmState::Running).contains("guest"), "{}", why(VmState::Running));
        assert_eq!(why(VmState::Paused), "not asked: the VM is paused");
        assert!(Guests::not_asked().of(&uuid, VmState::Paused).unwrap_err().contains("ask_guest_agents"));
    }
}
