//! QEMU as the kernel sees it: the processes of VMs, whoever started them.

mod command_line;
mod known;
mod lane;
mod of_libvirt;
mod process;

pub use self::known::Known;
pub use self::lane::QemuLane;
#[cfg(feature = "libvirt")]
pub(in crate::host) use self::of_libvirt::Started;
pub(in crate::host) use self::process::{Outcome, Process, Processes};
