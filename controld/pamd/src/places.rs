//! Places for conversations with PAM, few of them: a module that hangs keeps its thread and its place for good.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For each place when its conversation began, if it has one.
type Table = Arc<Mutex<Vec<Option<Instant>>>>;

#[derive(Debug)]
pub(crate) struct Places {
    begun: Table,
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    begun: Table,
    index: usize,
}

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self { begun: Arc::new(Mutex::new(vec![None; count])) }
    }

    pub(crate) fn take(&self, now: Instant) -> Option<Place> {
        let mut begun = lock(&self.begun);
        let index = begun.iter().position(Option::is_none)?;
        *begun.get_mut(index)? = Some(now);
        Some(Place { begun: Arc::clone(&self.begun), index })
    }

    /// Whether every place is held by a conversation that began at least `deadline` ago: nothing can be asked any more.
    pub(crate) fn all_lost(&self, deadline: Duration, now: Instant) -> bool {
        let overdue = |begun: Instant| now.saturating_duration_since(begun) >= deadline;
        lock(&self.begun).iter().all(|begun| begun.is_some_and(overdue))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(begun) = lock(&self.begun).get_mut(self.index) {
            *begun = None;
        }
    }
}

fn lock(table: &Table) -> std::sync::MutexGuard<'_, Vec<Option<Instant>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use horcrux_local::clock;

    use super::*;

    #[test]
    fn there_are_so_many_and_a_place_given_back_is_free() {
        let places = Places::new(2);
        let now = clock::now();
        let first = places.take(now);
        let second = places.take(now);
        assert!(first.is_some() && second.is_some() && places.take(now).is_none());
        drop(first);
        assert!(places.take(now).is_some());
    }

    #[test]
    fn all_are_lost_when_the_last_is_overdue() {
        let deadline = Duration::from_secs(20);
        let places = Places::new(2);
        let start = clock::now();
        let _first = places.take(start);
        assert!(!places.all_lost(deadline, start + deadline));
        let second = places.take(start + deadline / 2);
        assert!(!places.all_lost(deadline, start + deadline));
        assert!(places.all_lost(deadline, start + deadline * 2));
        drop(second);
        assert!(!places.all_lost(deadline, start + deadline * 2));
    }
}
