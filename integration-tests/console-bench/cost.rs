//! What processes cost, from the scheduler's own count: clock ticks are too coarse for the seconds that are measured.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// CPU time, user and system, of each thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent(BTreeMap<u32, Duration>);

impl Spent {
    /// By a process, and by its children that live.
    pub(crate) fn by(pid: u32) -> anyhow::Result<Self> {
        let mut spent = Self::default();
        spent.add(pid)?;
        Ok(spent)
    }

    fn add(&mut self, pid: u32) -> anyhow::Result<()> {
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("look at a process's threads")? {
            let task = task?;
            let thread = task.file_name().to_string_lossy().parse()?;
            // One may end meanwhile: those that carry don't.
            let Ok(counted) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let ns = counted.split_whitespace().next().and_then(|ns| ns.parse().ok()).context("a count")?;
            self.0.insert(thread, Duration::from_nanos(ns));
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                self.add(child.parse()?)?;
            }
        }
        Ok(())
    }

    /// By those that are there still.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let spent = |(thread, now): (&u32, &Duration)| {
            now.saturating_sub(before.0.get(thread).copied().unwrap_or_default())
        };
        self.0.iter().map(spent).sum()
    }
}

/// In MiB: `VmRSS` or `VmHWM`.
pub(crate) fn memory(pid: u32, key: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib: f64 =
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("its memory")?;
    Ok(kib / 1024.0)
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let middle = of.len() / 2;
    if of.len() % 2 == 1 { of[middle] } else { f64::midpoint(of[middle - 1], of[middle]) }
}

/// How much of them is at most how large: 0.5 gives the median of many.
pub(crate) fn quantile(mut of: Vec<Duration>, share: f64) -> Duration {
    of.sort();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into them")]
    let at = ((of.len() as f64 * share) as usize).min(of.len() - 1);
    of[at]
}
