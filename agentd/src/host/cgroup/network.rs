//! A container's network, as one of its processes sees it.
//!
//! `/proc/PID/net/dev` needs no privilege, and its inode number tells one network namespace from another. Between two
//! readings the process's directory is kept: it never comes to mean another process, as a number does, and it follows its
//! process into another namespace. The file in it isn't kept, though that would cost 2 µs instead of 6: an open one holds
//! its namespace (Linux, fs/proc/proc_net.c, `seq_open_net`), and an interface that was lent to a container that has ended
//! would be kept from the host until the agent let go of it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Absence, Metric, Source};
use rustix::fs::{Mode, OFlags, openat};

use crate::host::proc::net_dev;
use crate::host::read::{Buffer, Keep, Malformed, ReadError, Shape, chain};
use crate::host::readings::Readings;

use super::identity::{holds_pods, identity};

/// Each with its column in `net/dev`.
const METRICS: [(Metric, usize); 8] = [
    (Metric::ContainerNetworkRxBytes, 0),
    (Metric::ContainerNetworkRxPackets, 1),
    (Metric::ContainerNetworkRxErrors, 2),
    (Metric::ContainerNetworkRxDrops, 3),
    (Metric::ContainerNetworkTxBytes, 8),
    (Metric::ContainerNetworkTxPackets, 9),
    (Metric::ContainerNetworkTxErrors, 10),
    (Metric::ContainerNetworkTxDrops, 11),
];
/// Interfaces that runtimes within a container make for containers of their own. What passes them passes its other
/// interfaces too.
const INNER: [&str; 9] = ["veth", "docker", "br-", "cni", "podman", "lxcbr", "lxdbr", "virbr", "vnet"];
/// Whoever is root in a container makes as many as he likes: those beyond are in the sum only.
const MOST_INTERFACES: usize = 16;
/// Processes of a container that are tried. Some of them may be ending.
const MOST_TRIED: usize = 8;
/// Groups below a container's in which its processes are looked for: an init system has a hundred.
const MOST_GROUPS: usize = 256;
/// Of a list of processes, so much is read.
const LISTED_BYTES: u64 = 4096;

const OF_NODE: &str = "it shares the node's network";
const LOOPBACK_ALONE: &str = "its network namespace has no interface but loopback";
const NO_PROCESS: &str = "no process of it was found";
const HIDDEN: &str = "/proc doesn't show its processes: it is mounted with hidepid, or the agent has a pid namespace of its own";

/// Where networks are looked up.
#[derive(Debug)]
pub(super) struct Networks {
    proc: PathBuf,
    /// Namespaces that are the node's: of its first process, and the agent's own.
    of_node: Vec<u64>,
}

/// One container's.
#[derive(Debug)]
pub(super) struct Network {
    keep: Keep,
    member: Option<Member>,
    /// The namespace that was read last.
    namespace: Option<u64>,
    problem: Option<String>,
    /// It was found on the node's network, which processes seldom leave: it is looked at again when it is checked.
    rests: bool,
    /// Names, kept and shared.
    interfaces: Vec<Arc<str>>,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// What is absent, or why, isn't what it was.
    pub(super) absences_changed: bool,
    /// What was read before is of another namespace, or isn't known any more: its counters end there.
    pub(super) lost: bool,
}

/// A process of a container.
#[derive(Debug)]
struct Member {
    pid: u32,
    dir: File,
    path: PathBuf,
    /// Where it is listed.
    group: PathBuf,
}

impl Networks {
    pub(super) fn new(root: &Path) -> Self {
        let mut networks = Self { proc: root.join("proc"), of_node: Vec::new() };
        networks.look_again();
        networks
    }

    pub(super) fn look_again(&mut self) {
        let of = |process| fs::metadata(self.proc.join(process).join("net/dev")).map(|file| file.ino());
        self.of_node = ["1", "self"].into_iter().flat_map(of).collect();
    }
}

impl Network {
    /// How many files it keeps open at most.
    pub(super) const FILES: usize = 1;

    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, member: None, namespace: None, problem: None, rests: false, interfaces: Vec::new() }
    }

    pub(super) fn open_files(&self) -> usize {
        usize::from(self.member.is_some())
    }

    /// Makes sure that the process which stands for the container is still in it.
    pub(super) fn check(&mut self) {
        self.rests = false;
        self.member.take_if(|member| !processes(&member.group).contains(&member.pid));
    }

    /// `group` is a directory of the container in some hierarchy.
    pub(super) fn read(
        &mut self,
        group: &Path,
        networks: &Networks,
        buffer: &mut Buffer,
        readings: &mut Readings,
    ) -> Looked {
        if self.rests {
            return Looked::default();
        }
        let (namespace, problem) = match self.counters(group, networks, buffer, readings) {
            Ok(namespace) => (Some(namespace), None),
            Err(problem) => (None, Some(problem)),
        };
        let before = std::mem::replace(&mut self.namespace, namespace);
        let absences_changed = self.problem != problem;
        self.rests = problem.as_deref() == Some(OF_NODE);
        self.problem = problem;
        Looked { absences_changed, lost: before.is_some() && before != namespace }
    }

    pub(super) fn absences(&self) -> impl Iterator<Item = Absence> {
        let absent = |reason: &str| {
            METRICS.map(|(metric, _)| Absence {
                metric: metric.into(),
                instance: String::new(),
                reason: reason.to_owned(),
            })
        };
        self.problem.as_deref().map(absent).into_iter().flatten()
    }

    /// Gives the namespace that was read, or says why none was.
    fn counters(
        &mut self,
        group: &Path,
        networks: &Networks,
        buffer: &mut Buffer,
        readings: &mut Readings,
    ) -> Result<u64, String> {
        let kept = self.member.take().and_then(|member| member.counted().ok().map(|file| (member, file)));
        let (member, file) = match kept {
            Some(kept) => kept,
            None => find(group, &networks.proc)?,
        };
        let namespace = file.metadata().map_err(|error| format!("{}: {error}", member.path.display()))?.ino();
        let counted = if networks.of_node.contains(&namespace) {
            Err(OF_NODE.to_owned())
        } else {
            self.emit(&member.path, &file, buffer, readings).map(|()| namespace)
        };
        if self.keep == Keep::Open {
            self.member = Some(member);
        }
        counted
    }

    fn emit(
        &mut self,
        path: &Path,
        file: &File,
        buffer: &mut Buffer,
        readings: &mut Readings,
    ) -> Result<(), String> {
        let text = buffer.text(file, Shape::Records, path).map_err(|error| chain(&error))?;
        let mut all = net_dev(text)
            .map_err(|Malformed(what)| chain(&ReadError::Malformed { path: path.to_path_buf(), what }))?;
        all.retain(|(name, _)| *name != "lo");
        if all.iter().any(|(name, _)| !is_inner(name)) {
            all.retain(|(name, _)| !is_inner(name));
        }
        if all.is_empty() {
            return Err(LOOPBACK_ALONE.to_owned());
        }
        self.interfaces.retain(|known| all.iter().any(|(name, _)| **known == **name));
        let mut sums = [0_u64; METRICS.len()];
        for (at, (name, counters)) in all.into_iter().enumerate() {
            let instance = (at < MOST_INTERFACES).then(|| self.shared_name(name));
            for ((metric, column), sum) in METRICS.into_iter().zip(&mut sums) {
                *sum = sum.wrapping_add(counters[column]);
                if let Some(instance) = &instance {
                    readings.counter(Source::Proc, metric, instance, counters[column]);
                }
            }
        }
        for ((metric, _), sum) in METRICS.into_iter().zip(sums) {
            readings.whole_counter(Source::Proc, metric, sum);
        }
        Ok(())
    }

    fn shared_name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.interfaces.iter().find(|known| ***known == *name) {
            return Arc::clone(known);
        }
        let made: Arc<str> = Arc::from(name);
        self.interfaces.push(Arc::clone(&made));
        made
    }
}

impl Member {
    fn open(pid: u32, proc: &Path, group: &Path) -> io::Result<Self> {
        let path = proc.join(pid.to_string());
        Ok(Self { pid, dir: File::open(&path)?, path, group: group.to_path_buf() })
    }

    /// What counts its packets; fails when it has ended.
    fn counted(&self) -> io::Result<File> {
        Ok(File::from(openat(&self.dir, "net/dev", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
    }
}

fn is_inner(name: &str) -> bool {
    INNER.iter().any(|prefix| name.starts_with(prefix))
}

/// A process of the container, with what counts its packets.
fn find(group: &Path, proc: &Path) -> Result<(Member, File), String> {
    let Some((dir, listed)) = members(group) else { return Err(NO_PROCESS.to_owned()) };
    let mut problem = HIDDEN.to_owned();
    for pid in listed.into_iter().take(MOST_TRIED).filter(|pid| *pid != 0) {
        let Ok(member) = Member::open(pid, proc, &dir) else { continue };
        // Its number may have come to mean another between being listed and being opened.
        if !processes(&dir).contains(&pid) {
            problem = NO_PROCESS.to_owned();
            continue;
        }
        match member.counted() {
            Ok(file) => return Ok((member, file)),
            Err(error) => problem = format!("open {}/net/dev: {error}", member.path.display()),
        }
    }
    Err(problem)
}

/// Processes of the container and the group where they are: its own, or else the nearest below that isn't that of a
/// container in it, whose network is another.
fn members(group: &Path) -> Option<(PathBuf, Vec<u32>)> {
    let mut below = VecDeque::from([(group.to_path_buf(), false)]);
    for _ in 0..MOST_GROUPS {
        let (dir, in_pod) = below.pop_front()?;
        let listed = processes(&dir);
        if !listed.is_empty() {
            return Some((dir, listed));
        }
        let parent = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> = dirs.flat_map(|entry| entry.file_name().into_string()).collect();
        names.sort_unstable();
        names.retain(|name| identity(parent, name, in_pod).is_none());
        below.extend(names.iter().map(|name| (dir.join(name), in_pod || holds_pods(name))));
    }
    None
}

/// A group's own processes, the first of them where there are many. One of another pid namespace is listed as 0.
fn processes(group: &Path) -> Vec<u32> {
    let mut text = String::new();
    let read = File::open(group.join("cgroup.procs"))
        .and_then(|file| file.take(LISTED_BYTES).read_to_string(&mut text));
    match (read, text.rfind('\n')) {
        (Ok(_), Some(end)) => text[..end].lines().flat_map(str::parse).collect(),
        // A group that can't be listed, such as one of threads, has none to offer.
        (Ok(_), None) | (Err(_), _) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
