//! Everything that touches the machine, and only that.

pub mod cgroup;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod proc;
pub mod runtimes;
#[cfg(not(feature = "libvirt"))]
pub mod without_libvirt;

mod mounts;
mod pressure;
mod read;
mod readings;
mod worker;
