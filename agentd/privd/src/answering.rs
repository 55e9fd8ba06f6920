//! One question on one connection, and its answer.
//!
//! Whoever asks in a loop must not keep the runtimes busy: there is one look at a time, with a pause before the next, and
//! all who asked before it began get what it gave.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use horcrux_local::clock;
use horcrux_privd::packets::{MAX_QUESTION, PacketError, Packets};
use horcrux_privd::v1::{Answer, ContainersAnswer, Question, answer, question};

use crate::orders::Orders;
use crate::runtimes::Host;

/// From connecting to the question, and for the answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Between two looks. Nobody sees a container sooner for a shorter one.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Answering {
    host: Host,
    orders: Orders,
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    began: Instant,
    ended: Instant,
    seen: ContainersAnswer,
}

impl Answering {
    pub(crate) fn new(host: Host, orders: Orders) -> Self {
        Self { host, orders, last: Mutex::new(None) }
    }

    pub(crate) fn serve(&self, connection: OwnedFd) {
        let mut connection = Packets::new(connection, clock::now() + EXCHANGE);
        if let Err(error) = self.answer(&mut connection) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "connection dropped");
        }
    }

    fn answer(&self, connection: &mut Packets) -> Result<(), PacketError> {
        let asked: Question = connection.read(MAX_QUESTION)?;
        let answer = match asked.question {
            Some(question::Question::Containers(_)) => answer::Answer::Containers(self.look(clock::now())),
            Some(question::Question::Policy(_)) => answer::Answer::Policy(self.orders.policy()),
            Some(question::Question::Order(order)) => return self.orders.serve(&order, connection),
            // Of an agent that is newer.
            None => answer::Answer::Refused("this horcrux-privd doesn't know the question".to_owned()),
        };
        connection.set_deadline(clock::now() + EXCHANGE);
        connection.write(&Answer { answer: Some(answer) })
    }

    /// What is seen at some time after `asked`.
    fn look(&self, asked: Instant) -> ContainersAnswer {
        let mut last: MutexGuard<'_, Option<Look>> = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = last.as_ref() {
            if look.began >= asked {
                return look.seen.clone();
            }
            pause(look.ended + PAUSE);
        }
        let began = clock::now();
        let seen = self.host.containers();
        *last = Some(Look { began, ended: clock::now(), seen: seen.clone() });
        seen
    }
}

fn pause(until: Instant) {
    loop {
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use horcrux_privd::packets::MAX_MESSAGE;
    use horcrux_privd::v1::{ContainersQuestion, Mode, PolicyQuestion};
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
    use rustix::process::geteuid;

    use super::*;

    fn answering(root: &Path) -> Answering {
        Answering::new(Host::new(root), Orders::new(root, geteuid()).unwrap())
    }

    fn pair() -> (Packets, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Packets::new(ours, clock::now() + EXCHANGE), theirs)
    }

    fn asked(answering: &Answering, question: Option<question::Question>) -> Answer {
        let (ours, theirs) = pair();
        ours.write(&Question { question }).unwrap();
        answering.serve(theirs);
        ours.read(MAX_MESSAGE).unwrap()
    }

    #[test]
    fn a_known_question_is_answered_and_another_refused() {
        let root = tempfile::tempdir().unwrap();
        let answering = answering(root.path());
        let containers = question::Question::Containers(ContainersQuestion {});
        let Some(answer::Answer::Containers(answer)) = asked(&answering, Some(containers)).answer else {
            panic!()
        };
        assert!(!answer.runtimes.is_empty());
        let policy = question::Question::Policy(PolicyQuestion {});
        let Some(answer::Answer::Policy(answer)) = asked(&answering, Some(policy)).answer else { panic!() };
        assert_eq!(answer.mode(), Mode::Observe);
        assert!(matches!(asked(&answering, None).answer, Some(answer::Answer::Refused(_))));
    }

    #[test]
    fn there_is_a_pause_between_looks_and_none_for_who_asked_before_one() {
        let root = tempfile::tempdir().unwrap();
        let answering = answering(root.path());
        let before = clock::now();
        answering.look(before);
        answering.look(before);
        assert!(before.elapsed() < PAUSE);
        answering.look(clock::now());
        assert!(before.elapsed() >= PAUSE);
    }

    #[test]
    fn what_is_no_question_ends_the_connection() {
        let root = tempfile::tempdir().unwrap();
        let answering = answering(root.path());
        let (ours, theirs) = pair();
        send(&ours, &[255; 4], SendFlags::NOSIGNAL).unwrap();
        answering.serve(theirs);
        assert!(matches!(ours.read::<Answer>(MAX_MESSAGE), Err(PacketError::Closed)));
    }
}
