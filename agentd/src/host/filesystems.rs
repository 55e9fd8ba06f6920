//! Space on filesystems.
//!
//! `statvfs` of a network filesystem whose server is gone doesn't return. So this is a lane of its own, and each
//! filesystem is asked by a worker with a deadline: one that hangs has no values, and the reason, until it answers; the
//! others go on.
//!
//! Which are read-only is asked of process 1: the agent's own service sees nearly all of them so, because it may not write
//! there, and statvfs would say the same.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::v1::{Absence, EventKind, Metric, Source, SourceState};
use rustix::fs::StatVfsMountFlags;

use crate::host::lacking::{Lacking, absent};
use crate::host::mounts::{Mount, mounts};
use crate::host::read::{Buffer, Keep, KeptFile, ReadError, Shape, chain};
use crate::host::readings::Readings;
use crate::host::workers::{Patience, Workers};
use crate::sample::{Cycle, Found, Happened, Lane, Object, SourceReport, Taken};

/// A disk that must spin up takes seconds and then has values at the next reading.
const PATIENCE: Patience = Patience { answer: Duration::from_secs(1), round: Duration::from_secs(4) };

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
const MOST_MEMORY: usize = 64;

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

/// Reads what is free on each mounted filesystem.
#[derive(Debug)]
pub struct FilesystemLane {
    root: PathBuf,
    mountinfo: KeptFile,
    /// Of process 1: as the host has them.
    of_host: KeptFile,
    buffer: Buffer,
    workers: Workers<PathBuf, io::Result<Space>>,
    /// By mount point.
    known: HashMap<String, Known>,
    lacking: Lacking,
    whole: Arc<str>,
}

/// A filesystem that has answered.
#[derive(Debug)]
struct Known {
    /// Another filesystem that is mounted in the same place is another one.
    device: String,
    instance: Arc<str>,
    read_only: bool,
    /// It answered in the last reading too.
    read: bool,
}

/// A filesystem to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    point: String,
    device: String,
    kind: Kind,
    /// `None` where the host's own mounts can't be read, or have another filesystem there.
    read_only_on_host: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stored,
    /// A tmpfs.
    Memory,
}

/// What one reading gave beside values.
#[derive(Debug, Default)]
struct Outcome {
    absences: Vec<Absence>,
    problems: Vec<String>,
    events: Vec<Happened>,
    /// Something that was read before was not read now.
    lost: bool,
}

impl FilesystemLane {
    /// `root` is `/`, or a tree that looks like one. What can't be read is told to `lacking`.
    #[must_use]
    pub fn new(root: &Path, lacking: Lacking) -> Self {
        Self::with(root, lacking, statvfs, PATIENCE)
    }

    fn with(root: &Path, lacking: Lacking, probe: Probe, patience: Patience) -> Self {
        Self {
            root: root.to_path_buf(),
            mountinfo: KeptFile::new(root.join("proc/self/mountinfo"), Shape::Records, Keep::Open),
            of_host: KeptFile::new(root.join("proc/1/mountinfo"), Shape::Records, Keep::Open),
            buffer: Buffer::default(),
            workers: Workers::new("statvfs", move |path: PathBuf| probe(&path), patience),
            known: HashMap::new(),
            lacking,
            whole: Arc::from(""),
        }
    }

    /// What to ask about, and how many are left out.
    fn mounted(&mut self) -> Result<(Vec<Place>, usize), ReadError> {
        let found =
            self.mountinfo.parse(&mut self.buffer, |text| mounts(text).map(|mounts| distinct(&mounts)));
        let mut places = found?;
        let on_host = self
            .of_host
            .parse(&mut self.buffer, |text| mounts(text).map(|mounts| tell_read_only(&mut places, &mounts)));
        match on_host {
            // The agent's own service has some that hide the host's directories from it.
            Ok(()) => places.retain(|place| place.kind == Kind::Stored || place.read_only_on_host.is_some()),
            Err(error) => tracing::debug!(
                error = chain(&error),
                "mounts of process 1 not read: statvfs says what is read-only"
            ),
        }
        let left_out = bound_memory(&mut places);
        Ok((places, left_out))
    }

    fn all(&mut self, places: &[Place], readings: &mut Readings) -> Outcome {
        let mut outcome = Outcome::default();
        self.workers.begin(|point| places.iter().any(|place| place.point == point));
        let before = self.known.len();
        self.known.retain(|point, known| {
            places.iter().any(|place| place.point == *point && place.device == known.device)
        });
        outcome.lost = self.known.len() < before;
        for place in places {
            let path = self.root.join(place.point.trim_start_matches('/'));
            let problem = match self.workers.ask(&place.point, path) {
                // One without a limit is as full as the host's memory, which is told.
                Ok(Ok(answer)) if place.kind == Kind::Memory && answer.size_bytes == 0 => continue,
                Ok(Ok(answer)) => {
                    let read_only = place.read_only_on_host.unwrap_or(answer.read_only);
                    let space = Space { read_only, ..answer };
                    let known = self.known.entry(place.point.clone()).or_insert_with(|| Known {
                        device: place.device.clone(),
                        instance: Arc::from(place.point.as_str()),
                        read_only: space.read_only,
                        read: true,
                    });
                    known.read = true;
                    outcome.events.extend(changed(&place.point, known.read_only, space.read_only));
                    known.read_only = space.read_only;
                    emit(readings, &known.instance, space);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(unanswered) => unanswered.to_string(),
            };
            if let Some(known) = self.known.get_mut(&place.point) {
                outcome.lost |= std::mem::take(&mut known.read);
            }
            outcome.absences.extend(METRICS.map(|metric| absent(metric, &place.point, problem.clone())));
            outcome.problems.push(format!("statvfs {}: {problem}", place.point));
        }
        outcome
    }
}

impl Lane for FilesystemLane {
    fn name(&self) -> &'static str {
        "filesystems"
    }

    fn source(&self) -> Source {
        Source::Statvfs
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let mut readings = Readings::new(&self.whole, self.known.len() * METRICS.len());
        let (outcome, left_out) = match self.mounted() {
            Ok((places, left_out)) => (self.all(&places, &mut readings), left_out),
            Err(error) => (Outcome { problems: vec![chain(&error)], lost: true, ..Outcome::default() }, 0),
        };
        self.lacking.replace(self.name(), outcome.absences);
        let state = if outcome.problems.is_empty() { SourceState::Ok } else { SourceState::Failing };
        let mut details = outcome.problems;
        details.extend((left_out > 0).then(|| format!("{left_out} more tmpfs are not shown")));
        let detail = details.join("; ");
        let samples = readings.into_samples(Object::Node, outcome.lost);
        let sources = vec![SourceReport { source: Source::Statvfs, instance: Arc::default(), state, detail }];
        Cycle { taken, found: Found::Nothing, samples, sources, events: outcome.events }
    }
}

fn changed(point: &str, was_read_only: bool, is_read_only: bool) -> Option<Happened> {
    let kind = match (was_read_only, is_read_only) {
        (false, true) => EventKind::FilesystemReadOnly,
        (true, false) => EventKind::FilesystemWritable,
        (true, true) | (false, false) => return None,
    };
    Some(Happened { kind, object: Object::Node, detail: point.to_owned() })
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

/// What to ask about: each filesystem once, where its path is the shortest, and none that another mount hides.
fn distinct(mounts: &[Mount<'_>]) -> Vec<Place> {
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
fn bound_memory(places: &mut Vec<Place>) -> usize {
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
fn tell_read_only(places: &mut [Place], on_host: &[Mount<'_>]) {
    for place in places {
        // The last at a point is the one that is seen there.
        let there = on_host.iter().rev().find(|mount| mount.point == place.point);
        place.read_only_on_host =
            there.filter(|mount| mount.device == place.device).map(|mount| mount.read_only);
    }
}

/// All that is told of a filesystem; one may have no inodes.
const METRICS: [Metric; 6] = [
    Metric::NodeFilesystemSize,
    Metric::NodeFilesystemFree,
    Metric::NodeFilesystemAvailable,
    Metric::NodeFilesystemReadOnly,
    Metric::NodeFilesystemInodes,
    Metric::NodeFilesystemInodesFree,
];

fn emit(readings: &mut Readings, instance: &Arc<str>, space: Space) {
    let (inodes, inodes_free) = space.inodes.unzip();
    let values = [
        Some(space.size_bytes),
        Some(space.free_bytes),
        Some(space.available_bytes),
        Some(u64::from(space.read_only)),
        inodes,
        inodes_free,
    ];
    for (metric, value) in METRICS.into_iter().zip(values) {
        if let Some(value) = value {
            readings.gauge(Source::Statvfs, metric, instance, value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use horcrux_transport::clock;

    use super::*;

    const REAL: &str = include_str!("../../testdata/proc/hybrid/self/mountinfo");
    const THREE: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /mnt/hung rw - nfs4 h:/x rw\n\
                         3 1 8:2 / /srv rw - xfs /dev/sdb1 rw\n";
    const SPACE: Space = Space {
        size_bytes: 100,
        free_bytes: 45,
        available_bytes: 40,
        inodes: Some((10, 5)),
        read_only: false,
    };
    const TAKEN: Taken = Taken { unix_ms: 0, boottime_ns: 0 };

    fn points(text: &str) -> Vec<String> {
        distinct(&mounts(text).unwrap()).into_iter().map(|place| place.point).collect()
    }

    /// A lane over a list of mounts, which is in the directory.
    fn lane(text: &str, probe: Probe) -> (tempfile::TempDir, FilesystemLane) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        fs::write(dir.path().join("proc/self/mountinfo"), text).unwrap();
        let patience = Patience { answer: Duration::from_millis(50), round: Duration::from_secs(60) };
        let lane = FilesystemLane::with(dir.path(), Lacking::default(), probe, patience);
        (dir, lane)
    }

    /// Mount points that have a size.
    fn sizes(cycle: &Cycle) -> Vec<&str> {
        let readings = cycle.samples.iter().flat_map(|sample| &sample.readings);
        readings.filter(|r| r.metric == Metric::NodeFilesystemSize).map(|r| &*r.instance).collect()
    }

    #[test]
    fn pseudo_filesystems_are_left_out() {
        assert_eq!(points(REAL), ["/", "/dev/shm"]);
    }

    #[test]
    fn a_device_mounted_twice_is_asked_about_once() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /var /srv/var rw - ext4 /dev/sda1 rw\n\
                    3 1 8:2 / /home rw - xfs /dev/sda2 rw\n";
        assert_eq!(points(text), ["/", "/home"]);
    }

    #[test]
    fn a_mount_that_another_hides_is_not_asked_about() {
        let text = "1 0 8:1 / /mnt rw - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt rw - proc proc rw\n";
        assert_eq!(points(text), [""; 0]);
        let text = "1 0 8:1 / /mnt rw - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt rw - tmpfs tmpfs rw\n";
        assert_eq!(points(text), ["/mnt"]);
    }

    fn tmpfs(points: &[&str]) -> String {
        let line = |(at, point): (usize, &&str)| format!("{at} 0 0:{at} / {point} rw - tmpfs tmpfs rw\n");
        points.iter().enumerate().map(line).collect()
    }

    #[test]
    fn memory_that_is_used_as_a_disk_is_shown_where_it_is_the_host_s() {
        let shown = ["/dev/shm", "/run", "/run/user/1000", "/srv/t1", "/tmp"];
        let not = [
            "/dev",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/a/shm",
            "/run/credentials/web.service",
            "/sys/fs/cgroup",
            "/var/lib/docker/containers/a/mounts/shm",
            "/var/lib/kubelet/pods/a/volumes/kubernetes.io~secret/b",
        ];
        assert_eq!(points(&tmpfs(&[&shown[..], &not].concat())), shown);
    }

    fn without_limit_at_srv(path: &Path) -> io::Result<Space> {
        let size_bytes = if path.ends_with("srv") { 0 } else { SPACE.size_bytes };
        Ok(Space { size_bytes, ..SPACE })
    }

    #[test]
    fn memory_without_a_limit_or_of_the_agent_s_own_service_is_not_shown() {
        let (dir, mut lane) = lane(&tmpfs(&["/run", "/srv", "/home"]), without_limit_at_srv);
        assert_eq!(sizes(&lane.read(TAKEN)), ["/home", "/run"]);
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/mountinfo"), tmpfs(&["/run", "/srv"])).unwrap();
        assert_eq!(sizes(&lane.read(TAKEN)), ["/run"]);
    }

    #[test]
    fn of_hundreds_of_sessions_some_are_shown_and_how_many_are_not_is_told() {
        let sessions: Vec<String> = (1000..1300).map(|user| format!("/run/user/{user}")).collect();
        let all: Vec<&str> = sessions.iter().map(String::as_str).chain(["/run", "/tmp"]).collect();
        let (_dir, mut lane) = lane(&tmpfs(&all), |_| Ok(SPACE));
        let cycle = lane.read(TAKEN);
        let shown = sizes(&cycle);
        assert!(
            shown.len() == MOST_MEMORY && shown.contains(&"/tmp") && shown.contains(&"/run"),
            "{shown:?}"
        );
        let source = &cycle.sources[0];
        assert_eq!((source.state, source.detail.as_str()), (SourceState::Ok, "238 more tmpfs are not shown"));
    }

    #[test]
    fn what_is_read_only_is_as_the_host_has_it() {
        let sees_all_read_only = |_: &Path| Ok(Space { read_only: true, ..SPACE });
        let (dir, mut lane) = lane(THREE, sees_all_read_only);
        let read_only = |cycle: &Cycle| {
            let readings = cycle.samples.iter().flat_map(|sample| &sample.readings);
            let of = readings.filter(|r| r.metric == Metric::NodeFilesystemReadOnly);
            of.map(|r| (r.instance.to_string(), format!("{:?}", r.value))).collect::<Vec<_>>()
        };
        let unknown = read_only(&lane.read(TAKEN));
        assert!(unknown.iter().all(|(_, value)| *value == unknown[0].1), "as statvfs says: {unknown:?}");
        let host = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n3 1 8:2 / /srv ro - xfs /dev/sdb1 rw\n\
                    2 1 0:51 / /mnt/hung rw - nfs4 h:/y rw\n";
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/mountinfo"), host).unwrap();
        let told = read_only(&lane.read(TAKEN));
        let of = |point: &str| &told.iter().find(|(at, _)| at == point).unwrap().1;
        let (yes, no) = (&unknown[0].1, of("/"));
        assert_ne!(yes, no);
        assert_eq!((of("/srv"), of("/mnt/hung")), (yes, yes), "the host has another filesystem at /mnt/hung");
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
    fn a_hung_filesystem_costs_itself_only_says_why_and_comes_back() {
        let (_dir, mut lane) = lane(THREE, hangs);
        let all = ["/", "/mnt/hung", "/srv"];
        assert_eq!(sizes(&lane.read(TAKEN)), all);
        let gone = SERVER.lock().unwrap();
        for round in 0..2 {
            let cycle = lane.read(TAKEN);
            assert_eq!(sizes(&cycle), ["/", "/srv"]);
            assert_eq!(cycle.samples[0].readings.is_empty(), round == 0, "what it had is withdrawn, once");
            assert_eq!(cycle.sources[0].state, SourceState::Failing);
            assert!(cycle.sources[0].detail.starts_with("statvfs /mnt/hung: no answer"), "{cycle:?}");
            let lacking = lane.lacking.all();
            assert!(lacking.len() == METRICS.len() && lacking.iter().all(|a| a.instance == "/mnt/hung"));
        }
        drop(gone);
        let until = clock::monotonic() + Duration::from_secs(10);
        while sizes(&lane.read(TAKEN)) != all {
            assert!(clock::monotonic() < until, "it never came back");
        }
        assert_eq!(lane.lacking.all(), []);
    }

    /// Whether `/mnt/turns` is read-only.
    static READ_ONLY: Mutex<bool> = Mutex::new(false);

    fn turns(path: &Path) -> io::Result<Space> {
        Ok(Space { read_only: path.ends_with("turns") && *READ_ONLY.lock().unwrap(), ..SPACE })
    }

    #[test]
    fn a_filesystem_that_becomes_read_only_is_an_event_and_one_that_is_new_is_not() {
        let mounts = |device: &str| format!("2 1 {device} / /mnt/turns rw - ext4 /dev/sdb rw\n");
        let (dir, mut lane) = lane(&mounts("8:16"), turns);
        let mut kinds = Vec::new();
        for read_only in [false, true, true, false] {
            *READ_ONLY.lock().unwrap() = read_only;
            kinds.extend(lane.read(TAKEN).events.into_iter().map(|event| event.kind));
        }
        assert_eq!(kinds, [EventKind::FilesystemReadOnly, EventKind::FilesystemWritable]);
        *READ_ONLY.lock().unwrap() = true;
        fs::write(dir.path().join("proc/self/mountinfo"), mounts("8:32")).unwrap();
        assert_eq!(lane.read(TAKEN).events, [], "it is another filesystem");
    }

    #[test]
    fn the_root_of_this_machine_has_a_size() {
        let space = statvfs(Path::new("/")).unwrap();
        assert!(space.size_bytes > space.available_bytes && space.available_bytes > 0, "{space:?}");
    }

    #[test]
    fn a_mount_point_that_is_gone_has_no_values_and_a_reason() {
        let (dir, mut lane) = lane(THREE, statvfs);
        let cycle = lane.read(TAKEN);
        assert_eq!(sizes(&cycle), ["/"], "the directory that stands for the root is there");
        assert!(cycle.sources[0].detail.contains("/srv: No such file"), "{cycle:?}");
        fs::remove_file(dir.path().join("proc/self/mountinfo")).unwrap();
        lane.mountinfo = KeptFile::new(dir.path().join("proc/self/mountinfo"), Shape::Records, Keep::Open);
        let cycle = lane.read(TAKEN);
        assert!(sizes(&cycle).is_empty() && cycle.sources[0].detail.contains("mountinfo"), "{cycle:?}");
    }
}
