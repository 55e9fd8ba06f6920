//! A worker for a libvirt that may never answer: another takes its place after a while.
//!
//! A call that waits for a libvirtd is ended by its connection's keepalive. One that connects is not: an ssh or a TLS
//! handshake whose other side fell silent waits for ever, and nothing can call it back.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::host::worker::{NoAnswer, Worker};

/// A connection that takes longer is of no use. TCP by itself gives up after two minutes.
pub(super) const GIVE_UP: Duration = Duration::from_secs(60);
/// Each is a thread, and perhaps an ssh.
pub(super) const MOST_GIVEN_UP: usize = 4;

type Answers<Q, A> = Box<dyn FnMut(Q) -> A + Send>;

pub(super) struct Relay<Q, A> {
    name: &'static str,
    make: Box<dyn FnMut() -> Answers<Q, A> + Send>,
    give_up: Duration,
    worker: Worker<Q, A>,
    given_up: Vec<Worker<Q, A>>,
}

impl<Q, A> fmt::Debug for Relay<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("worker", &self.worker)
            .field("given_up", &self.given_up)
            .finish_non_exhaustive()
    }
}

impl<Q: Send + 'static, A: Send + 'static> Relay<Q, A> {
    /// `make` gives what a worker does, with what it keeps for it. `name` is that of the threads.
    pub(super) fn start(
        name: &'static str,
        give_up: Duration,
        mut make: impl FnMut() -> Answers<Q, A> + Send + 'static,
    ) -> io::Result<Self> {
        let worker = Worker::start(name, make())?;
        Ok(Self { name, make: Box::new(make), give_up, worker, given_up: Vec::new() })
    }

    pub(super) fn ask(&mut self, question: Q, deadline: Duration) -> Result<A, NoAnswer> {
        // One that answered after all ends here, with what it kept.
        self.given_up.retain_mut(|worker| matches!(worker.is_free(), Err(NoAnswer::Late(_))));
        if let Err(NoAnswer::Late(since)) = self.worker.is_free()
            && since >= self.give_up
            && self.given_up.len() < MOST_GIVEN_UP
            && let Ok(another) = Worker::start(self.name, (self.make)())
        {
            self.given_up.push(std::mem::replace(&mut self.worker, another));
        }
        self.worker.ask(question, deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn one_that_never_answers_is_relieved_and_no_more_than_a_few_are() {
        let made = Arc::new(Mutex::new(0_usize));
        let count = Arc::clone(&made);
        // Nobody sends: all hang until the test ends, but the last that may be made.
        let (keep, never) = channel::<()>();
        let never = Arc::new(Mutex::new(never));
        let last = MOST_GIVEN_UP;
        let make = move || -> Answers<bool, usize> {
            let mut made = count.lock().unwrap();
            let number = *made;
            *made += 1;
            let never = Arc::clone(&never);
            Box::new(move |hang| {
                if hang || number < last {
                    let _ended = never.lock().unwrap().recv();
                }
                number
            })
        };
        let moment = Duration::from_millis(5);
        let mut relay = Relay::start("test", Duration::ZERO, make).unwrap();
        for _ in 0..last {
            assert!(relay.ask(false, moment).is_err());
        }
        assert_eq!(
            relay.ask(false, Duration::from_secs(10)),
            Ok(last),
            "the one that answers is not relieved"
        );
        for _ in 0..5 {
            assert!(relay.ask(true, moment).is_err());
        }
        assert_eq!(*made.lock().unwrap(), last + 1, "no more are made while so many hang");
        drop(keep);
    }
}
