//! Reading at a fixed cadence: each lane on a thread of its own. A tick that was missed because the reading before still
//! ran is skipped and counted, never replayed. A lane that doesn't come back stalls itself only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use horcrux_proto::v1::Source;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::sample::{Cycle, Lane, Taken};

/// Readings waiting to be passed on: a minute of the default cadence. Beyond that the newest is dropped and counted.
pub const QUEUE: usize = 128;
/// A reading may take this many intervals, and this long at least, before its lane is called stuck.
const STUCK_INTERVALS: u32 = 2;
const STUCK_AT_LEAST: Duration = Duration::from_secs(5);

/// A lane that runs.
#[derive(Debug)]
pub struct Running {
    pub name: &'static str,
    pub source: Source,
    /// Wakes the lane when its cadence was changed.
    control: SyncSender<()>,
    progress: Arc<Progress>,
}

/// A lane, to look at from elsewhere.
#[derive(Clone, Debug)]
pub struct Watched {
    pub name: &'static str,
    pub source: Source,
    pub progress: Arc<Progress>,
}

/// What a lane has done so far.
#[derive(Debug, Default)]
pub struct Progress {
    interval_ms: AtomicU64,
    /// The cadence that was last asked for; 0 when none was.
    wanted_ms: AtomicU64,
    /// `CLOCK_BOOTTIME` at the start of the reading under way; 0 between readings.
    reading_since_ns: AtomicU64,
    skipped: AtomicU64,
    dropped: AtomicU64,
    readings: AtomicU64,
    /// How long the last reading took.
    took_ns: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
#[error("start the thread of the lane {name}")]
pub struct LaneNotStarted {
    name: &'static str,
    #[source]
    source: std::io::Error,
}

/// The clocks, now.
#[must_use]
pub fn now() -> Taken {
    let at = clock_gettime(ClockId::Boottime);
    let ns = i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec);
    Taken { unix_ms: horcrux_transport::clock::unix_ms(), boottime_ns: u64::try_from(ns).unwrap_or(0) }
}

/// Starts a lane. Its readings go to `cycles`.
pub fn start(
    mut lane: Box<dyn Lane>,
    interval: Duration,
    cycles: mpsc::Sender<(&'static str, Cycle)>,
) -> Result<Running, LaneNotStarted> {
    let (name, source) = (lane.name(), lane.source());
    // One wake-up may wait: whoever wakes finds the newest cadence.
    let (control, changes) = sync_channel(1);
    let progress = Arc::new(Progress::default());
    let shared = Arc::clone(&progress);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(lane.as_mut(), interval, &changes, &cycles, &shared))
        .map_err(|source| LaneNotStarted { name, source })?;
    Ok(Running { name, source, control, progress })
}

impl Running {
    /// Changes the cadence from the next reading on; `false` when it is that one already.
    pub fn set_interval(&self, interval: Duration) -> bool {
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        if self.progress.wanted_ms.swap(ms, Ordering::Relaxed) == ms {
            return false;
        }
        // Full: it wakes anyway.
        !matches!(self.control.try_send(()), Err(TrySendError::Disconnected(())))
    }

    /// This lane, to look at from elsewhere.
    #[must_use]
    pub fn watched(&self) -> Watched {
        Watched { name: self.name, source: self.source, progress: Arc::clone(&self.progress) }
    }

    /// For how long the reading under way has run, if that is too long.
    #[must_use]
    pub fn stuck_for(&self, now: Taken) -> Option<Duration> {
        self.progress.stuck_for(now)
    }

    /// Ticks without a reading, because the one before still ran.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.progress.skipped()
    }

    /// Readings that found a queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.progress.dropped()
    }
}

impl Progress {
    /// For how long the reading under way has run, if that is too long.
    #[must_use]
    pub fn stuck_for(&self, now: Taken) -> Option<Duration> {
        let since = self.reading_since_ns.load(Ordering::Relaxed);
        let interval = self.interval();
        let running = Duration::from_nanos(now.boottime_ns.checked_sub(since).filter(|_| since > 0)?);
        (running > (interval * STUCK_INTERVALS).max(STUCK_AT_LEAST)).then_some(running)
    }

    /// Ticks without a reading, because the one before still ran.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Readings that found a queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A reading was taken and could not be passed on.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Readings that came back.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.readings.load(Ordering::Relaxed)
    }

    /// How long the last reading took.
    #[must_use]
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.took_ns.load(Ordering::Relaxed))
    }

    /// The cadence now.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms.load(Ordering::Relaxed))
    }
}

fn run(
    lane: &mut dyn Lane,
    mut interval: Duration,
    changes: &Receiver<()>,
    cycles: &mpsc::Sender<(&'static str, Cycle)>,
    progress: &Progress,
) {
    let mut next_ns = now().boottime_ns;
    loop {
        progress
            .interval_ms
            .store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let taken = now();
        progress.reading_since_ns.store(taken.boottime_ns, Ordering::Relaxed);
        let cycle = lane.read(taken);
        progress.reading_since_ns.store(0, Ordering::Relaxed);
        let took = now().boottime_ns.saturating_sub(taken.boottime_ns);
        progress.took_ns.store(took, Ordering::Relaxed);
        progress.readings.fetch_add(1, Ordering::Relaxed);
        match cycles.try_send((lane.name(), cycle)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => progress.count_dropped(),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
        let (wait, missed, at) = next_tick(next_ns, interval, now().boottime_ns);
        progress.skipped.fetch_add(missed, Ordering::Relaxed);
        next_ns = at;
        match changes.recv_timeout(wait) {
            Ok(()) => {
                interval = Duration::from_millis(progress.wanted_ms.load(Ordering::Relaxed));
                next_ns = now().boottime_ns;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// How long to wait for the next point of the grid after `now`, how many points have passed unused, and that point.
fn next_tick(last_ns: u64, interval: Duration, now_ns: u64) -> (Duration, u64, u64) {
    let step = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let passed = now_ns.saturating_sub(last_ns) / step;
    let next = last_ns.saturating_add(step.saturating_mul(passed + 1));
    (Duration::from_nanos(next.saturating_sub(now_ns)), passed, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn ticks_stay_on_the_grid_and_missed_ones_are_counted() {
        let second = Duration::from_secs(1);
        assert_eq!(next_tick(0, second, S / 10), (Duration::from_millis(900), 0, S));
        assert_eq!(next_tick(S, second, 3 * S + S / 2), (Duration::from_millis(500), 2, 4 * S));
    }

    #[test]
    fn of_many_changes_of_cadence_the_newest_counts() {
        let (control, changes) = sync_channel(1);
        let running = Running { name: "x", source: Source::Proc, control, progress: Arc::default() };
        for seconds in [1, 2, 3] {
            assert!(running.set_interval(Duration::from_secs(seconds)));
        }
        assert!(!running.set_interval(Duration::from_secs(3)), "it is that one already");
        assert_eq!(changes.try_iter().count(), 1);
        assert_eq!(running.progress.wanted_ms.load(Ordering::Relaxed), 3000);
    }

    #[test]
    fn a_reading_that_does_not_come_back_is_called_stuck() {
        let (control, _changes) = sync_channel(1);
        let running = Running { name: "x", source: Source::Proc, control, progress: Arc::default() };
        running.progress.interval_ms.store(1000, Ordering::Relaxed);
        let at = |boottime_ns| Taken { unix_ms: 0, boottime_ns };
        assert_eq!(running.stuck_for(at(100 * S)), None, "nothing is being read");
        running.progress.reading_since_ns.store(S, Ordering::Relaxed);
        assert_eq!(running.stuck_for(at(6 * S)), None);
        assert_eq!(running.stuck_for(at(7 * S)), Some(Duration::from_secs(6)));
    }
}
