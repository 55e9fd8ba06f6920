//! Two things measured in turns, in CPU time of the thread that does them: other work on the machine bends both alike, and
//! what is told of them is their ratio. criterion measures wall time, and one thing after the other.

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

/// Each side gives what so many cycles cost. `period`: after so many it has done everything that it does.
pub(crate) fn compare(
    period: u32,
    mut floor: impl FnMut(u32) -> Duration,
    mut ours: impl FnMut(u32) -> Duration,
) -> Cost {
    let once = floor(period) + ours(period);
    let periods = u32::try_from(TURN.as_nanos() / (once / 2).as_nanos().max(1)).unwrap_or(1).max(1);
    let cycles = period * periods;
    let mut rounds: Vec<(Duration, Duration)> =
        (0..ROUNDS).map(|_| (floor(cycles) / cycles, ours(cycles) / cycles)).collect();
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

pub(crate) fn timed(cycles: u32, mut what: impl FnMut()) -> Duration {
    let before = cpu();
    for _ in 0..cycles {
        what();
    }
    cpu().saturating_sub(before)
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
