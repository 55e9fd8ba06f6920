//! Everything that touches the machine, and only that.

pub mod cgroup;
pub mod file;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod proc;
