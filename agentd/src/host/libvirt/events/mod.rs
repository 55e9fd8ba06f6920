//! The lane that libvirt tells by itself what happens to VMs.
//!
//! ```text
//!  libvirtd ──► connection of its own ──► libvirt's event loop: a thread of the process, which calls back
//!                                            │ puts it in a bounded queue, rings; waits for nothing
//!                                            ▼
//!                  VmEventLane, rung ── takes the queue ──► events      VmLane, rung where a state changed ──► reads
//! ```
//!
//! A callback never calls libvirt and never waits, so neither a slow reader nor a hanging libvirtd stalls another
//! connection's events. What doesn't fit the queue is counted, and told as an event of its own.

mod callbacks;
mod words;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{EventKind, Source};

pub(super) use self::callbacks::Subscription;
pub(super) use self::words::Said;

use crate::collect::Bell;
use crate::host::qemu::Known;
use crate::sample::{Cycle, Found, Happened, Lane, Object, Taken};

use super::guest::Guests;
use super::jobs::Jobs;
use super::relay::{GIVE_UP, Relay};
use super::session::{Place, Session, Unavailable, ok};

/// How often the connection is looked at. Events don't wait for it.
pub const EVERY: Duration = Duration::from_secs(1);
/// Of what a hypervisor with a thousand VMs tells within the quarter of a second between two readings. Beyond that the
/// newest goes.
const QUEUE: usize = 1024;
/// A connection to another host takes a second; one that hangs is known by its keepalive after nine.
const DEADLINE: Duration = Duration::from_secs(3);

/// Passes on what libvirt tells.
#[derive(Debug)]
pub struct VmEventLane {
    name: &'static str,
    place: Place,
    listener: Result<Relay<(), Result<(), Unavailable>>, String>,
    queue: Arc<Queue>,
    known: Known,
}

/// What was told and not yet taken.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// The lane that takes it.
    taker: Bell,
    /// The lane that reads states.
    states: Bell,
    jobs: Jobs,
    guests: Guests,
}

#[derive(Debug, Default)]
struct Waiting {
    told: VecDeque<Told>,
    shed: u64,
}

/// One thing that happened to one domain.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) uuid: VmUuid,
    pub(super) name: String,
    pub(super) said: Said,
}

impl VmEventLane {
    /// `states` is rung when the state of a VM changed; `jobs` hears of what goes with a job, `guests` of what goes with a
    /// guest agent.
    pub(super) fn new(
        name: &'static str,
        place: Place,
        (states, jobs, guests): (Bell, Jobs, Guests),
        known: Known,
    ) -> Self {
        let (waiting, taker) = (Mutex::default(), Bell::default());
        let queue = Arc::new(Queue { waiting, taker, states, jobs, guests });
        let (of, to) = (place.clone(), Arc::clone(&queue));
        let listener = Relay::start("vm-events-libvirt", GIVE_UP, move || {
            let (session, queue) = (Session::new(of.clone()), Arc::clone(&to));
            let mut listener = Listener { session, subscription: None, queue };
            Box::new(move |()| listener.listen())
        });
        let listener = listener.map_err(|error| format!("start a thread: {error}"));
        Self { name, place, listener, queue, known }
    }

    fn listen(&mut self) -> Result<(), Unavailable> {
        match &mut self.listener {
            Ok(worker) => worker
                .ask((), DEADLINE)
                .unwrap_or_else(|no| Err(Unavailable::Stuck(format!("libvirtd: {no}")))),
            Err(why) => Err(Unavailable::Failing(why.clone())),
        }
    }

    fn happened(&self) -> Vec<Happened> {
        let Waiting { told, shed } = std::mem::take(&mut *self.queue.lock());
        let mut events: Vec<(Happened, u32)> = Vec::new();
        for Told { uuid, name, said } in told {
            if self.known.is_of_another(&uuid, &self.place.uri) {
                continue;
            }
            let Some((kind, what)) = said.in_words() else { continue };
            let detail = if what.is_empty() { name } else { format!("{name}: {what}") };
            let event = Happened { kind, object: Object::Vm(uuid), detail };
            // A disk that fails says so for every request.
            match events.iter_mut().find(|(before, _)| *before == event) {
                Some((_, times)) => *times += 1,
                None => events.push((event, 1)),
            }
        }
        let several = |(mut event, times): (Happened, u32)| {
            if times > 1 {
                event.detail = format!("{} ({times} times)", event.detail);
            }
            event
        };
        let mut events: Vec<Happened> = events.into_iter().map(several).collect();
        if shed > 0 {
            let detail = format!("{shed} events of {} came faster than they were taken up", self.place.uri);
            events.push(Happened { kind: EventKind::EventsShed, object: Object::Node, detail });
        }
        events
    }
}

impl Lane for VmEventLane {
    fn name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> Source {
        Source::LibvirtEvents
    }

    fn instance(&self) -> Arc<str> {
        Arc::clone(&self.place.uri)
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.queue.taker)
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        // First what is known: a libvirtd that hangs doesn't keep it back.
        let mut events = self.happened();
        let report = match self.listen() {
            Ok(()) => ok(Source::LibvirtEvents, &self.place),
            Err(why) => why.report(Source::LibvirtEvents, &self.place),
        };
        events.extend(self.happened());
        Cycle { taken, found: Found::Nothing, samples: Vec::new(), sources: vec![report], events }
    }
}

impl Queue {
    /// Called by libvirt's event loop.
    pub(super) fn put(&self, told: Told) {
        let changes_state = told.said.changes_state();
        let uuid = told.uuid;
        let changes_guest = told.said.changes_guest();
        let with_job = told.said.goes_with_a_job().then_some(told.uuid);
        {
            let mut waiting = self.lock();
            if waiting.told.len() < QUEUE {
                waiting.told.push_back(told);
            } else {
                waiting.shed += 1;
            }
        }
        self.taker.ring();
        self.jobs.look_at(with_job);
        if changes_guest {
            self.guests.look_at(uuid);
        }
        if changes_state {
            self.states.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whole after any panic: each change is one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lives on the worker's thread: keeps a connection on which libvirt tells.
#[derive(Debug)]
struct Listener {
    session: Session,
    subscription: Option<Subscription>,
    queue: Arc<Queue>,
}

impl Listener {
    fn listen(&mut self) -> Result<(), Unavailable> {
        if let Some(subscription) = &self.subscription {
            if subscription.is_alive() {
                return Ok(());
            }
            self.subscription = None;
            self.session.forget();
            // What depends on libvirt is seen to be lost now, and not when it is due.
            self.queue.states.ring();
            self.queue.guests.look_at_all();
        }
        let queue = &self.queue;
        let subscription = self.session.call(|connection| connection.subscribe(queue))?;
        self.subscription = Some(subscription);
        // What happened while nobody listened is in no event.
        self.queue.states.ring();
        self.queue.guests.look_at_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> VmEventLane {
        let place = Place::new("test:///default", std::path::Path::new("/"));
        VmEventLane::new(
            "vm-events",
            place,
            (Bell::default(), Jobs::default(), Guests::not_asked()),
            Known::default(),
        )
    }

    fn told(said: Said) -> Told {
        Told { uuid: VmUuid::from_bytes([7; 16]), name: "web".into(), said }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told_once() {
        let lane = lane();
        for number in 0..QUEUE + 5 {
            lane.queue.put(told(Said::DeviceAdded { device: number.to_string() }));
        }
        let events = lane.happened();
        assert_eq!(events.len(), QUEUE + 1);
        assert_eq!(events[0].detail, "web: 0");
        assert_eq!(events[QUEUE].kind, EventKind::EventsShed);
        assert!(events[QUEUE].detail.starts_with("5 events of test:///default "), "{:?}", events[QUEUE]);
        assert_eq!(lane.happened(), []);
    }

    #[test]
    fn what_is_told_again_and_again_is_one_event() {
        let lane = lane();
        for _ in 0..500 {
            let (device, reason) = ("vda".to_owned(), "enospc".to_owned());
            lane.queue.put(told(Said::IoError { device, action: 1, reason }));
        }
        lane.queue.put(told(Said::Reboot));
        let events = lane.happened();
        assert_eq!(events.len(), 2);
        assert!(events[0].detail.ends_with("(500 times)"), "{:?}", events[0]);
        assert_eq!((events[1].kind, events[1].detail.as_str()), (EventKind::VmRebooted, "web"));
    }
}
