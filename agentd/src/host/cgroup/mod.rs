//! Containers, found and measured by their cgroups: no runtime is needed. What they are called is [`super::runtimes`]'
//! to tell.
//!
//! All reads are our own. The cgroups-rs crate takes a hybrid host for v1, reads v2's `io.stat` as zeros and a group
//! that is gone as one that uses nothing, and costs twenty times as much per group.

mod changes;
mod hierarchy;
mod identity;
mod lane;
mod network;
mod ooms;
mod parse;
mod probes;
mod specs;
mod vacant;
mod vm;
mod walk;

use std::path::Path;

use horcrux_proto::v1::CgroupMode;

pub use self::changes::{CHANGES_EVERY, ContainerChanges};
pub use self::lane::ContainerLane;
pub(crate) use self::vm::{VmGroup, VmGroups};

use self::hierarchy::Hierarchies;

/// How the host under `root` has its cgroups mounted.
#[must_use]
pub fn mode(root: &Path) -> CgroupMode {
    Hierarchies::find(root).mode()
}
