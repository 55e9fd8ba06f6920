//! Something that may block for as long as it likes, on a thread of its own, asked with a deadline.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use horcrux_transport::clock;

/// Asked one thing at a time.
pub(crate) struct Worker<Q, A> {
    questions: SyncSender<Q>,
    answers: Receiver<A>,
    /// Since when it owes an answer that came too late for its question.
    owes_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Not within the deadline; asked so long ago.
    Late(Duration),
    /// It ended, which it does only by a panic.
    Ended,
}

impl<Q, A> fmt::Debug for Worker<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("owes_since", &self.owes_since).finish_non_exhaustive()
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(since) => write!(f, "no answer for {} s", since.as_secs()),
            Self::Ended => f.write_str("its thread ended"),
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// Starts the thread; it ends when this is dropped and the question under way is answered.
    pub(crate) fn start(
        name: &str,
        mut answer: impl FnMut(Q) -> A + Send + 'static,
    ) -> std::io::Result<Self> {
        // One of each: nothing is asked before the last answer was taken.
        let (questions, asked) = sync_channel::<Q>(1);
        let (reply, answers) = sync_channel(1);
        let serve = move || {
            while let Ok(question) = asked.recv() {
                if reply.send(answer(question)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(Self { questions, answers, owes_since: None })
    }

    /// Whether it can be asked. An answer that came too late is thrown away here: it is of another time.
    pub(crate) fn is_free(&mut self) -> Result<(), NoAnswer> {
        let Some(since) = self.owes_since else { return Ok(()) };
        match self.answers.try_recv() {
            Ok(_) => {
                self.owes_since = None;
                Ok(())
            }
            Err(TryRecvError::Empty) => Err(NoAnswer::Late(clock::monotonic() - since)),
            Err(TryRecvError::Disconnected) => Err(NoAnswer::Ended),
        }
    }

    pub(crate) fn ask(&mut self, question: Q, deadline: Duration) -> Result<A, NoAnswer> {
        self.is_free()?;
        self.questions.try_send(question).map_err(|_| NoAnswer::Ended)?;
        let asked = clock::monotonic();
        match self.answers.recv_timeout(deadline) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.owes_since = Some(asked);
                Err(NoAnswer::Late(deadline))
            }
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_question_s() {
        let (open, gate) = sync_channel::<()>(1);
        let mut first = true;
        let mut worker = Worker::start("test", move |question: u32| {
            if std::mem::take(&mut first) {
                gate.recv().unwrap();
            }
            question
        })
        .unwrap();
        let short = Duration::from_millis(10);
        assert!(matches!(worker.ask(1, short), Err(NoAnswer::Late(_))));
        assert!(matches!(worker.ask(2, short), Err(NoAnswer::Late(_))), "it still owes the first");
        open.send(()).unwrap();
        let until = clock::monotonic() + Duration::from_secs(10);
        while worker.is_free().is_err() {
            assert!(clock::monotonic() < until, "the first answer never came");
            thread::yield_now();
        }
        assert_eq!(worker.ask(3, Duration::from_secs(10)), Ok(3));
    }

    #[test]
    fn a_worker_that_panicked_is_said_to_have_ended() {
        let mut worker = Worker::start("test", |(): ()| panic!("as a test")).unwrap();
        assert_eq!(worker.ask((), Duration::from_secs(5)), Err::<(), _>(NoAnswer::Ended));
    }
}
