//! The lane that asks what runs inside VMs, through their guest agents.
//!
//! libvirt asks a guest agent for those only who may change the VM: on a read-only connection it refuses. So this lane runs
//! where the settings say so, and has connections of its own that no other lane uses. Without it, that is the reason that is
//! told. An agent that hangs keeps its VM's worker, and costs the others nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{GuestFacts, GuestFilesystem, GuestInterface, Source, VmState};

use crate::host::qemu::Known;
use crate::host::workers::{Patience, Workers};
use crate::sample::{Cycle, Found, Lane, SourceReport, Taken};

use super::params::Params;
use super::raw::{GuestInfo, Wanted};
use super::session::{Place, Session, Unavailable, ok};

/// How often a guest is asked.
pub const EVERY: Duration = Duration::from_secs(30);
/// An agent that works answers in a few milliseconds; one in a guest that swaps, in a second or two.
const PATIENCE: Patience = Patience { answer: Duration::from_secs(3), round: Duration::from_secs(20) };
/// Users, interfaces, filesystems or addresses that a guest is believed to have. It may say anything.
const MOST: u64 = 64;
const LONGEST: usize = 256;
/// Why nothing is known where this lane doesn't run.
const NOT_ASKED: &str = "not asked: guest agents answer over a read-write connection to libvirt only, which the agent opens \
                         where its settings have ask_guest_agents = true";

/// What guests say of themselves, for the lane that lists the VMs.
#[derive(Clone, Debug)]
pub(super) struct Guests(Option<Told>);

type Told = Arc<Mutex<HashMap<VmUuid, Result<GuestFacts, String>>>>;

/// Asks guest agents.
#[derive(Debug)]
pub struct GuestLane {
    name: &'static str,
    place: Place,
    workers: Workers<Question, Answer>,
    known: Known,
    told: Told,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Running,
    One(VmUuid, GuestInfo),
}

#[derive(Debug)]
enum Answer {
    Running(Vec<VmUuid>),
    One(Params),
    None(Unavailable),
}

/// What is asked for, each with a deadline of its own, and what it is called.
const ASKED: [(GuestInfo, &str); 6] = [
    (GuestInfo::Os, "operating system"),
    (GuestInfo::Hostname, "host name"),
    (GuestInfo::Users, "users"),
    (GuestInfo::Interfaces, "addresses"),
    (GuestInfo::Filesystems, "filesystems"),
    (GuestInfo::Load, "load"),
];

impl Guests {
    /// Where no lane asks.
    pub(super) fn not_asked() -> Self {
        Self(None)
    }

    /// What a guest says, or why that isn't known.
    pub(super) fn of(&self, uuid: &VmUuid) -> Result<GuestFacts, String> {
        let Some(told) = &self.0 else { return Err(NOT_ASKED.to_owned()) };
        lock(told).get(uuid).cloned().unwrap_or_else(|| Err("not asked yet".to_owned()))
    }
}

impl GuestLane {
    pub(super) fn new(name: &'static str, place: Place, known: Known) -> (Self, Guests) {
        let sessions = Mutex::new(Vec::new());
        let of = place.clone();
        // A session that waits for a hanging agent is not here: others get another.
        let answer = move |question| {
            let free = sessions.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut session = free.unwrap_or_else(|| Session::that_may_change(of.clone()));
            let answer = answer(&mut session, question);
            sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            answer
        };
        let workers = Workers::new("guest-agents", answer, PATIENCE);
        let told = Told::default();
        let guests = Guests(Some(Arc::clone(&told)));
        (Self { name, place, workers, known, told }, guests)
    }

    fn running(&mut self) -> Result<Vec<VmUuid>, Unavailable> {
        match self.workers.ask("", Question::Running) {
            Ok(Answer::Running(all)) => {
                let own = |uuid: &VmUuid| !self.known.is_of_another(uuid, &self.place.uri);
                Ok(all.into_iter().filter(own).collect())
            }
            Ok(Answer::None(why)) => Err(why),
            Ok(Answer::One(_)) => Err(Unavailable::Failing("an answer to another question".to_owned())),
            Err(no) => Err(Unavailable::Stuck(format!("libvirtd: {no}"))),
        }
    }

    /// What one guest says. Without any answer: why.
    fn guest(&mut self, uuid: VmUuid) -> Result<GuestFacts, String> {
        let mut facts = GuestFacts::default();
        let mut answered = false;
        let mut unknown: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let about = uuid.to_string();
        for (info, what) in ASKED {
            let why = match self.workers.ask(&about, Question::One(uuid, info)) {
                Ok(Answer::One(params)) => {
                    answered = true;
                    take_in(&params, info, &mut facts);
                    continue;
                }
                Ok(Answer::None(why)) => why.why().to_owned(),
                Ok(Answer::Running(_)) => "an answer to another question".to_owned(),
                Err(no) => no.to_string(),
            };
            unknown.entry(why).or_default().push(what);
        }
        if !answered {
            return Err(unknown.into_keys().collect::<Vec<_>>().join("; "));
        }
        facts.unknown =
            unknown.into_iter().map(|(why, what)| format!("{}: {why}", what.join(", "))).collect();
        Ok(facts)
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

    fn read(&mut self, taken: Taken) -> Cycle {
        self.workers.begin(|_| true);
        let report: SourceReport = match self.running() {
            Ok(running) => {
                let all: HashMap<_, _> = running.into_iter().map(|uuid| (uuid, self.guest(uuid))).collect();
                let names: Vec<String> = all.keys().map(VmUuid::to_string).collect();
                // Of VMs that are gone nobody waits for an answer.
                self.workers.begin(|about| about.is_empty() || names.iter().any(|name| name == about));
                *lock(&self.told) = all;
                ok(Source::GuestAgent, &self.place)
            }
            Err(why) => {
                let reason = format!("libvirt: {}", why.why());
                for told in lock(&self.told).values_mut() {
                    *told = Err(reason.clone());
                }
                why.report(Source::GuestAgent, &self.place)
            }
        };
        let (samples, events) = (Vec::new(), Vec::new());
        Cycle { taken, found: Found::Nothing, samples, sources: vec![report], events }
    }
}

fn lock(told: &Told) -> MutexGuard<'_, HashMap<VmUuid, Result<GuestFacts, String>>> {
    // A map is whole after any panic: it is changed in one step.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On a worker's thread.
fn answer(session: &mut Session, question: Question) -> Answer {
    let answered = match question {
        Question::Running => session.call(|connection| connection.all(Wanted::Known)).map(|all| {
            let runs = |state| matches!(state, VmState::Running | VmState::Blocked);
            Answer::Running(all.iter().filter(|r| runs(r.params.state())).map(|r| r.uuid).collect())
        }),
        Question::One(uuid, info) => {
            session.call(|connection| connection.guest_info(&uuid, info)).map(Answer::One)
        }
    };
    answered.unwrap_or_else(Answer::None)
}

/// Keys are those of `virDomainGetGuestInfo`.
fn take_in(params: &Params, info: GuestInfo, facts: &mut GuestFacts) {
    let text = |key: &str| params.text(key).map(|text| text.chars().take(LONGEST).collect::<String>());
    let count = |key: &str| params.number(key).unwrap_or(0).min(MOST);
    match info {
        GuestInfo::Os => {
            facts.os = text("os.pretty-name").or_else(|| text("os.name"));
            facts.kernel = text("os.kernel-release");
        }
        GuestInfo::Hostname => facts.hostname = text("hostname"),
        GuestInfo::Users => {
            facts.users =
                (0..count("user.count")).filter_map(|at| text(&format!("user.{at}.name"))).collect();
        }
        GuestInfo::Interfaces => {
            let interface = |at: u64| GuestInterface {
                name: text(&format!("if.{at}.name")).unwrap_or_default(),
                mac: text(&format!("if.{at}.hwaddr")),
                addresses: (0..count(&format!("if.{at}.addr.count")))
                    .filter_map(|of| {
                        let address = text(&format!("if.{at}.addr.{of}.addr"))?;
                        let prefix = params.number(&format!("if.{at}.addr.{of}.prefix"));
                        Some(prefix.map_or_else(|| address.clone(), |prefix| format!("{address}/{prefix}")))
                    })
                    .collect(),
            };
            facts.interfaces = (0..count("if.count")).map(interface).collect();
        }
        GuestInfo::Filesystems => {
            let filesystem = |at: u64| GuestFilesystem {
                mountpoint: text(&format!("fs.{at}.mountpoint")).unwrap_or_default(),
                kind: text(&format!("fs.{at}.fstype")).unwrap_or_default(),
                size_bytes: params.number(&format!("fs.{at}.total-bytes")),
                used_bytes: params.number(&format!("fs.{at}.used-bytes")),
            };
            facts.filesystems = (0..count("fs.count")).map(filesystem).collect();
        }
        GuestInfo::Load => {
            facts.load_1m = params.fraction("load.1m");
            facts.load_5m = params.fraction("load.5m");
            facts.load_15m = params.fraction("load.15m");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::libvirt::params::Param;

    #[test]
    fn what_an_agent_says_is_bounded_and_taken_for_what_it_is() {
        let text = |key: &str, value: &str| (key.to_owned(), Param::Text(value.to_owned()));
        let number = |key: &str, value| (key.to_owned(), Param::Unsigned(value));
        let params = Params::new(vec![
            text("os.pretty-name", &"x".repeat(10_000)),
            number("user.count", u64::MAX),
            text("user.0.name", "ada"),
            number("if.count", 1),
            text("if.0.name", "eth0"),
            number("if.0.addr.count", 1),
            text("if.0.addr.0.addr", "192.0.2.7"),
            number("if.0.addr.0.prefix", 24),
            number("fs.count", 1),
            text("fs.0.mountpoint", "/"),
            number("fs.0.used-bytes", 7),
            ("load.1m".to_owned(), Param::Fraction(0.5)),
        ]);
        let mut facts = GuestFacts::default();
        for (info, _) in ASKED {
            take_in(&params, info, &mut facts);
        }
        assert_eq!(facts.os.map(|os| os.len()), Some(LONGEST));
        assert_eq!(facts.users, ["ada"]);
        assert_eq!(facts.interfaces[0].addresses, ["192.0.2.7/24"]);
        assert_eq!((facts.filesystems[0].used_bytes, facts.filesystems[0].size_bytes), (Some(7), None));
        assert_eq!((facts.load_1m, facts.load_5m), (Some(0.5), None));
    }

    #[test]
    fn a_guest_that_is_not_asked_and_one_that_does_not_answer_have_reasons() {
        let place = Place::new("test:///default", Path::new("/"));
        let (mut lane, guests) = GuestLane::new("guest-agents", place, Known::default());
        let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f".parse().unwrap();
        assert_eq!(guests.of(&uuid).unwrap_err(), "not asked yet");
        lane.read(crate::collect::now());
        // libvirt's test driver has no guests.
        assert!(guests.of(&uuid).unwrap_err().contains("guest"), "{:?}", guests.of(&uuid));
        assert!(Guests::not_asked().of(&uuid).unwrap_err().contains("ask_guest_agents"));
    }
}
