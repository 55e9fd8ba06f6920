//! Places for work that is dear, shared fairly: one asker has few of them, and those who are known have some that others
//! can't take. Nobody waits for one here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::name::UserId;
use horcrux_transport::source::Source;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Whoever is at an address.
    At(Source),
    /// Somebody with a session, or on a device that they signed in with before.
    Known(UserId),
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For everybody.
    pub open: usize,
    /// For those who are known, when the others are taken.
    pub kept: usize,
    /// Of one address at a time.
    pub per_source: usize,
    /// Of one user who is known at a time.
    pub per_user: usize,
}

#[derive(Clone, Debug)]
pub struct Places {
    bounds: Bounds,
    open: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<Asker, usize>>>,
}

/// Given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _turn: Turn,
}

/// One of those that an asker has at a time.
#[derive(Debug)]
struct Turn {
    asker: Asker,
    taken: Arc<Mutex<HashMap<Asker, usize>>>,
}

impl Places {
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: Arc::new(Semaphore::new(bounds.open)),
            kept: Arc::new(Semaphore::new(bounds.kept)),
            taken: Arc::default(),
        }
    }

    /// None where this asker has as many as one may have, or none is left for them.
    #[must_use]
    pub fn take(&self, asker: Asker) -> Option<Place> {
        let known = matches!(asker, Asker::Known(_));
        let turn = self.turn(asker)?;
        let open = Arc::clone(&self.open).try_acquire_owned().ok();
        let permit = match open {
            None if known => Arc::clone(&self.kept).try_acquire_owned().ok(),
            open => open,
        };
        Some(Place { _permit: permit?, _turn: turn })
    }

    fn turn(&self, asker: Asker) -> Option<Turn> {
        let bound = match asker {
            Asker::At(_) => self.bounds.per_source,
            Asker::Known(_) => self.bounds.per_user,
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.get(&asker).copied().unwrap_or(0);
        if here >= bound {
            return None;
        }
        taken.insert(asker.clone(), here + 1);
        Some(Turn { asker, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = taken.get_mut(&self.asker) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&self.asker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> Asker {
        Asker::At(Source::of([192, 0, 2, n].into()))
    }

    fn known(name: &str) -> Asker {
        Asker::Known(name.parse().unwrap())
    }

    fn places() -> Places {
        Places::new(Bounds { open: 3, kept: 1, per_source: 2, per_user: 1 })
    }

    #[test]
    fn one_address_has_few_of_them() {
        let places = places();
        let held: Vec<_> = (0..10).filter_map(|_| places.take(at(1))).collect();
        assert_eq!(held.len(), 2);
        assert!(places.take(at(2)).is_some());
    }

    #[test]
    fn who_is_known_has_a_place_that_a_crowd_cannot_take() {
        let places = places();
        let held: Vec<_> = (0..10).filter_map(|n| places.take(at(n))).collect();
        assert_eq!(held.len(), 3);
        let owner = places.take(known("alice"));
        assert!(
            owner.is_some() && places.take(known("alice")).is_none() && places.take(known("bob")).is_none()
        );
        drop(owner);
        assert!(places.take(known("bob")).is_some());
    }

    #[test]
    fn what_is_given_back_is_free_and_nothing_is_remembered_of_it() {
        let places = places();
        for n in 0..100 {
            assert!(places.take(at(n)).is_some() && places.take(known("alice")).is_some(), "{n}");
        }
        let held: Vec<_> = (0..4).map(|n| places.take(at(n))).collect();
        assert!(held.last().is_some_and(Option::is_none));
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
