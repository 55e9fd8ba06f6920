//! Where the cgroup hierarchies are mounted: v1, v2, or v1 controllers beside a v2 tree (hybrid).

use std::path::{Path, PathBuf};

use horcrux_proto::v1::CgroupMode;

use super::super::file::text;

/// The mounts found in /proc/self/mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) v2: Option<PathBuf>,
    /// v1 controllers, with their mount points. A named hierarchy is here as `name=systemd`.
    pub(super) v1: Vec<(String, PathBuf)>,
}

/// Controllers that this agent reads; without any of them mounted as v1, a v2 tree is the whole story.
const CONTROLLERS: [&str; 5] = ["cpuacct", "cpu", "memory", "blkio", "pids"];

impl Hierarchy {
    /// Nothing mounted, or nothing readable, is an empty hierarchy.
    pub(super) fn find(root: &Path) -> Self {
        text(&root.join("proc/self/mountinfo")).map(|text| Self::parse(&text, root)).unwrap_or_default()
    }

    fn parse(text: &str, root: &Path) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4) else { continue };
            let mount = root.join(mount.trim_start_matches('/'));
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => found.v2 = found.v2.or(Some(mount)),
                Some("cgroup") => {
                    for option in right.nth(1).unwrap_or_default().split(',') {
                        let wanted = CONTROLLERS.contains(&option) || option == "name=systemd";
                        if wanted && !found.v1.iter().any(|(name, _)| name == option) {
                            found.v1.push((option.to_owned(), mount.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    pub(super) fn mode(&self) -> CgroupMode {
        let controllers = self.v1.iter().any(|(name, _)| CONTROLLERS.contains(&name.as_str()));
        match (controllers, &self.v2) {
            (true, Some(_)) => CgroupMode::Hybrid,
            (true, None) => CgroupMode::V1,
            (false, Some(_)) => CgroupMode::V2,
            (false, None) => CgroupMode::None,
        }
    }

    pub(super) fn controller(&self, name: &str) -> Option<&Path> {
        self.v1.iter().find(|(of, _)| of == name).map(|(_, mount)| mount.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      33 23 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";

    fn mode(text: &str) -> CgroupMode {
        Hierarchy::parse(text, Path::new("/")).mode()
    }

    #[test]
    fn the_mode_is_what_is_mounted() {
        assert_eq!(mode(V2), CgroupMode::V2);
        assert_eq!(mode(V1), CgroupMode::V1);
        assert_eq!(mode(&format!("{V1}{V2}")), CgroupMode::Hybrid);
        assert_eq!(mode(""), CgroupMode::None);
        let systemd_only = V1.lines().last().unwrap();
        assert_eq!(
            mode(&format!("{systemd_only}\n{V2}")),
            CgroupMode::V2,
            "a named hierarchy has no controller"
        );
    }

    #[test]
    fn controllers_that_share_a_mount_are_both_found() {
        let found = Hierarchy::parse(V1, Path::new("/x"));
        let shared = Some(Path::new("/x/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!((found.controller("cpu"), found.controller("cpuacct")), (shared, shared));
        assert_eq!(found.controller("pids"), None);
    }
}
