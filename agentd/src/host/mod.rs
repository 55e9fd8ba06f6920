//! Everything that touches the machine, and only that.

pub mod cgroup;
pub mod filesystems;
pub mod hwmon;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod policy;
pub mod proc;
pub mod qemu;
pub mod runtimes;
#[cfg(not(feature = "libvirt"))]
pub mod without_libvirt;

mod lacking;
pub(crate) mod mounts;
mod pressure;
pub(crate) mod read;
mod readings;
pub(crate) mod worker;
mod workers;

use std::path::Path;

pub use lacking::Lacking;

/// The lanes of the node itself. What those that may hang couldn't read is told by the first.
#[must_use]
pub fn node_lanes(root: &Path) -> (proc::NodeLane, filesystems::FilesystemLane, hwmon::SensorLane) {
    let lacking = Lacking::default();
    (
        proc::NodeLane::beside(root, lacking.clone()),
        filesystems::FilesystemLane::new(root, lacking.clone()),
        hwmon::SensorLane::new(root, lacking),
    )
}
