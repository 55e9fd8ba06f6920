//! Everything that touches the machine, and only that.

pub mod cgroup;
pub mod proc;

mod mounts;
mod pressure;
mod read;
mod readings;
