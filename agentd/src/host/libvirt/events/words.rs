//! What the numbers of libvirt's events mean. They are those of `libvirt-domain.h`.

use horcrux_proto::v1::EventKind;

use crate::host::libvirt::params::Params;

/// What libvirt said of a domain, as it said it.
#[derive(Debug)]
pub(in crate::host::libvirt) enum Said {
    Lifecycle {
        event: i32,
        detail: i32,
    },
    Reboot,
    Watchdog {
        action: i32,
    },
    IoError {
        device: String,
        action: i32,
        reason: String,
    },
    Graphics {
        phase: i32,
        /// Who is at the other end.
        peer: String,
    },
    BlockJob {
        disk: String,
        job: i32,
        status: i32,
    },
    BalloonChange {
        kib: u64,
    },
    DeviceAdded {
        device: String,
    },
    DeviceRemoved {
        device: String,
    },
    DeviceRemovalFailed {
        device: String,
    },
    GuestAgent {
        state: i32,
    },
    MigrationIteration {
        iteration: i32,
    },
    JobCompleted(Params),
    BlockThreshold {
        device: String,
        threshold: u64,
        excess: u64,
    },
}

/// Each kind of lifecycle event, with the reasons that it may have, in libvirt's order.
const LIFECYCLE: [(EventKind, &[&str]); 9] = [
    (EventKind::VmDefined, &["added", "changed", "renamed", "from a snapshot"]),
    (EventKind::VmUndefined, &["removed", "renamed"]),
    (
        EventKind::VmStarted,
        &["booted", "migrated here", "restored", "from a snapshot", "woken up", "changed while it ran"],
    ),
    (
        EventKind::VmSuspended,
        &[
            "paused",
            "for a migration",
            "an I/O error",
            "its watchdog",
            "restored as paused",
            "from a snapshot",
            "a failure of libvirt",
            "for a post-copy migration",
            "a post-copy migration failed",
            "its guest has shut down",
        ],
    ),
    (
        EventKind::VmResumed,
        &[
            "unpaused",
            "a migration ended",
            "from a snapshot",
            "for a post-copy migration",
            "post-copy failed",
        ],
    ),
    (
        EventKind::VmStopped,
        &[
            "shut down",
            "destroyed",
            "crashed",
            "migrated away",
            "saved",
            "failed",
            "from a snapshot",
            "changed while it ran",
        ],
    ),
    (EventKind::VmShutDown, &["finished", "by its guest", "by the host"]),
    (EventKind::VmPmSuspended, &["to memory", "to disk"]),
    (EventKind::VmCrashed, &["its guest panicked", "its guest's crash kernel was loaded"]),
];
/// Of a VM that stops, and the reason that it goes on elsewhere, which makes it another kind.
const STOPPED: i32 = 5;
const MIGRATED: i32 = 3;
const WATCHDOG: [&str; 7] =
    ["nothing done", "paused", "reset", "powered off", "shut down", "logged", "NMI sent"];
const IO_ERROR: [&str; 3] = ["ignored", "the VM is paused", "reported to its guest"];
const GRAPHICS: [&str; 3] = ["connected", "authenticated", "disconnected"];
const BLOCK_JOB: [&str; 6] = ["job", "pull", "copy", "commit", "active commit", "backup"];
const BLOCK_JOB_STATUS: [&str; 4] = ["completed", "failed", "cancelled", "ready"];
const JOB: [&str; 11] = [
    "job",
    "start",
    "save",
    "restore",
    "incoming migration",
    "outgoing migration",
    "snapshot",
    "reverting to a snapshot",
    "dump",
    "backup",
    "deleting a snapshot",
];

impl Said {
    /// Whether the VM's state is another, or whether there is one.
    pub(super) fn changes_state(&self) -> bool {
        matches!(self, Self::Lifecycle { .. })
    }

    /// Whether a job may have begun or ended with it: of the beginning libvirt tells nothing itself.
    pub(super) fn goes_with_a_job(&self) -> bool {
        matches!(self, Self::Lifecycle { .. } | Self::MigrationIteration { .. } | Self::JobCompleted(_))
    }

    /// Whether its guest agent, if it has one, is there now or is gone.
    pub(super) fn changes_guest(&self) -> bool {
        matches!(self, Self::Lifecycle { .. } | Self::GuestAgent { .. })
    }

    /// What it is, and what people are told beside the VM's name. `None`: of a kind that a later libvirt has.
    pub(super) fn in_words(&self) -> Option<(EventKind, String)> {
        Some(match self {
            Self::Lifecycle { event: STOPPED, detail: MIGRATED } => {
                (EventKind::VmMigratedAway, String::new())
            }
            Self::Lifecycle { event, detail } => {
                let (kind, reasons) = LIFECYCLE.get(usize::try_from(*event).ok()?)?;
                (*kind, of(reasons, *detail).to_owned())
            }
            Self::Reboot => (EventKind::VmRebooted, String::new()),
            Self::Watchdog { action } => (EventKind::VmWatchdogFired, of(&WATCHDOG, *action).to_owned()),
            Self::IoError { device, action, reason } => {
                let parts = [device, reason, of(&IO_ERROR, *action)];
                let said: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                (EventKind::VmIoError, said.join(", "))
            }
            Self::Graphics { phase, peer } => {
                (EventKind::VmGraphics, format!("{peer} {}", of(&GRAPHICS, *phase)).trim().to_owned())
            }
            Self::BlockJob { disk, job, status } => {
                let (job, status) = (of(&BLOCK_JOB, *job), of(&BLOCK_JOB_STATUS, *status));
                (EventKind::VmBlockJob, format!("{disk}: {job} {status}"))
            }
            Self::BalloonChange { kib } => (EventKind::VmBalloonChanged, format!("{} MiB", kib / 1024)),
            Self::DeviceAdded { device } => (EventKind::VmDeviceAdded, device.clone()),
            Self::DeviceRemoved { device } => (EventKind::VmDeviceRemoved, device.clone()),
            Self::DeviceRemovalFailed { device } => (EventKind::VmDeviceRemovalFailed, device.clone()),
            Self::GuestAgent { state: 1 } => (EventKind::VmGuestAgentConnected, String::new()),
            Self::GuestAgent { state: 2 } => (EventKind::VmGuestAgentDisconnected, String::new()),
            Self::GuestAgent { .. } => return None,
            Self::MigrationIteration { iteration } => {
                (EventKind::VmMigrationIteration, format!("pass {iteration} over its memory"))
            }
            Self::JobCompleted(params) => (EventKind::VmJobCompleted, job_completed(params)),
            Self::BlockThreshold { device, threshold, excess } => {
                let detail = format!("{device}: {excess} bytes beyond {threshold}");
                (EventKind::VmBlockThreshold, detail)
            }
        })
    }
}

/// A word for a number; nothing for one that a later libvirt has.
fn of(words: &'static [&'static str], number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|at| words.get(at)).copied().unwrap_or("")
}

fn job_completed(params: &Params) -> String {
    let operation = params.number("operation").and_then(|number| i32::try_from(number).ok());
    let mut said = of(&JOB, operation.unwrap_or(0)).to_owned();
    if let Some(message) = params.text("errmsg") {
        return format!("{said} failed: {message}");
    }
    if let Some(ms) = params.number("time_elapsed") {
        said = format!("{said} in {ms} ms");
    }
    if let Some(bytes) = params.number("data_processed") {
        said = format!("{said}, {bytes} bytes");
    }
    if let Some(ms) = params.number("downtime") {
        said = format!("{said}, {ms} ms down");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::libvirt::params::Param;

    fn words(said: &Said) -> (EventKind, String) {
        said.in_words().unwrap()
    }

    #[test]
    fn numbers_become_words_and_those_of_later_libvirts_are_left_out() {
        let paused = words(&Said::Lifecycle { event: 3, detail: 0 });
        assert_eq!(paused, (EventKind::VmSuspended, "paused".to_owned()));
        let destroyed = words(&Said::Lifecycle { event: 5, detail: 1 });
        let left = words(&Said::Lifecycle { event: STOPPED, detail: MIGRATED });
        assert_eq!(left, (EventKind::VmMigratedAway, String::new()));
        assert_eq!(LIFECYCLE[5].1[3], "migrated away");
        assert_eq!(destroyed, (EventKind::VmStopped, "destroyed".to_owned()));
        assert_eq!(words(&Said::Lifecycle { event: 5, detail: 99 }), (EventKind::VmStopped, String::new()));
        assert!(Said::Lifecycle { event: 99, detail: 0 }.in_words().is_none());
        assert!(Said::Lifecycle { event: -1, detail: -1 }.in_words().is_none());
        let io = Said::IoError { device: "vda".into(), action: 1, reason: String::new() };
        assert_eq!(words(&io).1, "vda, the VM is paused");
    }

    #[test]
    fn a_job_says_what_it_was_and_why_it_failed() {
        let job = |list: &[(&str, Param)]| {
            let list = list.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            words(&Said::JobCompleted(Params::new(list))).1
        };
        let operation = ("operation", Param::Signed(5));
        let done = job(&[operation.clone(), ("time_elapsed", Param::Unsigned(1200))]);
        assert_eq!(done, "outgoing migration in 1200 ms");
        let failed = job(&[operation, ("errmsg", Param::Text("no route".into()))]);
        assert_eq!(failed, "outgoing migration failed: no route");
    }
}
