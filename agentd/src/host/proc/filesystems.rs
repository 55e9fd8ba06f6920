//! Space on filesystems.
//!
//! `statvfs` of a network filesystem whose server is gone doesn't return. So it is asked on a thread of its own, with a
//! deadline; a thread that overruns is left to its mount, which has no values until it answers, and the other mounts
//! get a new thread.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use horcrux_proto::v1::{Metric, Source};
use rustix::fs::StatVfsMountFlags;

use crate::host::mounts::{Mount, mounts};
use crate::host::read::Malformed;
use crate::host::readings::Readings;

/// A disk that must spin up takes seconds and then has values at the next reading; the lane isn't held up for it.
const DEADLINE: Duration = Duration::from_millis(500);

/// Types that hold somebody's data. Pseudo filesystems, overlays and images (squashfs, iso9660) are left out: they
/// have no space of their own, or are always full.
const TYPES: [&str; 22] = [
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
    "virtiofs",
];

/// What `statvfs` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    size_bytes: u64,
    /// With what is kept for root.
    free_bytes: u64,
    available_bytes: u64,
    /// Unset where inodes are made as needed, as in btrfs.
    inodes: Option<(u64, u64)>,
    read_only: bool,
}

type Probe = fn(&Path) -> io::Result<Space>;

#[derive(Debug)]
pub(super) struct Filesystems {
    root: PathBuf,
    probe: Probe,
    deadline: Duration,
    prober: Option<Prober>,
    stuck: HashMap<String, Prober>,
    instances: HashMap<String, Arc<str>>,
}

/// A thread that asks about one mount at a time. It ends when this is dropped, or when its mount answers after that.
#[derive(Debug)]
struct Prober {
    mounts: SyncSender<PathBuf>,
    answers: Receiver<io::Result<Space>>,
}

impl Filesystems {
    pub(super) fn new(root: &Path) -> Self {
        Self::with(root, statvfs, DEADLINE)
    }

    fn with(root: &Path, probe: Probe, deadline: Duration) -> Self {
        let (stuck, instances) = (HashMap::new(), HashMap::new());
        Self { root: root.to_path_buf(), probe, deadline, prober: None, stuck, instances }
    }

    /// Takes mountinfo; gives what could not be read, one line for each mount.
    pub(super) fn read(&mut self, text: &str, readings: &mut Readings) -> Result<Vec<String>, Malformed> {
        let mounts = mounts(text)?;
        let mounts = distinct(&mounts);
        self.stuck.retain(|point, _| mounts.contains(&point.as_str()));
        self.instances.retain(|point, _| mounts.contains(&point.as_str()));
        let mut problems = Vec::new();
        for point in mounts {
            match self.space(point) {
                Ok(space) => {
                    let instance = self.instances.entry(point.to_owned()).or_insert_with(|| Arc::from(point));
                    emit(readings, instance, space);
                }
                Err(problem) => problems.push(format!("statvfs {point}: {problem}")),
            }
        }
        Ok(problems)
    }

    fn space(&mut self, point: &str) -> io::Result<Space> {
        if let Some(prober) = self.stuck.remove(point) {
            return match prober.answers.try_recv() {
                Ok(late) => {
                    self.prober.get_or_insert(prober);
                    late
                }
                Err(TryRecvError::Empty) => {
                    self.stuck.insert(point.to_owned(), prober);
                    Err(io::ErrorKind::TimedOut.into())
                }
                Err(TryRecvError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
            };
        }
        let prober = match self.prober.take() {
            Some(prober) => prober,
            None => Prober::start(self.probe)?,
        };
        let path = self.root.join(point.trim_start_matches('/'));
        if prober.mounts.send(path).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match prober.answers.recv_timeout(self.deadline) {
            Ok(answer) => {
                self.prober = Some(prober);
                answer
            }
            Err(RecvTimeoutError::Timeout) => {
                self.stuck.insert(point.to_owned(), prober);
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Prober {
    fn start(probe: Probe) -> io::Result<Self> {
        // One question and one answer at most: who asks waits, or gives the thread up.
        let (mounts, asked) = sync_channel::<PathBuf>(1);
        let (answer, answers) = sync_channel(1);
        let work = move || {
            while let Ok(path) = asked.recv() {
                if answer.send(probe(&path)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name("statvfs".to_owned()).spawn(work)?;
        Ok(Self { mounts, answers })
    }
}

fn statvfs(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space {
        size_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bfree.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: (stat.f_files > 0).then_some((stat.f_files, stat.f_favail)),
        read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

/// The mount points to ask about: one for each filesystem, the shortest, and not one that another mount hides.
fn distinct<'a>(mounts: &'a [Mount<'_>]) -> Vec<&'a str> {
    let mut visible: HashMap<&str, &Mount<'_>> = HashMap::new();
    for mount in mounts {
        visible.insert(&mount.point, mount);
    }
    let mut points: HashMap<&str, &str> = HashMap::new();
    for mount in visible.into_values().filter(|mount| TYPES.contains(&mount.filesystem)) {
        let point = points.entry(mount.device).or_insert(&mount.point);
        if (mount.point.len(), mount.point.as_str()) < (point.len(), *point) {
            *point = &mount.point;
        }
    }
    let mut points: Vec<&str> = points.into_values().collect();
    points.sort_unstable();
    points
}

fn emit(readings: &mut Readings, instance: &Arc<str>, space: Space) {
    let mut gauge = |metric, value| readings.gauge(Source::Proc, metric, instance, value);
    gauge(Metric::NodeFilesystemSize, space.size_bytes as f64);
    gauge(Metric::NodeFilesystemFree, space.free_bytes as f64);
    gauge(Metric::NodeFilesystemAvailable, space.available_bytes as f64);
    gauge(Metric::NodeFilesystemReadOnly, f64::from(u8::from(space.read_only)));
    if let Some((inodes, free)) = space.inodes {
        gauge(Metric::NodeFilesystemInodes, inodes as f64);
        gauge(Metric::NodeFilesystemInodesFree, free as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const REAL: &str = include_str!("../../../testdata/proc/hybrid/self/mountinfo");
    const TWO: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /mnt/hung rw - nfs4 h:/x rw\n\
                       3 1 8:2 / /srv rw - xfs /dev/sdb1 rw\n";
    const SPACE: Space = Space {
        size_bytes: 100,
        free_bytes: 45,
        available_bytes: 40,
        inodes: Some((10, 5)),
        read_only: false,
    };

    fn points(text: &str) -> Vec<String> {
        distinct(&mounts(text).unwrap()).into_iter().map(str::to_owned).collect()
    }

    fn sizes(filesystems: &mut Filesystems, text: &str) -> (Vec<String>, Vec<String>) {
        let mut readings = Readings::new(&Arc::from(""), 0);
        let problems = filesystems.read(text, &mut readings).unwrap();
        let list = readings.into_list().into_iter();
        let of_size = list.filter(|reading| reading.metric == Metric::NodeFilesystemSize);
        (of_size.map(|reading| reading.instance.to_string()).collect(), problems)
    }

    #[test]
    fn pseudo_filesystems_are_left_out() {
        assert_eq!(points(REAL), ["/"]);
    }

    #[test]
    fn a_device_mounted_twice_is_asked_about_once() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /var /srv/var rw - ext4 /dev/sda1 rw\n\
                    3 1 8:2 / /home rw - xfs /dev/sda2 rw\n";
        assert_eq!(points(text), ["/", "/home"]);
    }

    #[test]
    fn a_mount_that_another_hides_is_not_asked_about() {
        let text = "1 0 8:1 / /mnt rw - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt rw - tmpfs tmpfs rw\n";
        assert_eq!(points(text), [""; 0]);
    }

    /// Held by the test while `/mnt/hung` is to hang.
    static SERVER: Mutex<()> = Mutex::new(());

    fn hangs(path: &Path) -> io::Result<Space> {
        if path.ends_with("hung") {
            let _answers = SERVER.lock().unwrap();
        }
        Ok(SPACE)
    }

    #[test]
    fn a_hung_mount_costs_itself_only_and_comes_back() {
        let mut filesystems = Filesystems::with(Path::new("/"), hangs, Duration::from_millis(50));
        let gone = SERVER.lock().unwrap();
        for _ in 0..2 {
            let (read, problems) = sizes(&mut filesystems, TWO);
            assert_eq!(read, ["/", "/srv"]);
            assert_eq!(problems, ["statvfs /mnt/hung: timed out"]);
        }
        assert_eq!(filesystems.stuck.len(), 1);
        drop(gone);
        filesystems.deadline = Duration::from_secs(10);
        let answered = (0..1_000_000).any(|_| {
            thread::yield_now();
            sizes(&mut filesystems, TWO).0.len() == 3
        });
        assert!(answered);
    }

    #[test]
    fn the_root_of_this_machine_has_a_size() {
        let space = statvfs(Path::new("/")).unwrap();
        assert!(space.size_bytes > space.available_bytes && space.available_bytes > 0, "{space:?}");
    }

    #[test]
    fn a_mount_point_that_is_gone_has_no_values() {
        let mut filesystems = Filesystems::new(Path::new("/nonexistent"));
        let (read, problems) = sizes(&mut filesystems, TWO);
        assert_eq!((read.len(), problems.len()), (0, 3));
    }
}
