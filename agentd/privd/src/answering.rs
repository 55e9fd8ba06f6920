//! One question on one connection, and its answer.
//!
//! Whoever asks in a loop must not keep the runtimes busy: there is one look at a time, with a pause before the next, and
//! all who asked before it began get what it gave.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use horcrux_local::clock;
use horcrux_local::connection::Timed;
use horcrux_privd::frame::{self, FrameError, MAX_QUESTION};
use horcrux_privd::v1::{Answer, ContainersAnswer, Question, answer, question};

use crate::runtimes::Host;

/// From connecting to the question, and for the answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Between two looks. Nobody sees a container sooner for a shorter one.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Answering {
    host: Host,
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    began: Instant,
    ended: Instant,
    seen: ContainersAnswer,
}

impl Answering {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, last: Mutex::new(None) }
    }

    pub(crate) fn serve(&self, connection: OwnedFd) {
        let mut connection = Timed::new(connection, clock::now() + EXCHANGE);
        let asked = match frame::read::<Question>(&mut connection, MAX_QUESTION) {
            Ok(asked) => asked,
            Err(error) => return dropped(&error),
        };
        let answer = match asked.question {
            Some(question::Question::Containers(_)) => answer::Answer::Containers(self.look(clock::now())),
            // Of an agent that is newer.
            Some(question::Question::Order(_) | question::Question::Policy(_)) | None => {
                answer::Answer::Refused("this horcrux-privd doesn't know the question".to_owned())
            }
        };
        connection.set_deadline(clock::now() + EXCHANGE);
        if let Err(error) = frame::write(&mut connection, &Answer { answer: Some(answer) }) {
            dropped(&error);
        }
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

fn dropped(error: &FrameError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "connection dropped");
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use horcrux_privd::frame::MAX_FRAME;
    use horcrux_privd::v1::ContainersQuestion;

    use super::*;

    fn asked(answering: &Answering, question: &Question) -> Answer {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        frame::write(&mut ours, question).unwrap();
        answering.serve(theirs.into());
        frame::read(&mut ours, MAX_FRAME).unwrap()
    }

    #[test]
    fn a_known_question_is_answered_and_another_refused() {
        let root = tempfile::tempdir().unwrap();
        let answering = Answering::new(Host::new(root.path()));
        let containers = Question { question: Some(question::Question::Containers(ContainersQuestion {})) };
        let Some(answer::Answer::Containers(answer)) = asked(&answering, &containers).answer else {
            panic!()
        };
        assert!(!answer.runtimes.is_empty());
        let unknown = asked(&answering, &Question::default());
        assert!(matches!(unknown.answer, Some(answer::Answer::Refused(_))));
    }

    #[test]
    fn there_is_a_pause_between_looks_and_none_for_who_asked_before_one() {
        let root = tempfile::tempdir().unwrap();
        let answering = Answering::new(Host::new(root.path()));
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
        let answering = Answering::new(Host::new(root.path()));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut ours, &[255; 4]).unwrap();
        answering.serve(theirs.into());
        assert!(matches!(frame::read::<Answer>(&mut ours, MAX_FRAME), Err(FrameError::Closed)));
    }
}
