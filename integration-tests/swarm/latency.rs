//! How old values were when they came, of all watchers together.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// To the millisecond; what is older is counted as this old.
const LONGEST_MS: usize = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Latencies(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: Vec<u64>,
    watchers: usize,
    heard: HashSet<usize>,
    messages: u64,
    bytes: u64,
    gaps: u64,
}

/// Percentiles are over values, each at each watcher.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) p50_ms: usize,
    pub(crate) p90_ms: usize,
    pub(crate) p99_ms: usize,
    pub(crate) max_ms: usize,
    /// Objects with new values, each at each watcher.
    pub(crate) values: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Ticks that watchers were not sent.
    pub(crate) gaps: u64,
    /// Watchers to whom values came.
    pub(crate) heard: usize,
}

impl Latencies {
    /// A number for one more watcher.
    pub(crate) fn watcher(&self) -> usize {
        let mut state = self.lock();
        state.watchers += 1;
        state.watchers
    }

    pub(crate) fn start_over(&self) {
        let mut state = self.lock();
        *state = State { watchers: state.watchers, ..State::default() };
    }

    pub(crate) fn add(&self, watcher: usize, bytes: usize, ages_ms: impl Iterator<Item = i64>) {
        let mut state = self.lock();
        state.messages += 1;
        state.bytes += bytes as u64;
        state.counts.resize(LONGEST_MS + 1, 0);
        let before = state.heard.len();
        for age in ages_ms {
            // Clocks of one machine: a negative age is a step of the clock.
            let age = usize::try_from(age).unwrap_or(0).min(LONGEST_MS);
            state.counts[age] += 1;
            if state.heard.len() == before {
                state.heard.insert(watcher);
            }
        }
    }

    pub(crate) fn gap(&self, ticks: u64) {
        self.lock().gaps += ticks;
    }

    pub(crate) fn report(&self) -> Report {
        let state = self.lock();
        let values: u64 = state.counts.iter().sum();
        let at = |share: u64| {
            let wanted = values * share / 100;
            let mut seen = 0;
            let place = state.counts.iter().position(|count| {
                seen += count;
                seen > wanted.min(values.saturating_sub(1))
            });
            place.unwrap_or(0)
        };
        Report {
            p50_ms: at(50),
            p90_ms: at(90),
            p99_ms: at(99),
            max_ms: at(100),
            values,
            messages: state.messages,
            bytes: state.bytes,
            gaps: state.gaps,
            heard: state.heard.len(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let latencies = Latencies::default();
        let watcher = latencies.watcher();
        latencies.add(watcher, 10, 1..=100);
        let report = latencies.report();
        assert_eq!((report.p50_ms, report.p90_ms, report.p99_ms, report.max_ms), (51, 91, 100, 100));
        assert_eq!((report.values, report.heard, report.bytes), (100, 1, 10));
    }

    #[test]
    fn a_watcher_to_whom_nothing_came_is_not_heard() {
        let latencies = Latencies::default();
        let (one, other) = (latencies.watcher(), latencies.watcher());
        latencies.add(one, 1, 5..6);
        latencies.add(other, 1, 5..5);
        assert_eq!(latencies.report().heard, 1);
    }
}
