//! Reading at a fixed cadence: each lane on a thread of its own. A tick that was missed because the reading before still
//! ran is skipped and counted, never replayed. A lane that doesn't come back stalls itself only. A lane that has a bell
//! reads beside its ticks too, when that is rung.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use horcrux_proto::v1::{Source, SourceState};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::present::{good, source_name};
use crate::sample::{Cycle, Lane, SourceReport, Taken};

/// Readings waiting to be passed on: a minute of the default cadence. Beyond that the newest is dropped and counted.
pub const QUEUE: usize = 128;
/// A reading may take this many intervals, and this long at least, before its lane is called stuck.
const STUCK_INTERVALS: u32 = 2;
const STUCK_AT_LEAST: Duration = Duration::from_secs(5);
/// A bell is heard so long after the reading before began: a host on which something happens all the time is not read all
/// the time.
const BELL_AFTER: Duration = Duration::from_millis(250);

/// A lane that runs.
#[derive(Debug)]
pub struct Running {
    pub name: &'static str,
    pub source: Source,
    /// Which of several it reads from; empty: there is one.
    pub instance: Arc<str>,
    /// Wakes the lane when its cadence was changed.
    control: Arc<SyncSender<()>>,
    progress: Arc<Progress>,
}

/// Has a lane read at once, whoever rings. Nothing happens while the lane doesn't run.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<OnceLock<Weak<SyncSender<()>>>>);

/// A lane, to look at from elsewhere.
#[derive(Clone, Debug)]
pub struct Watched {
    pub name: &'static str,
    pub source: Source,
    pub instance: Arc<str>,
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
    let (name, source, instance) = (lane.name(), lane.source(), lane.instance());
    // One wake-up may wait: whoever wakes finds the newest cadence.
    let (control, changes) = sync_channel(1);
    let control = Arc::new(control);
    if let Some(Bell(bell)) = lane.bell()
        && bell.set(Arc::downgrade(&control)).is_err()
    {
        tracing::debug!(lane = name, "its bell rings for another lane");
    }
    let progress = Arc::new(Progress::default());
    let shared = Arc::clone(&progress);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(lane.as_mut(), interval, &changes, &cycles, &shared))
        .map_err(|source| LaneNotStarted { name, source })?;
    Ok(Running { name, source, instance, control, progress })
}

impl Bell {
    pub fn ring(&self) {
        if let Some(control) = self.0.get().and_then(Weak::upgrade)
            // Full: it wakes anyway.
            && control.try_send(()).is_err()
        {
            tracing::trace!("rung already");
        }
    }
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
        let (instance, progress) = (Arc::clone(&self.instance), Arc::clone(&self.progress));
        Watched { name: self.name, source: self.source, instance, progress }
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

impl Watched {
    /// Its source's state while the reading under way takes too long: the lane can't say so itself.
    #[must_use]
    pub fn stuck(&self, now: Taken) -> Option<SourceReport> {
        let running = self.progress.stuck_for(now)?;
        Some(SourceReport {
            source: self.source,
            instance: Arc::clone(&self.instance),
            state: SourceState::Stuck,
            detail: format!("{}: no answer for {} s", self.name, running.as_secs()),
        })
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
    let mut told = Told::default();
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
        told.hear(&cycle.sources);
        match cycles.try_send((lane.name(), cycle)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => progress.count_dropped(),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
        let (wait, missed, at) = next_tick(next_ns, interval, now().boottime_ns);
        progress.skipped.fetch_add(missed, Ordering::Relaxed);
        match changes.recv_timeout(wait) {
            Ok(()) => match progress.wanted_ms.load(Ordering::Relaxed) {
                ms if ms > 0 && Duration::from_millis(ms) != interval => {
                    interval = Duration::from_millis(ms);
                    next_ns = now().boottime_ns;
                }
                _ => {
                    // The ticks stay where they are: this reading is beside them.
                    next_ns = at.saturating_sub(u64::try_from(interval.as_nanos()).unwrap_or(0));
                    let since = Duration::from_nanos(now().boottime_ns.saturating_sub(taken.boottime_ns));
                    if rest(changes, BELL_AFTER.saturating_sub(since)).is_none() {
                        return;
                    }
                }
            },
            Err(RecvTimeoutError::Timeout) => next_ns = at,
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// How each source was doing when the log was told of it last: it is told of what changes.
#[derive(Debug, Default)]
struct Told(HashMap<(Source, Arc<str>), SourceState>);

impl Told {
    fn hear(&mut self, reports: &[SourceReport]) {
        for SourceReport { source, instance, state, detail } in reports {
            let before = self.0.insert((*source, Arc::clone(instance)), *state);
            let (source, instance) = (source_name(*source), instance.as_ref());
            match (before.is_none_or(good), good(*state)) {
                (true, false) => tracing::warn!(source, instance, why = detail, "a source fails"),
                (false, true) => tracing::info!(source, instance, "a source answers again"),
                (true, true) | (false, false) => {}
            }
        }
    }
}

/// Waits, whoever rings meanwhile; `None`: nobody needs the lane any more.
fn rest(changes: &Receiver<()>, wait: Duration) -> Option<()> {
    let until = horcrux_transport::clock::monotonic() + wait;
    loop {
        let left = until.saturating_duration_since(horcrux_transport::clock::monotonic());
        match changes.recv_timeout(left) {
            Ok(()) if left.is_zero() => return Some(()),
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return Some(()),
            Err(RecvTimeoutError::Disconnected) => return None,
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
        let running = Running {
            name: "x",
            source: Source::Proc,
            instance: Arc::default(),
            control: Arc::new(control),
            progress: Arc::default(),
        };
        for seconds in [1, 2, 3] {
            assert!(running.set_interval(Duration::from_secs(seconds)));
        }
        assert!(!running.set_interval(Duration::from_secs(3)), "it is that one already");
        assert_eq!(changes.try_iter().count(), 1);
        assert_eq!(running.progress.wanted_ms.load(Ordering::Relaxed), 3000);
    }

    /// Counts its readings.
    struct Rung(Bell);

    impl Lane for Rung {
        fn name(&self) -> &'static str {
            "rung"
        }

        fn source(&self) -> Source {
            Source::Proc
        }

        fn bell(&self) -> Option<&Bell> {
            Some(&self.0)
        }

        fn read(&mut self, taken: Taken) -> Cycle {
            Cycle {
                taken,
                found: crate::sample::Found::Nothing,
                samples: Vec::new(),
                sources: Vec::new(),
                events: Vec::new(),
            }
        }
    }

    #[test]
    fn a_lane_reads_when_it_is_rung_and_not_for_each_of_many_rings() {
        let bell = Bell::default();
        bell.ring();
        let (cycles, mut read) = mpsc::channel(64);
        let hour = Duration::from_secs(3600);
        let running = start(Box::new(Rung(bell.clone())), hour, cycles).unwrap();
        let first = read.blocking_recv().unwrap().1.taken;
        for _ in 0..100 {
            bell.ring();
        }
        let second = read.blocking_recv().unwrap().1.taken;
        assert!(second.boottime_ns - first.boottime_ns >= 200_000_000, "{first:?} {second:?}");
        bell.ring();
        read.blocking_recv().unwrap();
        assert!(read.try_recv().is_err(), "a hundred rings are a reading or two");
        assert_eq!(running.skipped(), 0);
        drop(running);
        assert!(read.blocking_recv().is_none(), "a lane that nobody runs ends, though its bell is there");
    }

    #[test]
    fn a_reading_that_does_not_come_back_is_called_stuck() {
        let (control, _changes) = sync_channel(1);
        let running = Running {
            name: "x",
            source: Source::Proc,
            instance: Arc::default(),
            control: Arc::new(control),
            progress: Arc::default(),
        };
        running.progress.interval_ms.store(1000, Ordering::Relaxed);
        let at = |boottime_ns| Taken { unix_ms: 0, boottime_ns };
        assert_eq!(running.progress.stuck_for(at(100 * S)), None, "nothing is being read");
        running.progress.reading_since_ns.store(S, Ordering::Relaxed);
        assert_eq!(running.progress.stuck_for(at(6 * S)), None);
        assert_eq!(running.progress.stuck_for(at(7 * S)), Some(Duration::from_secs(6)));
    }
}
