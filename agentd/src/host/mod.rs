//! Everything that touches the machine, and only that.

pub mod cgroup;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod proc;
#[cfg(not(feature = "libvirt"))]
pub mod without_libvirt;

pub(crate) mod mounts;
mod pressure;
pub(crate) mod read;
mod readings;
