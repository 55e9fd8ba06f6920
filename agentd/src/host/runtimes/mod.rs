//! What container runtimes call their containers, as `horcrux-privd` tells it: names, images, labels and states.
//!
//! A runtime's socket is as good as root, so the agent opens none. privd is asked on a thread of its own, and the lane
//! that lists the containers waits for it only as long as it usually answers: a privd that hangs costs names alone.

mod known;
mod told;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use horcrux_privd::AskError;
use horcrux_proto::v1::{ContainerRuntime, Source, SourceState};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;

use crate::host::worker::{NoAnswer, Worker};
use crate::sample::{SourceReport, Taken};

pub use self::known::Recalled;
use self::known::Unknown;
use self::told::Told;

/// How often all is asked anew: five seconds, less what a tick of the lane may come early.
const EVERY: Duration = Duration::from_millis(4900);
/// What the lane waits for names. Docker lists a hundred containers in a tenth of it.
const PATIENCE: Duration = Duration::from_millis(500);
/// For privd, which gives each runtime two seconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// A detail is read by people: a host may have many users with a runtime of their own.
const SHOWN_FAILURES: usize = 3;

/// What all runtimes said last, or why privd said nothing.
type Answer = Result<Told, Silence>;

/// Why privd says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Silence {
    NotYet,
    /// This host does without it.
    Absent(String),
    Failing(String),
}

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
        let first: Arc<Answer> = Arc::new(Err(Silence::NotYet));
        let heard = Heard(Arc::new(Mutex::new((Arc::clone(&first), Duration::ZERO))));
        let (socket, hears) = (socket.to_owned(), heard.clone());
        let mut had = false;
        let worker = Worker::start("runtimes", move |()| {
            let began = clock::monotonic();
            let answer = Arc::new(ask(&socket, had));
            had |= answer.is_ok();
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
            Err(silence) => Err(Unknown::Silent(silence.why().to_owned())),
        };
        recalled.update(found)
    }

    /// How who is asked is doing, once that is known.
    pub(crate) fn report(&self) -> Option<SourceReport> {
        let (state, detail) = match self.last.as_ref() {
            Ok(told) => {
                let failing: Vec<String> = told.failing().collect();
                let more = failing.len().saturating_sub(SHOWN_FAILURES);
                let more = (more > 0).then(|| format!("and {more} more"));
                let shown: Vec<String> = failing.into_iter().take(SHOWN_FAILURES).chain(more).collect();
                let state = if shown.is_empty() { SourceState::Ok } else { SourceState::Failing };
                (state, shown.join("; "))
            }
            Err(Silence::NotYet) => return None,
            Err(Silence::Absent(why)) => (SourceState::Absent, why.clone()),
            Err(Silence::Failing(why)) => (SourceState::Failing, why.clone()),
        };
        Some(SourceReport { source: Source::ContainerRuntimes, instance: Arc::default(), state, detail })
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

impl Silence {
    fn why(&self) -> &str {
        match self {
            Self::NotYet => "horcrux-privd has not answered yet",
            Self::Absent(why) | Self::Failing(why) => why,
        }
    }
}

fn failed(why: &str) -> Arc<Answer> {
    Arc::new(Err(Silence::Failing(why.to_owned())))
}

/// `had`: it has answered before, and so is missed when it is gone.
fn ask(socket: &Path, had: bool) -> Answer {
    horcrux_privd::containers(socket, DEADLINE).map(Told::from).map_err(|error| silence(&error, socket, had))
}

fn silence(error: &AskError, socket: &Path, had: bool) -> Silence {
    let at = socket.display();
    let kind = if let AskError::Connect(source) = error { Some(source.kind()) } else { None };
    match kind {
        Some(io::ErrorKind::NotFound) => {
            let why = format!("horcrux-privd is not running: no socket at {at}");
            if had { Silence::Failing(why) } else { Silence::Absent(why) }
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            Silence::Failing(format!("horcrux-privd is not running: nobody listens at {at}"))
        }
        Some(io::ErrorKind::PermissionDenied) => {
            let user = rustix::process::geteuid().as_raw();
            Silence::Failing(format!("horcrux-privd: user {user} may not connect to {at}: permission denied"))
        }
        Some(_) | None => Silence::Failing(format!("horcrux-privd: {}", Chain(error))),
    }
}

#[cfg(test)]
mod tests;
