//! Two things measured in turns, in CPU time of the thread that does them: other work on the machine bends both alike, and
//! what is told of them is their ratio. criterion measures wall time, and one thing after the other.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 21;
/// A turn takes this long at least.
const TURN: Duration = Duration::from_millis(20);

/// Medians over all rounds, of one cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) floor: Duration,
    pub(crate) ours: Duration,
    pub(crate) ratio: f64,
}

/// `period`: after so many cycles each side has done everything that it does.
pub(crate) fn compare(period: u32, mut floor: impl FnMut(), mut ours: impl FnMut()) -> Cost {
    let once = timed(period, &mut floor) + timed(period, &mut ours);
    let periods = u32::try_from(TURN.as_nanos() / (once / 2).as_nanos().max(1)).unwrap_or(1).max(1);
    let cycles = period * periods;
    let mut rounds: Vec<(Duration, Duration)> = (0..ROUNDS)
        .map(|_| (timed(cycles, &mut floor) / cycles, timed(cycles, &mut ours) / cycles))
        .collect();
    let mut ratios: Vec<f64> =
        rounds.iter().map(|(floor, ours)| ours.as_secs_f64() / floor.as_secs_f64()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    rounds.sort_unstable_by_key(|(floor, _)| *floor);
    let floor = rounds[ROUNDS / 2].0;
    rounds.sort_unstable_by_key(|(_, ours)| *ours);
    Cost { floor, ours: rounds[ROUNDS / 2].1, ratio: ratios[ROUNDS / 2] }
}

/// One thing alone.
pub(crate) fn alone(mut what: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| timed(1, &mut what)).collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

pub(crate) fn timed(cycles: u32, what: &mut impl FnMut()) -> Duration {
    let before = cpu();
    for _ in 0..cycles {
        what();
    }
    cpu().saturating_sub(before)
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Files, read whole.
pub(crate) struct Floor {
    files: Vec<(PathBuf, File)>,
    buffer: Vec<u8>,
}

impl Floor {
    /// Those that this process keeps open now below one of these directories, what a lane that has read keeps; of all the
    /// groups of a cgroup hierarchy, one in `of`. There is no room for all of them twice.
    pub(crate) fn kept(below: &[&str], of: usize) -> Self {
        let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .filter(|path| below.iter().any(|dir| path.starts_with(dir)) && path.is_file())
            .collect();
        paths.sort_unstable();
        let files = paths.into_iter().step_by(of);
        let files = files.filter_map(|path| File::open(&path).ok().map(|file| (path, file)));
        Self { files: files.collect(), buffer: vec![0; 64 * 1024] }
    }

    /// Takes the files of these names away.
    pub(crate) fn split(&mut self, names: &[&str]) -> Self {
        let is_named = |path: &PathBuf| names.iter().any(|name| path.ends_with(name));
        let (named, rest) = std::mem::take(&mut self.files).into_iter().partition(|(path, _)| is_named(path));
        self.files = rest;
        Self { files: named, buffer: vec![0; 64 * 1024] }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn read(&mut self) {
        for (_, file) in &self.files {
            let length = file.read_at(&mut self.buffer, 0).unwrap_or(0);
            std::hint::black_box(length);
        }
    }
}
