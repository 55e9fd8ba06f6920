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
//! All unsafe code is in `dl` and `raw`.

mod dl;
mod fast;
mod monitor;
mod params;
mod process;
mod raw;
mod refusal;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::Absence;

pub use self::fast::VmLane;
pub use self::monitor::VmMonitorLane;
pub use self::session::Place;

/// What the monitor lane could not read, for the lane that lists the VMs.
#[derive(Clone, Debug, Default)]
struct Missing(Arc<Mutex<HashMap<VmUuid, Vec<Absence>>>>);

impl Missing {
    fn of(&self, uuid: &VmUuid) -> Vec<Absence> {
        self.lock().get(uuid).cloned().unwrap_or_default()
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

/// Both lanes of one host.
#[must_use]
pub fn lanes(root: &std::path::Path, place: &Place) -> (VmLane, VmMonitorLane) {
    let missing = Missing::default();
    (VmLane::new(root, place.clone(), missing.clone()), VmMonitorLane::new(place.clone(), missing))
}
