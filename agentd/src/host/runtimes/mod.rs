//! What container runtimes call their containers, as `horcrux-privd` tells it: names, images, labels and states.
//!
//! A runtime's socket is as good as root, so the agent opens none. privd is asked on a thread of its own, and the lane
//! that lists the containers waits for it only as long as it usually answers: a privd that hangs costs names alone.

mod known;
mod told;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use horcrux_proto::v1::ContainerRuntime;
use horcrux_transport::clock;
use horcrux_transport::error::Chain;

use crate::host::worker::{NoAnswer, Worker};
use crate::sample::Taken;

pub use self::known::Recalled;
use self::known::Unknown;
use self::told::Told;

/// How often all is asked anew: five seconds, less what a tick of the lane may come early.
const EVERY: Duration = Duration::from_millis(4900);
/// What the lane waits for names. Docker lists a hundred containers in a tenth of it.
const PATIENCE: Duration = Duration::from_millis(500);
/// For privd, which gives each runtime two seconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// What all runtimes said last, or why privd said nothing.
type Answer = Result<Told, String>;

/// Asks privd, for the lane that lists the containers.
pub struct Runtimes {
    worker: Result<Worker<(), ()>, String>,
    heard: Heard,
    last: Arc<Answer>,
    asked: Option<Taken>,
}

/// What came of looking for news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The question was put, or can't be any more.
    pub(crate) asked: bool,
    /// The answer differs from the one before.
    pub(crate) news: bool,
}

/// The newest answer, and how long it took. An answer that came too late for the question is still the newest.
#[derive(Clone)]
struct Heard(Arc<Mutex<(Arc<Answer>, Duration)>>);

impl fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtimes")
            .field("worker", &self.worker)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Runtimes {
    /// By the privd that listens at `socket`, if one does.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let first = failed("horcrux-privd has not answered yet");
        let heard = Heard(Arc::new(Mutex::new((Arc::clone(&first), Duration::ZERO))));
        let (socket, hears) = (socket.to_owned(), heard.clone());
        let worker = Worker::start("runtimes", move |()| {
            let began = clock::monotonic();
            let answer = Arc::new(ask(&socket));
            hears.put(answer, clock::monotonic() - began);
        });
        let worker = worker.map_err(|error| format!("horcrux-privd is not asked: start a thread: {error}"));
        Self { worker, heard, last: first, asked: None }
    }

    /// Asks if it is time to, or there is a container that is `new`.
    pub(crate) fn look(&mut self, now: Taken, new: bool) -> Look {
        let since = |before: Taken| Duration::from_nanos(now.boottime_ns.saturating_sub(before.boottime_ns));
        let is_due = new || self.asked.is_none_or(|before| since(before) >= EVERY);
        let (asked, newest) = match &mut self.worker {
            Ok(worker) if is_due => {
                // One that took longer is not waited for, until it is quicker again.
                let patience = if self.heard.took() <= PATIENCE { PATIENCE } else { Duration::ZERO };
                let is_free = worker.is_free();
                // What comes later is found at a later look; so is that nothing came: asking has a deadline.
                match is_free.and_then(|()| worker.ask((), patience)) {
                    Ok(()) => (true, self.heard.newest()),
                    Err(NoAnswer::Late(_)) => (is_free.is_ok(), self.heard.newest()),
                    Err(NoAnswer::Ended) => (true, failed(&format!("horcrux-privd: {}", NoAnswer::Ended))),
                }
            }
            Ok(_) => (false, self.heard.newest()),
            Err(why) => (true, failed(why)),
        };
        if asked {
            self.asked = Some(now);
        }
        let news = newest != self.last;
        self.last = newest;
        Look { asked, news }
    }

    /// Brings up to date what is known of one container. Says whether that changed.
    pub(crate) fn recall(
        &self,
        id: &str,
        runtime: ContainerRuntime,
        cgroup_path: &str,
        recalled: &mut Recalled,
    ) -> bool {
        let found = match self.last.as_ref() {
            Ok(told) => told.of(id, runtime, cgroup_path),
            Err(why) => Err(Unknown::Silent(why.clone())),
        };
        recalled.update(found)
    }
}

impl Heard {
    fn put(&self, answer: Arc<Answer>, took: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (answer, took);
    }

    fn newest(&self) -> Arc<Answer> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn took(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

fn failed(why: &str) -> Arc<Answer> {
    Arc::new(Err(why.to_owned()))
}

fn ask(socket: &Path) -> Answer {
    match horcrux_privd::containers(socket, DEADLINE) {
        Ok(answer) => Ok(Told::from(answer)),
        Err(error @ horcrux_privd::AskError::Connect(_)) => {
            Err(format!("horcrux-privd is not running: {} at {}", Chain(&error), socket.display()))
        }
        Err(error) => Err(format!("horcrux-privd: {}", Chain(&error))),
    }
}

#[cfg(test)]
mod tests;
