//! Whether the wall clock was set between two readings: against `CLOCK_BOOTTIME`, which nobody sets and which goes on
//! while the machine sleeps. Pure.

use std::time::Duration;

use crate::sample::Taken;

/// Beyond this it was set, not steered.
const STEP: Duration = Duration::from_secs(1);
/// Steering changes the pace by 500 in a million at most (adjtimex(2)); twice that for two clocks read one after the
/// other.
const STEERED_PER_MILLION: i128 = 1000;

/// By how many milliseconds the wall clock was set, if it was.
pub(super) fn step_ms(earlier: Taken, later: Taken) -> Option<i64> {
    let elapsed_ms = (i128::from(later.boottime_ns) - i128::from(earlier.boottime_ns)) / 1_000_000;
    let step = i128::from(later.unix_ms) - i128::from(earlier.unix_ms) - elapsed_ms;
    let tolerated =
        i128::try_from(STEP.as_millis()).ok()? + elapsed_ms.abs() * STEERED_PER_MILLION / 1_000_000;
    (step.abs() > tolerated).then(|| i64::try_from(step).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(unix_ms: i64, boottime_s: u64) -> Taken {
        Taken { unix_ms, boottime_ns: boottime_s * 1_000_000_000 }
    }

    #[test]
    fn a_clock_that_is_set_is_seen_in_both_directions() {
        assert_eq!(step_ms(at(0, 10), at(4_500, 11)), Some(3_500));
        assert_eq!(step_ms(at(0, 10), at(-60_000, 11)), Some(-61_000));
    }

    #[test]
    fn a_clock_that_is_steered_and_a_machine_that_slept_are_no_steps() {
        assert_eq!(step_ms(at(0, 10), at(1_900, 11)), None);
        assert_eq!(step_ms(at(0, 10), at(3_601_800, 3_610)), None, "an hour at the fastest pace");
        assert_eq!(step_ms(at(0, 10), at(28_800_000, 28_810)), None);
    }

    proptest! {
        #[test]
        fn step_never_panics(a: i64, b: i64, s: u64, t: u64) {
            let _step = step_ms(Taken { unix_ms: a, boottime_ns: s }, Taken { unix_ms: b, boottime_ns: t });
        }
    }
}
