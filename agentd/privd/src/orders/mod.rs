//! Orders: what a controller has signed is carried out, where this node has no objection.
//!
//! Each order goes the same way, and nothing is looked at before what comes before it was found good:
//!
//! ```text
//!   signature ► cluster, node ► time ► known, or its sequence ► hold ► policy ► journal ► act ► journal ► audit ► answer
//!       └──────────── refused ───────────┘         │                └ forbidden ┘  └ accepted
//!                                       answered as before, `repeated`
//! ```
//!
//! A command id that is known is answered as it was the first time, whatever its sequence: a controller that had no answer
//! may ask again, and whoever replays an order has nothing done. Any other has to come after all that its signer's key
//! ordered before. The first answer holds: what the policy forbade is not carried out when the policy has changed.

mod audit;
mod consoles;
pub(crate) mod hand;
mod journal;
mod policy;
mod trusted;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_envelope::v1::SignedEnvelope;
use horcrux_envelope::{ConsoleId, ConsoleOpen, Operation, Order, open};
use horcrux_local::clock;
use horcrux_privd::packets::{PacketError, Packets};
use horcrux_privd::settings::{CONTROLLER, Controller, Mode};
use horcrux_privd::v1::{self, Answer, ConsoleOpened, OrderAnswer, OrderStatus, PolicyAnswer, answer};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Uid;

use self::audit::{Audit, Kind};
use self::consoles::{Consoles, End};
use self::hand::{Hand, HandError};
use self::journal::{Journal, Known, Settled};
use self::policy::{Policy, Vm};
use self::trusted::{Trusted, Untrusted};

/// Below the host's root.
const STATE: &str = "var/lib/horcrux-privd";
const HOLD: &str = "run/horcrux/hold";

/// An order may be so far in the future, by this node's clock.
const AHEAD_MS: i64 = 60_000;
/// For an answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(5);
/// For an order that is being carried out for somebody else: longer than any takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest reason, in characters.
const MOST_REASON: usize = 500;

#[derive(Debug)]
pub(crate) struct Orders {
    files: Trusted,
    consoles: Consoles,
    /// Why none are taken, where the state can't be kept.
    records: Result<Mutex<Records>, String>,
    settled: Condvar,
}

#[derive(Debug)]
struct Records {
    journal: Journal,
    audit: Audit,
    /// Held as long as the program runs.
    _lock: std::fs::File,
}

/// The state is another's.
#[derive(Debug, thiserror::Error)]
#[error("another horcrux-privd has {0}")]
pub(crate) struct InUse(String);

/// What an order is to act with, once it is allowed.
enum Act {
    Open(ConsoleOpen, Result<Hand, HandError>),
    Close(ConsoleId),
}

impl Orders {
    /// `root` is `/`, or a tree that looks like one; its files have to be `owner`'s.
    pub(crate) fn new(root: &Path, owner: Uid) -> Result<Self, InUse> {
        let state = root.join(STATE);
        let records = match Records::open(&state) {
            Ok(records) => Ok(Mutex::new(records)),
            Err(NoRecords::InUse) => return Err(InUse(state.display().to_string())),
            Err(NoRecords::Failed(why)) => {
                tracing::error!(why, "orders are refused");
                Err(why)
            }
        };
        let (files, consoles) = (Trusted::new(root, owner), Consoles::new(root.join(HOLD)));
        Ok(Self { files, consoles, records, settled: Condvar::new() })
    }

    /// What this node lets a controller do, now.
    pub(crate) fn policy(&self) -> PolicyAnswer {
        let policy = Policy::read(&self.files);
        let held = self.consoles.is_held();
        let nothing = match (held, self.records.as_ref().err(), self.controller().err()) {
            (true, _, _) => Some(format!("a hold is in force: /{HOLD} exists")),
            (_, Some(why), _) => Some(why.clone()),
            (_, _, why) => why,
        };
        let (mode, reason) = match nothing {
            // What the file says itself comes first.
            Some(why) if policy.mode > Mode::Observe || held => (Mode::Observe, why),
            Some(_) | None => (policy.mode, policy.reason.unwrap_or_default()),
        };
        let mode = match mode {
            Mode::Observe => v1::Mode::Observe,
            Mode::Console => v1::Mode::Console,
            Mode::Operate => v1::Mode::Operate,
            Mode::Manage => v1::Mode::Manage,
        };
        PolicyAnswer { mode: mode.into(), reason, held }
    }

    /// Answers an order, and stays as long as what it opened is open.
    pub(crate) fn serve(&self, signed: &SignedEnvelope, connection: &mut Packets) -> Result<(), PacketError> {
        let opened = self.controller().and_then(|controller| Ok((opened(signed, &controller)?, controller)));
        let (order, controller) = match opened {
            Ok(opened) => opened,
            Err(why) => {
                self.told(Kind::Often, None, OrderStatus::Refused, &why);
                return answered(connection, OrderStatus::Refused, &why);
            }
        };
        let why = elsewhere(&order, &controller).map(str::to_owned);
        if let Some(why) = why.or_else(|| untimely(&order, clock::unix_ms())) {
            return self.refuse(&order, &why, connection);
        }
        match self.claimed(&order) {
            Ok(Known::New) => self.decide(&order, connection),
            Ok(Known::Settled(Settled { status, reason })) => {
                self.told(Kind::Often, Some(&order), status, "it was repeated, and nothing done");
                let answer =
                    OrderAnswer { status: status.into(), reason, repeated: true, ..OrderAnswer::default() };
                send(connection, answer)
            }
            Ok(Known::Running) => {
                self.refuse(&order, "it is being carried out, and that takes too long", connection)
            }
            Ok(Known::Late(last)) => {
                let why = format!("sequence {} is not beyond {last}, which was here before", order.sequence);
                self.refuse(&order, &why, connection)
            }
            Err(why) => self.refuse(&order, &why, connection),
        }
    }

    fn refuse(&self, order: &Order, why: &str, connection: &mut Packets) -> Result<(), PacketError> {
        self.told(Kind::Often, Some(order), OrderStatus::Refused, why);
        answered(connection, OrderStatus::Refused, why)
    }

    fn controller(&self) -> Result<Controller, String> {
        let text = self.files.read(CONTROLLER).map_err(|why| {
            let by = if matches!(why, Untrusted::Missing) {
                ", which `horcrux-agentd enroll` writes as root"
            } else {
                ""
            };
            format!("this node takes no orders: {CONTROLLER}: {why}{by}")
        })?;
        Controller::parse(&text)
            .map_err(|why| format!("this node takes no orders: {CONTROLLER} is not understood: {why}"))
    }

    /// What is known of it. Waits for one that is being carried out, for a while.
    fn claimed(&self, order: &Order) -> Result<Known, String> {
        let records = self.records()?;
        let mut first = None;
        let waited = self.settled.wait_timeout_while(records, PATIENCE, |records| {
            let known = records.journal.claim(order);
            let is_running = known == Known::Running;
            first = Some(known);
            is_running
        });
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Ok(first.unwrap_or(Known::Running))
    }

    fn decide(&self, order: &Order, connection: &mut Packets) -> Result<(), PacketError> {
        let act = match self.allowed(order) {
            Ok(act) => act,
            Err(why) => {
                let forbidden = self.accept(order).err();
                return self.settle(
                    order,
                    OrderStatus::Forbidden,
                    &forbidden.unwrap_or(why),
                    connection,
                    None,
                );
            }
        };
        // Looking for the VM took its time.
        if let Some(why) = untimely(order, clock::unix_ms()) {
            return self.settle(order, OrderStatus::Refused, &why, connection, None);
        }
        if let Err(why) = self.accept(order) {
            return self.settle(order, OrderStatus::Refused, &why, connection, None);
        }
        if let Err(error) = answered(connection, OrderStatus::Accepted, "") {
            let gone = "the agent went before it was done";
            drop(self.settle(order, OrderStatus::Failed, gone, connection, None));
            return Err(error);
        }
        match act {
            Act::Open(console, hand) => self.open(order, &console, hand, connection),
            Act::Close(console) => {
                // One that isn't open any more is as closed as it should be.
                self.consoles.close(console);
                self.settle(order, OrderStatus::Done, "", connection, None)
            }
        }
    }

    /// Why it is forbidden, or else what it takes to carry it out.
    fn allowed(&self, order: &Order) -> Result<Act, String> {
        if self.consoles.is_held() {
            return Err(format!("a hold is in force on this node: /{HOLD} exists"));
        }
        let policy = Policy::read(&self.files);
        policy.forbids(&order.operation).map_or(Ok(()), Err)?;
        match &order.operation {
            Operation::ConsoleClose(console) => Ok(Act::Close(*console)),
            Operation::ConsoleOpen(console) => {
                let uuid = console.vm.to_string();
                let reached = Hand::reach(&policy.libvirt_uri, console.vm);
                let name = reached.as_ref().ok().map(|(_, name)| name.as_str());
                if let Some(why) = policy.forbids_vm(Vm { uuid: &uuid, name }) {
                    let unnamed = reached
                        .err()
                        .map_or_else(String::new, |error| format!(", and its name is not known: {error}"));
                    return Err(why + &unnamed);
                }
                Ok(Act::Open(console.clone(), reached.map(|(hand, _)| hand)))
            }
        }
    }

    fn open(
        &self,
        order: &Order,
        console: &ConsoleOpen,
        hand: Result<Hand, HandError>,
        connection: &mut Packets,
    ) -> Result<(), PacketError> {
        let failed = |why: String, connection: &mut Packets| {
            self.settle(order, OrderStatus::Failed, &why, connection, None)
        };
        let place = match self.consoles.place(console.console) {
            Ok(place) => place,
            Err(why) => return failed(why.to_string(), connection),
        };
        let opened = hand.and_then(|mut hand| Ok((hand.open(console.kind)?, hand)));
        let (display, hand) = match opened {
            Ok(opened) => opened,
            Err(why) => return failed(why.to_string(), connection),
        };
        match place.is_of(&display) {
            Ok(true) => {}
            Ok(false) => return failed("it was ordered closed meanwhile".to_owned(), connection),
            Err(error) => return failed(format!("keep its descriptor: {error}"), connection),
        }
        self.settle(order, OrderStatus::Done, "", connection, Some((console, &display)))?;
        let end = place.last(connection, &display, console.until_unix_ms).unwrap_or_else(|error| {
            tracing::error!(%error, "a console can't be watched");
            End::Failed
        });
        let (id, actor) = (console.console, order.actor.as_str());
        tracing::info!(console = %id, vm = %console.vm, actor, why = %end, "console closed");
        // The process that guards it ends when it is closed.
        drop(place);
        drop(hand);
        Ok(())
    }

    fn accept(&self, order: &Order) -> Result<(), String> {
        let written = self.records()?.journal.accept(order, clock::unix_ms());
        written.map_err(|error| format!("it can't be recorded: {:#}", anyhow::Error::new(error)))
    }

    /// Records what came of an order that was claimed, and answers.
    fn settle(
        &self,
        order: &Order,
        status: OrderStatus,
        reason: &str,
        connection: &mut Packets,
        opened: Option<(&ConsoleOpen, &OwnedFd)>,
    ) -> Result<(), PacketError> {
        let reason: String = reason.chars().take(MOST_REASON).collect();
        if let Ok(mut records) = self.records() {
            let settled = Settled { status, reason: reason.clone() };
            if let Err(error) = records.journal.settle(order.command, settled) {
                let error = anyhow::Error::new(error);
                tracing::error!("the result of an order can't be recorded: {error:#}");
            }
            records.audit.record(clock::unix_ms(), Kind::Once, Some(order), status, &reason);
        }
        self.settled.notify_all();
        let console_opened = opened.map(|(console, _)| ConsoleOpened {
            console_id: console.console.to_string(),
            rendezvous: console.rendezvous.as_bytes().to_vec(),
        });
        let answer = OrderAnswer { status: status.into(), reason, repeated: false, console_opened };
        match opened {
            Some((_, display)) => {
                connection.set_deadline(clock::now() + EXCHANGE);
                connection
                    .write_with(&Answer { answer: Some(answer::Answer::Order(answer)) }, display.as_fd())
            }
            None => send(connection, answer),
        }
    }

    fn told(&self, kind: Kind, order: Option<&Order>, status: OrderStatus, reason: &str) {
        if let Ok(mut records) = self.records() {
            records.audit.record(clock::unix_ms(), kind, order, status, reason);
        }
    }

    fn records(&self) -> Result<MutexGuard<'_, Records>, String> {
        let records = self.records.as_ref().map_err(Clone::clone)?;
        Ok(records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why there are no records.
enum NoRecords {
    InUse,
    Failed(String),
}

impl Records {
    fn open(state: &Path) -> Result<Self, NoRecords> {
        let failed = |doing: &str, error: io::Error| {
            NoRecords::Failed(format!(
                "orders can't be recorded, so none are taken: {doing} {}: {error}",
                state.display()
            ))
        };
        make_private(state).map_err(|error| failed("make", error))?;
        let lock = std::fs::File::create(state.join("lock")).map_err(|error| failed("lock", error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(NoRecords::InUse),
            Err(errno) => return Err(failed("lock", errno.into())),
        }
        let journal = Journal::open(&state.join("journal"), clock::unix_ms());
        let journal = journal.map_err(|error| {
            NoRecords::Failed(format!(
                "orders can't be recorded, so none are taken: {:#}",
                anyhow::Error::new(error)
            ))
        })?;
        let audit = Audit::open(&state.join("audit")).map_err(|error| failed("write the audit in", error))?;
        Ok(Self { journal, audit, _lock: lock })
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.audit.flush(clock::unix_ms());
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn opened(signed: &SignedEnvelope, controller: &Controller) -> Result<Order, String> {
    let no = |error| format!("it is no order for this node: {:#}", anyhow::Error::new(error));
    open(signed, &controller.keys).map_err(no)
}

/// Why it is not for this node.
fn elsewhere(order: &Order, controller: &Controller) -> Option<&'static str> {
    let cluster = (order.cluster != controller.cluster).then_some("it is of another cluster");
    cluster.or((order.node_id != controller.node_id).then_some("it is for another node"))
}

/// Why it is not for this moment. Two clocks that differ are what is wrong most often, so by how much is told.
fn untimely(order: &Order, now_ms: i64) -> Option<String> {
    let ahead = order.issued_unix_ms.saturating_sub(now_ms);
    if ahead > AHEAD_MS {
        let seconds = ahead / 1000;
        return Some(format!(
            "it was issued {seconds} s in the future: the controller's clock and this node's differ"
        ));
    }
    let past = now_ms.saturating_sub(order.expires_unix_ms);
    (past >= 0).then(|| {
        let (past, age) = (past / 1000, now_ms.saturating_sub(order.issued_unix_ms) / 1000);
        format!("it expired {past} s ago, and was issued {age} s ago by the controller's clock: it was late, or the clocks differ")
    })
}

fn answered(connection: &mut Packets, status: OrderStatus, reason: &str) -> Result<(), PacketError> {
    send(
        connection,
        OrderAnswer { status: status.into(), reason: reason.to_owned(), ..OrderAnswer::default() },
    )
}

fn send(connection: &mut Packets, answer: OrderAnswer) -> Result<(), PacketError> {
    connection.set_deadline(clock::now() + EXCHANGE);
    connection.write(&Answer { answer: Some(answer::Answer::Order(answer)) })
}
