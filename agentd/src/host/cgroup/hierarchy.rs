//! Which cgroup hierarchies there are, and where.

use std::fs;
use std::path::{Path, PathBuf};

use horcrux_proto::v1::CgroupMode;

use crate::host::mounts::mounts;
use crate::host::read::read_text;

/// What a v1 hierarchy controls. `Systemd` is the one named so, in which systemd keeps its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Cpuacct,
    Cpu,
    Memory,
    Blkio,
    Pids,
    Systemd,
    /// One that has nothing we read.
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// v1, in the order of `Controller`; two controllers may share a directory.
    pub(super) v1: Vec<(Controller, PathBuf)>,
    pub(super) unified: Option<PathBuf>,
}

impl Controller {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "cpuacct" => Self::Cpuacct,
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "blkio" => Self::Blkio,
            "pids" => Self::Pids,
            "name=systemd" | "systemd" => Self::Systemd,
            "cpuset" | "devices" | "freezer" | "net_cls" | "net_prio" | "perf_event" | "hugetlb" | "rdma"
            | "misc" => Self::Other,
            _ => return None,
        })
    }
}

impl Hierarchies {
    /// From the mounts; from the usual places where the tree has no list of mounts.
    pub(super) fn find(root: &Path) -> Self {
        let mut found = match read_text(&root.join("proc/self/mountinfo")) {
            Ok(text) => Self::mounted(root, &text),
            Err(_) => Self::laid_out(&root.join("sys/fs/cgroup")),
        };
        found.v1.sort();
        found.v1.dedup_by_key(|(controller, _)| *controller);
        found
    }

    pub(super) fn mode(&self) -> CgroupMode {
        match (self.has_v1_controllers(), &self.unified) {
            (true, Some(_)) => CgroupMode::Hybrid,
            (true, None) => CgroupMode::V1,
            (false, Some(_)) => CgroupMode::V2,
            (false, None) if self.v1.is_empty() => CgroupMode::None,
            (false, None) => CgroupMode::V1,
        }
    }

    /// A named hierarchy beside v2 limits and measures nothing: it doesn't make a host hybrid.
    pub(super) fn has_v1_controllers(&self) -> bool {
        self.v1.iter().any(|(controller, _)| *controller != Controller::Systemd)
    }

    pub(super) fn v1(&self, wanted: Controller) -> Option<&Path> {
        self.v1.iter().find(|(controller, _)| *controller == wanted).map(|(_, dir)| dir.as_path())
    }

    fn mounted(root: &Path, mountinfo: &str) -> Self {
        let mut found = Self::default();
        // A list that can't be read has no hierarchies that could be trusted.
        let mut list = mounts(mountinfo).unwrap_or_default();
        // A hierarchy may be mounted again, in part, into some container's tree: whole ones come first.
        list.sort_by_key(|mount| mount.root != "/");
        for mount in list {
            let dir = root.join(mount.point.trim_start_matches('/'));
            match mount.filesystem {
                "cgroup2" => {
                    found.unified.get_or_insert(dir);
                }
                "cgroup" => {
                    for controller in mount.options.split(',').filter_map(Controller::named) {
                        if found.v1(controller).is_none() {
                            found.v1.push((controller, dir.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn laid_out(base: &Path) -> Self {
        let is_v2 = |dir: &Path| dir.join("cgroup.controllers").is_file();
        if is_v2(base) {
            return Self { v1: Vec::new(), unified: Some(base.to_path_buf()) };
        }
        let mut found = Self::default();
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let dir = entry.path();
            if is_v2(&dir) {
                found.unified = Some(dir);
            } else if let Some(name) = entry.file_name().to_str() {
                found.v1.extend(name.split(',').filter_map(Controller::named).map(|c| (c, dir.clone())));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = include_str!("../../../testdata/proc/hybrid/self/mountinfo");

    #[test]
    fn a_hybrid_host_is_not_taken_for_v1() {
        let found = Hierarchies::mounted(Path::new("/"), HYBRID);
        assert_eq!(found.mode(), CgroupMode::Hybrid);
        assert_eq!(found.v1(Controller::Pids), Some(Path::new("/sys/fs/cgroup/pids")));
        assert_eq!(found.v1(Controller::Systemd), Some(Path::new("/sys/fs/cgroup/systemd")));
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn v1_without_a_unified_hierarchy_is_v1() {
        let text: String =
            HYBRID.lines().filter(|line| !line.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
        assert_eq!(Hierarchies::mounted(Path::new("/"), &text).mode(), CgroupMode::V1);
    }

    #[test]
    fn controllers_that_share_a_hierarchy_share_its_directory() {
        let text = "31 23 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = Hierarchies::mounted(Path::new("/host"), text);
        let dir = Some(Path::new("/host/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!((found.v1(Controller::Cpu), found.v1(Controller::Cpuacct)), (dir, dir));
    }

    #[test]
    fn a_named_hierarchy_beside_v2_leaves_it_v2() {
        let text = "30 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                    31 23 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        assert_eq!(Hierarchies::mounted(Path::new("/"), text).mode(), CgroupMode::V2);
    }

    #[test]
    fn a_partial_mount_in_a_container_is_not_the_hierarchy() {
        let text = "30 23 0:29 /docker/x /var/lib/y/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                    31 23 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::mounted(Path::new("/"), text);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup")));
    }

    #[test]
    fn a_host_without_cgroups_has_none() {
        let text = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        assert_eq!(Hierarchies::mounted(Path::new("/"), text).mode(), CgroupMode::None);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Hierarchies::find(empty.path()).mode(), CgroupMode::None);
    }

    #[test]
    fn a_tree_without_mounts_is_known_by_its_layout() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("sys/fs/cgroup");
        fs::create_dir_all(base.join("cpu,cpuacct")).unwrap();
        assert_eq!(Hierarchies::find(dir.path()).mode(), CgroupMode::V1);
        fs::create_dir_all(base.join("unified")).unwrap();
        fs::write(base.join("unified/cgroup.controllers"), "\n").unwrap();
        assert_eq!(Hierarchies::find(dir.path()).mode(), CgroupMode::Hybrid);
        fs::write(base.join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert_eq!(Hierarchies::find(dir.path()).mode(), CgroupMode::V2);
    }
}
