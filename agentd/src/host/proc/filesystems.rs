//! Mounted file systems. Asking a file system for its size can hang (a server of NFS that went away), so a thread of its
//! own asks: a mount that doesn't answer costs the mounts behind it in the list until it does, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use horcrux_proto::v1::{Metric, Source};
use procfs::process::MountInfos;
use procfs::{FromBufRead as _, FromRead as _};

use super::super::file::{Held, ReadError};
use super::Gathered;
use crate::sample::Value;

/// Sizes change slowly, and asking for them is a call per mount.
const EVERY: u32 = 10;
/// Kinds that hold files of somebody's; the rest is the kernel's own.
const KINDS: [&str; 14] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "vfat", "exfat", "nfs", "nfs4",
    "cifs", "ceph",
];

#[derive(Debug)]
pub(super) struct Filesystems {
    mountinfo: Held,
    root: PathBuf,
    readings: u32,
    asker: Option<Asker>,
}

#[derive(Debug)]
struct Asker {
    mounts: SyncSender<Vec<PathBuf>>,
    answers: Receiver<Vec<Sizes>>,
    /// A list was sent and its answer has not come.
    busy: bool,
}

#[derive(Debug)]
struct Sizes {
    mountpoint: Arc<str>,
    size: f64,
    available: f64,
    inodes: f64,
    inodes_free: f64,
    read_only: f64,
}

impl Filesystems {
    pub(super) fn new(root: &Path) -> Self {
        let mountinfo = Held::new(root.join("proc/self/mountinfo"));
        Self { mountinfo, root: root.to_owned(), readings: 0, asker: None }
    }

    pub(super) fn read(&mut self, out: &mut Gathered) {
        self.answers(out);
        let due = self.readings.is_multiple_of(EVERY);
        self.readings = self.readings.wrapping_add(1);
        if due {
            let asked = self.ask(out);
            out.part(asked);
        }
    }

    fn answers(&mut self, out: &mut Gathered) {
        let Some(asker) = &mut self.asker else { return };
        match asker.answers.try_recv() {
            Ok(all) => {
                asker.busy = false;
                for sizes in all {
                    let values = [
                        (Metric::NodeFilesystemSize, sizes.size),
                        (Metric::NodeFilesystemAvailable, sizes.available),
                        (Metric::NodeFilesystemInodes, sizes.inodes),
                        (Metric::NodeFilesystemInodesFree, sizes.inodes_free),
                        (Metric::NodeFilesystemReadOnly, sizes.read_only),
                    ];
                    for (metric, value) in values {
                        out.put(metric, &sizes.mountpoint, Value::Gauge(value), Source::Proc);
                    }
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.asker = None,
        }
    }

    fn ask(&mut self, out: &mut Gathered) -> Result<(), ReadError> {
        if self.asker.as_ref().is_some_and(|asker| asker.busy) {
            out.problems.push("a file system doesn't answer".to_owned());
            return Ok(());
        }
        let mounts = match self.mountinfo.read() {
            Ok(text) => mounts(text),
            // A tree without it has no mounts to tell.
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(mounts) = mounts else { return Err(self.mountinfo.malformed()) };
        let asker = match &mut self.asker {
            Some(asker) => asker,
            none => {
                let started = Asker::start(self.root.clone());
                let started = started.map_err(|source| ReadError::Io { path: "statvfs".into(), source })?;
                none.insert(started)
            }
        };
        asker.busy = asker.mounts.try_send(mounts).is_ok();
        Ok(())
    }
}

impl Asker {
    fn start(root: PathBuf) -> std::io::Result<Self> {
        // One list is under way at a time.
        let (mounts, lists) = sync_channel::<Vec<PathBuf>>(1);
        let (to_lane, answers) = sync_channel(1);
        thread::Builder::new().name("filesystems".to_owned()).spawn(move || {
            while let Ok(list) = lists.recv() {
                let sizes = list.iter().filter_map(|mount| sizes(&root, mount)).collect();
                if to_lane.send(sizes).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { mounts, answers, busy: false })
    }
}

/// Each device once, where it was mounted first: a bind mount shows the same numbers again.
fn mounts(text: &str) -> Option<Vec<PathBuf>> {
    let all = MountInfos::from_buf_read(text.as_bytes())
        .or_else(|_| MountInfos::from_read(text.as_bytes()))
        .ok()?;
    let mut seen = std::collections::HashSet::new();
    let kept =
        all.into_iter().filter(|m| KINDS.contains(&m.fs_type.as_str()) && seen.insert(m.majmin.clone()));
    Some(kept.map(|m| m.mount_point).collect())
}

fn sizes(root: &Path, mount: &Path) -> Option<Sizes> {
    let below = mount.strip_prefix("/").unwrap_or(mount);
    let stat = rustix::fs::statvfs(root.join(below)).ok()?;
    let float = horcrux_proto::rates::float;
    Some(Sizes {
        mountpoint: mount.to_string_lossy().into(),
        size: float(stat.f_blocks) * float(stat.f_frsize),
        available: float(stat.f_bavail) * float(stat.f_frsize),
        inodes: float(stat.f_files),
        inodes_free: float(stat.f_ffree),
        read_only: if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) { 1.0 } else { 0.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_listed_once_and_the_kernels_own_not_at_all() {
        let text = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:0 /x /mnt/x rw - ext4 /dev/vda rw\n\
                    3 1 0:20 / /proc rw - proc proc rw\n4 1 0:33 / /srv rw - nfs4 host:/srv rw\n";
        assert_eq!(mounts(text).unwrap(), [PathBuf::from("/"), PathBuf::from("/srv")]);
    }
}
