//! VMs, through libvirt and past it.
//!
//! What needs no QEMU monitor is read often, by [`VmLane`]: state and interfaces in one bulk call, and from `/proc` and
//! the VM's cgroup what libvirt would ask QEMU for. What does need it is read seldom, by [`VmMonitorLane`], each VM with
//! a deadline of its own: through a monitor a reading costs a thousand times more, and one stopped QEMU blocks its caller
//! for as long as it is stopped.
//!
//! ```text
//!  VmLane ──asks──► worker "vms-libvirt" ── connection      VmMonitorLane ──asks──► workers "vm-monitor" ── a connection each
//!     │ deadline                                                 │ deadline for each VM; a worker whose VM hangs is left with it
//!     └── /proc/PID, cgroup: its own thread                      └── what is missing, and why ──► VmLane, which lists the VMs
//! ```
//!
//! What happens to VMs libvirt tells by itself, to [`VmEventLane`], on a connection of its own. Migrations, saves and other
//! jobs are followed by [`VmJobLane`] while they run. There may be several libvirts; each has lanes, threads and connections
//! of its own.
//!
//! All unsafe code is in `horcrux-libvirt`, `raw` and `events::callbacks`.

mod domain;
mod events;
mod fast;
mod guest;
mod jobs;
mod monitor;
mod params;
mod raw;
mod refusal;
mod relay;
mod session;
mod singly;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::Absence;

pub use self::events::{EVERY as EVENTS_EVERY, VmEventLane};
pub use self::fast::VmLane;
use self::guest::Guests;
pub use self::guest::{EVERY as GUESTS_EVERY, GuestLane};
use self::jobs::Jobs;
pub use self::jobs::{EVERY as JOBS_EVERY, VmJobLane};
pub use self::monitor::VmMonitorLane;
pub use self::session::Place;

use crate::collect::Bell;
use crate::host::qemu::Known;

/// What the monitor lane could not read, for the lane that lists the VMs.
#[derive(Clone, Debug, Default)]
struct Missing(Arc<Mutex<HashMap<VmUuid, Vec<Absence>>>>);

impl Missing {
    /// `None`: it was not read yet.
    fn of(&self, uuid: &VmUuid) -> Option<Vec<Absence>> {
        self.lock().get(uuid).cloned()
    }

    fn uuids(&self) -> Vec<VmUuid> {
        self.lock().keys().copied().collect()
    }

    fn replace(&self, all: HashMap<VmUuid, Vec<Absence>>) {
        *self.lock() = all;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VmUuid, Vec<Absence>>> {
        // A map is whole after any panic: it is replaced in one step.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the other lanes know of VMs, for the lane that lists them.
#[derive(Debug)]
struct Others {
    missing: Missing,
    guests: Guests,
    jobs: Jobs,
}

/// The lanes of one connection.
#[derive(Debug)]
pub struct Lanes {
    pub vms: VmLane,
    /// Where there are QEMU monitors.
    pub monitors: Option<VmMonitorLane>,
    /// The same.
    pub jobs: Option<VmJobLane>,
    pub events: VmEventLane,
    /// Where guest agents are to be asked.
    pub guests: Option<GuestLane>,
}

/// Whether what runs inside VMs is asked too, for which libvirt wants a connection that may change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestAgents {
    Ask,
    Leave,
}

/// The lanes of each connection. None waits for another's.
#[must_use]
pub fn lanes(root: &Path, places: &[Place], known: &Known, agents: GuestAgents) -> Vec<Lanes> {
    let of = |(at, place): (usize, &Place)| {
        let name = |kind| if at == 0 { kind } else { name_of_another(kind, &place.uri) };
        let missing = Missing::default();
        let states = Bell::default();
        let (guests, told) = match agents {
            GuestAgents::Ask => {
                let name = name("guest-agents");
                let (lane, told) = GuestLane::new(name, place.clone(), states.clone(), known.clone());
                (Some(lane), told)
            }
            GuestAgents::Leave => (None, Guests::not_asked()),
        };
        let jobs = if place.has_monitors() { Jobs::followed(states.clone()) } else { Jobs::default() };
        let others = Others { missing: missing.clone(), guests: told.clone(), jobs: jobs.clone() };
        let vms = VmLane::new(name("vms"), root, place.clone(), others, states.clone(), known.clone());
        let rung = (states, jobs.clone(), told);
        let events = VmEventLane::new(name("vm-events"), place.clone(), rung, known.clone());
        let with_monitors = place.has_monitors().then(|| {
            let found = (missing, jobs.clone());
            let monitors = VmMonitorLane::new(name("vm-monitors"), place.clone(), found, known.clone());
            (monitors, VmJobLane::new(name("vm-jobs"), place.clone(), jobs, known.clone()))
        });
        let (monitors, jobs) = with_monitors.unzip();
        Lanes { vms, monitors, jobs, events, guests }
    };
    places.iter().enumerate().map(of).collect()
}

/// Made once for each connection that is configured, and kept for as long as the agent runs.
fn name_of_another(kind: &str, uri: &str) -> &'static str {
    Box::leak(format!("{kind} {uri}").into_boxed_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use horcrux_libvirt::virt::connect::Connect;
    use horcrux_proto::v1::{EventKind, Source, SourceState, VmFacts, VmState};
    use horcrux_transport::clock;
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::collect;
    use crate::sample::{Cycle, Found, Lane, Object};

    const TEST: &str = "test:///default";
    /// Of the one domain that libvirt's test driver begins with.
    const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
    const HOUR: Duration = Duration::from_secs(3600);

    fn of_test(known: &Known) -> Lanes {
        lanes(Path::new("/"), &[Place::new(TEST, Path::new("/"))], known, GuestAgents::Leave).remove(0)
    }

    fn wait_for<T>(cycles: &mut Receiver<(&'static str, Cycle)>, look: impl Fn(&Cycle) -> Option<T>) -> T {
        let until = clock::monotonic() + Duration::from_secs(10);
        while clock::monotonic() < until {
            if let Some(found) = cycles.blocking_recv().and_then(|(_, cycle)| look(&cycle)) {
                return found;
            }
        }
        panic!("it was not seen");
    }

    fn vms(cycle: &Cycle) -> &[VmFacts] {
        match &cycle.found {
            Found::Vms(vms) | Found::VmsSoFar(vms) => vms,
            Found::Node(_) | Found::Containers(_) | Found::Nothing => &[],
        }
    }

    #[test]
    fn what_happens_is_told_at_once_and_has_the_state_read_at_once() {
        let of_test = of_test(&Known::default());
        let (to_events, mut events) = channel(16);
        let (to_states, mut states) = channel(16);
        let _running = [
            collect::start(Box::new(of_test.events), EVENTS_EVERY, to_events).unwrap(),
            collect::start(Box::new(of_test.vms), HOUR, to_states).unwrap(),
        ];
        let state = |vm: &VmFacts, state| (vm.uuid == UUID && vm.state() == state).then_some(());
        wait_for(&mut states, |cycle| vms(cycle).iter().find_map(|vm| state(vm, VmState::Running)));
        wait_for(&mut events, |cycle| (cycle.sources[0].state == SourceState::Ok).then_some(()));
        let domain = Connect::open(Some(TEST)).unwrap().lookup_domain_by_uuid_string(UUID).unwrap();
        domain.suspend().unwrap();
        let told = wait_for(&mut events, |cycle| {
            cycle.events.iter().find(|event| event.kind == EventKind::VmSuspended).cloned()
        });
        assert_eq!((told.object, told.detail.as_str()), (Object::Vm(UUID.parse().unwrap()), "test: paused"));
        wait_for(&mut states, |cycle| vms(cycle).iter().find_map(|vm| state(vm, VmState::Paused)));
    }

    #[test]
    fn what_the_test_driver_tells_says_that_it_is_simulated() {
        let mut of_test = of_test(&Known::default());
        assert!(of_test.monitors.is_none());
        let cycle = of_test.vms.read(collect::now());
        let vm = &vms(&cycle)[0];
        assert!(vm.simulated && vm.connection == TEST);
        assert!(vm.guest.is_none() && vm.guest_unknown_reason.contains("ask_guest_agents"), "{vm:?}");
        let mut readings = cycle.samples.iter().flat_map(|sample| &sample.readings).peekable();
        assert!(readings.peek().is_some() && readings.all(|reading| reading.source == Source::Simulated));
        assert_eq!((cycle.sources[0].source, &*cycle.sources[0].instance), (Source::Simulated, TEST));
    }

    #[test]
    fn a_vm_that_another_connection_has_is_left_to_it_and_that_is_told() {
        let known = Known::default();
        known.claim(UUID.parse().unwrap(), &"qemu:///system".into()).unwrap();
        let cycle = of_test(&known).vms.read(collect::now());
        assert_eq!(vms(&cycle), []);
        let report = &cycle.sources[0];
        assert_eq!(report.state, SourceState::Failing);
        assert!(report.detail.contains(UUID) && report.detail.contains("qemu:///system"), "{report:?}");
    }
}
