//! How fast a node is listened to. One that says more than its share is read slower, over all its streams: nothing of it
//! is lost, and the others' share of the writer and the disk stays theirs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a message costs, and each byte of it: 50 messages or 1 MB a second. A host with 1,000 containers and 300 VMs
/// says 3 messages and 120 kB.
const PER_MESSAGE: Duration = Duration::from_millis(20);
const PER_BYTE: Duration = Duration::from_micros(1);
const PER_ROW: Duration = Duration::from_micros(40);
/// An epoch has no more than an hour of rows, whatever a gap says.
const MOST_ROWS: Duration = Duration::from_secs(2);
/// What a new stream costs: its handshake, and all that is declared anew.
pub const PER_STREAM: Duration = Duration::from_millis(500);
/// Credit of a node that was quiet: the first inventory and all declarations of a large host, several times.
const CREDIT: Duration = Duration::from_secs(20);
/// A node whose streams come one after the other isn't locked out for longer.
const LONGEST: Duration = Duration::from_secs(10);

/// By node id, when what was said so far would have been said at the bound.
#[derive(Debug, Default)]
pub struct Pace {
    due: Mutex<HashMap<String, Instant>>,
}

/// What a message of so many bytes costs.
#[must_use]
pub fn cost(bytes: usize) -> Duration {
    PER_MESSAGE.saturating_add(cost_beside(bytes))
}

/// What it costs that a message became larger by so many bytes when it was unpacked.
#[must_use]
pub fn cost_beside(bytes: usize) -> Duration {
    PER_BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// What it costs that so many rows may have to be looked at: ten times what the writer needs for them.
#[must_use]
pub fn cost_of_rows(rows: u64) -> Duration {
    PER_ROW.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX)).min(MOST_ROWS)
}

impl Pace {
    /// How long to wait before listening to a node again that cost so much now.
    pub fn spend(&self, node_id: &str, cost: Duration, now: Instant) -> Duration {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let due = due.entry(node_id.to_owned()).or_insert(now);
        *due = ((*due).max(now) + cost).min(now + CREDIT + LONGEST);
        due.saturating_duration_since(now).saturating_sub(CREDIT)
    }

    /// A node that was deleted.
    pub fn forget(&self, node_id: &str) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).remove(node_id);
    }
}

#[cfg(test)]
mod tests {
    use horcrux_transport::clock;

    use super::*;

    #[test]
    fn a_usual_node_never_waits() {
        let (pace, mut now) = (Pace::default(), clock::monotonic());
        assert_eq!(pace.spend("a", cost(4 << 20), now), Duration::ZERO, "the first inventory");
        for _ in 0..3600 {
            for _ in 0..3 {
                assert_eq!(pace.spend("a", cost(40_000), now), Duration::ZERO);
            }
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn one_that_floods_waits_as_long_as_it_was_too_fast_and_others_do_not() {
        let (pace, now) = (Pace::default(), clock::monotonic());
        let waits: Vec<_> = (0..40).map(|_| pace.spend("a", cost(1_000_000), now)).collect();
        assert_eq!(waits[18], Duration::ZERO);
        assert_eq!(waits[24], Duration::from_millis(25 * 1020) - CREDIT);
        assert_eq!(waits[39], LONGEST);
        assert_eq!(pace.spend("b", cost(1_000_000), now), Duration::ZERO);
        assert_eq!(pace.spend("a", cost(0), now + Duration::from_secs(60)), Duration::ZERO);
    }
}
