//! How fast something may come, told apart by who it comes from. Pure: time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// So many in a row, then one in each interval.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub burst: u32,
    pub every: Duration,
}

/// Who is remembered; beyond, those who have nothing left to wait for are forgotten, then the oldest.
const REMEMBERED: usize = 50_000;

/// When what each has spent is paid off.
#[derive(Debug)]
pub struct Pace<K>(HashMap<K, Instant>);

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone> Pace<K> {
    /// How long until `key` may come again.
    #[must_use]
    pub fn wait(&self, key: &K, allowed: Allowance, now: Instant) -> Duration {
        let Some(paid) = self.0.get(key) else { return Duration::ZERO };
        let credit = allowed.every * (allowed.burst - 1);
        paid.saturating_duration_since(now).saturating_sub(credit)
    }

    pub fn spend(&mut self, key: K, allowed: Allowance, now: Instant) {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&key) {
            self.0.retain(|_, paid| *paid > now);
            if self.0.len() >= REMEMBERED
                && let Some(oldest) = self.0.iter().min_by_key(|(_, paid)| **paid).map(|(key, _)| key.clone())
            {
                self.0.remove(&oldest);
            }
        }
        let paid = self.0.entry(key).or_insert(now);
        *paid = (*paid).max(now) + allowed.every;
    }

    /// Spends, unless `key` has to wait.
    pub fn may(&mut self, key: &K, allowed: Allowance, now: Instant) -> bool {
        let free = self.wait(key, allowed, now).is_zero();
        if free {
            self.spend(key.clone(), allowed, now);
        }
        free
    }

    /// The last one doesn't count.
    pub fn give_back(&mut self, key: &K, allowed: Allowance, now: Instant) {
        if let Some(paid) = self.0.get_mut(key) {
            *paid = paid.checked_sub(allowed.every).unwrap_or(now);
        }
    }

    /// Nothing counts.
    pub fn forgive(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use horcrux_transport::clock;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pace = Pace::default();
        let allowed = Allowance { burst: 2, every: Duration::from_secs(1) };
        let now = clock::monotonic();
        for n in 0..REMEMBERED + 10 {
            pace.spend(n, allowed, now);
        }
        assert_eq!(pace.0.len(), REMEMBERED);
    }

    #[test]
    fn each_has_a_pace_of_its_own() {
        let mut pace = Pace::default();
        let allowed = Allowance { burst: 2, every: Duration::from_secs(1) };
        let now = clock::monotonic();
        let came = |pace: &mut Pace<char>, who| (0..5).filter(|_| pace.may(&who, allowed, now)).count();
        assert_eq!((came(&mut pace, 'a'), came(&mut pace, 'b')), (2, 2));
        assert!(pace.may(&'a', allowed, now + Duration::from_secs(1)));
        assert!(!pace.may(&'a', allowed, now + Duration::from_secs(1)));
    }
}
