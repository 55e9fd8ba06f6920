//! Rates and shares from cumulative counters: the one place where they are computed. Pure, with time passed in.
//!
//! A counter that went backwards started over (a device came back, a guest rebooted); nothing is known about the time in
//! between, so there is no rate until the next reading. Without two readings there is no rate either.

/// A counter at a moment of its node's `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub at_ns: u64,
    pub count: u64,
}

const NS_PER_SECOND: f64 = 1e9;

/// Growth per second from `earlier` to `later`.
#[must_use]
pub fn per_second(earlier: Point, later: Point) -> Option<f64> {
    let grown = later.count.checked_sub(earlier.count)?;
    let elapsed = later.at_ns.checked_sub(earlier.at_ns).filter(|&ns| ns > 0)?;
    Some(float(grown) / float(elapsed) * NS_PER_SECOND)
}

/// Growth of a counter of nanoseconds as a percentage of the time passed on `width` things that could grow at once.
#[must_use]
pub fn percent_of_time(earlier: Point, later: Point, width: f64) -> Option<f64> {
    if width <= 0.0 {
        return None;
    }
    per_second(earlier, later).map(|rate| rate / NS_PER_SECOND / width * 100.0)
}

/// `part` as a percentage of `whole`; `None` of nothing.
#[must_use]
pub fn percent(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole * 100.0)
}

/// What came to each of `count` things, of `sum` in all; `None` of nothing.
#[must_use]
pub fn per_one(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| float(sum) / float(count))
}

/// Growth of each counter in `earlier` and `later`; `None` when any went backwards.
#[must_use]
pub fn grown<const N: usize>(earlier: &[u64; N], later: &[u64; N]) -> Option<[u64; N]> {
    let mut out = [0; N];
    for ((out, e), l) in out.iter_mut().zip(earlier).zip(later) {
        *out = l.checked_sub(*e)?;
    }
    Some(out)
}

/// Exact up to 2^53, and to 1 part in 2^53 beyond.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "the loss is the documented one")]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_rate_is_growth_over_elapsed_time() {
        let rate = per_second(Point { at_ns: SECOND, count: 100 }, Point { at_ns: 3 * SECOND, count: 300 });
        assert_eq!(rate, Some(100.0));
    }

    #[test]
    fn a_counter_that_started_over_has_no_rate() {
        assert_eq!(per_second(Point { at_ns: 0, count: 5 }, Point { at_ns: SECOND, count: 4 }), None);
    }

    #[test]
    fn no_time_gives_no_rate() {
        let at = Point { at_ns: SECOND, count: 5 };
        assert_eq!(per_second(at, at), None);
        assert_eq!(per_second(at, Point { at_ns: 0, count: 9 }), None);
    }

    #[test]
    fn two_busy_cores_of_four_are_fifty_percent() {
        let later = Point { at_ns: SECOND, count: 2 * SECOND };
        assert_eq!(percent_of_time(Point { at_ns: 0, count: 0 }, later, 4.0), Some(50.0));
        assert_eq!(percent_of_time(Point { at_ns: 0, count: 0 }, later, 0.0), None);
    }

    #[test]
    fn without_operations_there_is_no_average() {
        assert_eq!(per_one(9, 3), Some(3.0));
        assert_eq!(per_one(9, 0), None);
    }

    #[test]
    fn growth_of_several_counters_is_all_or_nothing() {
        assert_eq!(grown(&[1, 2], &[4, 2]), Some([3, 0]));
        assert_eq!(grown(&[1, 2], &[4, 1]), None);
    }

    proptest! {
        #[test]
        fn a_rate_is_finite_and_not_negative(a: u64, b: u64, s: u64, t: u64) {
            if let Some(rate) = per_second(Point { at_ns: s, count: a }, Point { at_ns: t, count: b }) {
                prop_assert!(rate.is_finite() && rate >= 0.0);
            }
        }
    }
}
