//! Which of the mounted filesystems are asked about.

use std::collections::HashMap;

use crate::host::mounts::Mount;

/// Types that hold somebody's data. Pseudo filesystems, overlays and images (squashfs, iso9660) are left out: they
/// have no space of their own, or are always full.
const TYPES: [&str; 27] = [
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "jfs",
    "reiserfs",
    "bcachefs",
    "vfat",
    "exfat",
    "ntfs3",
    "gfs2",
    "ocfs2",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "fuse.glusterfs",
    "fuse.sshfs",
    "fuse.ceph-fuse",
    "fuseblk",
    "lustre",
    "9p",
    "virtiofs",
];

/// Memory that is used as a disk: full, it stops services as a disk does.
const MEMORY: &str = "tmpfs";
/// Below these a tmpfs is no place of the host: the kernel's own, a container's or a pod's, and secrets of a service.
const NOT_THE_HOST_S: [&str; 9] = [
    "/dev/",
    "/proc/",
    "/sys/",
    "/run/credentials/",
    "/run/containerd/",
    "/run/docker/",
    "/var/lib/containers/",
    "/var/lib/docker/",
    "/var/lib/kubelet/",
];
/// Each session of a user has one, of which a host may have hundreds: those of the system come first.
const OF_SESSIONS: &str = "/run/user/";
pub(super) const MOST_MEMORY: usize = 64;

/// A filesystem to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) point: String,
    pub(super) device: String,
    pub(super) kind: Kind,
    /// `None` where the host's own mounts can't be read, or have another filesystem there.
    pub(super) read_only_on_host: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stored,
    /// A tmpfs.
    Memory,
}

/// What to ask about: each filesystem once, where its path is the shortest, and none that another mount hides.
pub(super) fn distinct(mounts: &[Mount<'_>]) -> Vec<Place> {
    let mut visible: HashMap<&str, &Mount<'_>> = HashMap::new();
    for mount in mounts {
        visible.insert(&mount.point, mount);
    }
    let mut points: HashMap<&str, (&str, Kind)> = HashMap::new();
    for (mount, kind) in visible.into_values().filter_map(|mount| Some((mount, kind(mount)?))) {
        let (point, _) = points.entry(mount.device).or_insert((&mount.point, kind));
        if (mount.point.len(), mount.point.as_str()) < (point.len(), *point) {
            *point = &mount.point;
        }
    }
    let place = |(device, (point, kind)): (&str, (&str, Kind))| Place {
        point: point.to_owned(),
        device: device.to_owned(),
        kind,
        read_only_on_host: None,
    };
    let mut places: Vec<Place> = points.into_iter().map(place).collect();
    places.sort_unstable_by(|a, b| a.point.cmp(&b.point));
    places
}

fn kind(mount: &Mount<'_>) -> Option<Kind> {
    if TYPES.contains(&mount.filesystem) {
        return Some(Kind::Stored);
    }
    // A service whose devices are its own has a tmpfs for them; shared memory is the host's, and fills up.
    let is_the_host_s = mount.point == "/dev/shm"
        || mount.point != "/dev" && !NOT_THE_HOST_S.iter().any(|below| mount.point.starts_with(below));
    (mount.filesystem == MEMORY && is_the_host_s).then_some(Kind::Memory)
}

/// Leaves out what is too much; gives how many those are.
pub(super) fn bound_memory(places: &mut Vec<Place>) -> usize {
    let (mut memory, stored): (Vec<_>, Vec<_>) =
        std::mem::take(places).into_iter().partition(|place| place.kind == Kind::Memory);
    memory.sort_by_key(|place| place.point.starts_with(OF_SESSIONS));
    let left_out = memory.len().saturating_sub(MOST_MEMORY);
    memory.truncate(MOST_MEMORY);
    places.extend(stored);
    places.append(&mut memory);
    places.sort_unstable_by(|a, b| a.point.cmp(&b.point));
    left_out
}

/// Notes which of them the host itself may not write to.
pub(super) fn tell_read_only(places: &mut [Place], on_host: &[Mount<'_>]) {
    for place in places {
        // The last at a point is the one that is seen there.
        let there = on_host.iter().rev().find(|mount| mount.point == place.point);
        place.read_only_on_host =
            there.filter(|mount| mount.device == place.device).map(|mount| mount.read_only);
    }
}
