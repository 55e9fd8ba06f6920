//! Space on filesystems.
//!
//! `statvfs` of a network filesystem whose server is gone doesn't return. So this is a lane of its own, and each
//! filesystem is asked by a worker with a deadline: one that hangs has no values, and the reason, until it answers; the
//! others go on.
//!
//! Which are read-only is asked of process 1: the agent's own service sees nearly all of them so, because it may not write
//! there, and statvfs would say the same.

mod places;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::v1::{Absence, EventKind, Metric, Source, SourceState};
use rustix::fs::StatVfsMountFlags;

use crate::host::lacking::{Lacking, absent};
use crate::host::mounts::mounts;
use crate::host::read::{Buffer, Keep, KeptFile, ReadError, Shape, chain};
use crate::host::readings::Readings;
use crate::host::workers::{Patience, Workers};
use crate::sample::{Cycle, Found, Happened, Lane, Object, SourceReport, Taken};

use self::places::{Kind, Place, bound_memory, distinct, tell_read_only};

/// A disk that must spin up takes seconds and then has values at the next reading.
const PATIENCE: Patience =
    Patience { answer: Duration::from_secs(1), round: Duration::from_secs(4), late: 64 };

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
mod tests;
