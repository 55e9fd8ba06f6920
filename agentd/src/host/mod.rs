//! Everything that touches the machine, and only that.

pub mod cgroup;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod proc;

mod mounts;
mod pressure;
mod read;
mod readings;
