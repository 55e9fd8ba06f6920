//! Many things that may block, asked one after the other with a deadline: one worker asks all that answer, and one that
//! doesn't come back is left to what it was asked about, until it does. So a thread is spent for each thing that hangs,
//! not for each thing that there is.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use horcrux_transport::clock;

use super::worker::{NoAnswer, Worker};

/// How long may be waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one answer.
    pub(super) answer: Duration,
    /// For all of one round, so that many things that begin to hang at once don't add up.
    pub(super) round: Duration,
    /// Threads that hang at once. Beyond that nothing is asked.
    pub(super) late: usize,
}

/// `Q` names what is asked about in itself.
pub(super) struct Workers<Q, A> {
    name: &'static str,
    answer: Arc<dyn Fn(Q) -> A + Send + Sync>,
    patience: Patience,
    round_ends: Instant,
    idle: Option<Worker<Q, A>>,
    late: HashMap<String, Worker<Q, A>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{0}")]
    Worker(NoAnswer),
    #[error("not asked: others took too long")]
    NoTime,
    #[error("not asked: {0} others don't answer")]
    TooManyLate(usize),
    #[error("start a thread: {0}")]
    Start(std::io::Error),
}

impl<Q, A> fmt::Debug for Workers<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("name", &self.name)
            .field("late", &self.late.keys())
            .finish_non_exhaustive()
    }
}

impl<Q: Send + 'static, A: Send + 'static> Workers<Q, A> {
    /// `name` is that of the threads.
    pub(super) fn new(
        name: &'static str,
        answer: impl Fn(Q) -> A + Send + Sync + 'static,
        patience: Patience,
    ) -> Self {
        let round_ends = clock::monotonic() + patience.round;
        Self { name, answer: Arc::new(answer), patience, round_ends, idle: None, late: HashMap::new() }
    }

    /// Begins a round. Who is not in it any more is forgotten; a thread that hangs with it ends when it comes back.
    pub(super) fn begin(&mut self, is_in: impl Fn(&str) -> bool) {
        self.round_ends = clock::monotonic() + self.patience.round;
        self.late.retain(|about, _| is_in(about));
    }

    /// Asks about something. What hung is asked again only when its old question has come back; that answer is thrown
    /// away, because it is of another time.
    pub(super) fn ask(&mut self, about: &str, question: Q) -> Result<A, Unanswered> {
        let mut worker = match self.late.remove(about) {
            Some(mut worker) => match worker.is_free() {
                Ok(()) => worker,
                Err(NoAnswer::Ended) => self.idle()?,
                Err(no) => {
                    self.late.insert(about.to_owned(), worker);
                    return Err(Unanswered::Worker(no));
                }
            },
            None => self.idle()?,
        };
        let left = self.round_ends.saturating_duration_since(clock::monotonic());
        if left.is_zero() {
            self.idle = Some(worker);
            return Err(Unanswered::NoTime);
        }
        match worker.ask(question, self.patience.answer.min(left)) {
            Ok(answer) => {
                self.idle = Some(worker);
                Ok(answer)
            }
            Err(no) => {
                if matches!(no, NoAnswer::Late(_)) {
                    self.late.insert(about.to_owned(), worker);
                }
                Err(Unanswered::Worker(no))
            }
        }
    }

    fn idle(&mut self) -> Result<Worker<Q, A>, Unanswered> {
        if let Some(worker) = self.idle.take() {
            return Ok(worker);
        }
        if self.late.len() >= self.patience.late {
            return Err(Unanswered::TooManyLate(self.late.len()));
        }
        let answer = Arc::clone(&self.answer);
        Worker::start(self.name, move |question| answer(question)).map_err(Unanswered::Start)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    /// Locked by the test while it is to hang; those without a gate answer at once.
    type Question = Option<Arc<Mutex<()>>>;

    fn workers(round: Duration) -> Workers<Question, ()> {
        let pass = |gate: Question| drop(gate.as_ref().map(|gate| gate.lock()));
        Workers::new("test", pass, Patience { answer: Duration::from_millis(20), round, late: 64 })
    }

    #[test]
    fn one_that_hangs_costs_itself_and_is_asked_again_when_its_question_came_back() {
        let mut workers = workers(Duration::from_secs(60));
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        for _ in 0..3 {
            let hung = workers.ask("hung", Some(Arc::clone(&gate)));
            assert!(matches!(hung, Err(Unanswered::Worker(NoAnswer::Late(_)))));
            workers.patience.answer = Duration::from_secs(10);
            workers.ask("well", None).unwrap();
        }
        assert_eq!(workers.late.len(), 1, "one thread hangs, however often it is asked");
        drop(closed);
        let until = clock::monotonic() + Duration::from_secs(10);
        while workers.ask("hung", Some(Arc::clone(&gate))).is_err() {
            assert!(clock::monotonic() < until, "it never came back");
            thread::yield_now();
        }
        assert_eq!(workers.late.len(), 0);
    }

    #[test]
    fn many_that_hang_at_once_take_no_longer_than_a_round() {
        let mut workers = workers(Duration::from_millis(50));
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let began = clock::monotonic();
        workers.begin(|_| true);
        let errors: Vec<String> = (0..500)
            .map(|n| workers.ask(&n.to_string(), Some(Arc::clone(&gate))).unwrap_err().to_string())
            .collect();
        assert!(errors[499].contains("others"), "{}", errors[499]);
        assert!(workers.late.len() < 5 && began.elapsed() < Duration::from_secs(10));
        drop(closed);
    }

    #[test]
    fn no_more_hang_at_once_than_may() {
        let mut workers = workers(Duration::from_secs(60));
        workers.patience.late = 2;
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let mut ask = |about| workers.ask(about, Some(Arc::clone(&gate))).unwrap_err();
        assert!(matches!((ask("a"), ask("b")), (Unanswered::Worker(_), Unanswered::Worker(_))));
        assert_eq!(ask("c").to_string(), "not asked: 2 others don't answer");
        drop(closed);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut workers = workers(Duration::from_secs(60));
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        workers.ask("gone", Some(Arc::clone(&gate))).unwrap_err();
        workers.begin(|about| about != "gone");
        assert!(workers.late.is_empty());
        drop(closed);
    }
}
