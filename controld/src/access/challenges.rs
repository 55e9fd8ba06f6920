//! Sign-ins whose first factor was right, and which wait for the second.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use horcrux_transport::secret::Secret;

use super::keys::{KeyError, hash, random_secret};
use super::name::UserId;

/// As long as it takes to look for a phone.
const FOR_MS: i64 = 5 * 60 * 1000;
/// Beyond, the oldest is given up.
const AT_MOST: usize = 10_000;

/// What waits, by the hash of what its caller was given.
#[derive(Debug, Default)]
pub struct Challenges(Mutex<HashMap<[u8; 32], Pending>>);

/// Somebody who has shown a first factor, and what their credentials were then: a session is opened for these alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    pub user: UserId,
    pub credentials: i64,
}

/// The first factor was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub proven: Proven,
    /// There was no second factor, and there must be.
    pub sets_up: bool,
    expires_ms: i64,
}

impl Challenges {
    /// Gives what the caller shows when it comes back, and when that ends.
    pub fn put(&self, proven: Proven, sets_up: bool, now_ms: i64) -> Result<(Secret, i64), KeyError> {
        let id = random_secret("hxm_")?;
        let expires_ms = now_ms + FOR_MS;
        let mut waiting = self.waiting();
        if waiting.len() >= AT_MOST {
            waiting.retain(|_, pending| now_ms < pending.expires_ms);
            let oldest = waiting.iter().min_by_key(|(_, pending)| pending.expires_ms).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| waiting.len() >= AT_MOST) {
                waiting.remove(&oldest);
            }
        }
        waiting.insert(hash(id.expose()), Pending { proven, sets_up, expires_ms });
        Ok((id, expires_ms))
    }

    /// It stays good: a code may be mistyped.
    #[must_use]
    pub fn get(&self, id: &Secret, now_ms: i64) -> Option<Pending> {
        self.waiting().get(&hash(id.expose())).filter(|pending| now_ms < pending.expires_ms).cloned()
    }

    /// Uses it up. Of two right answers at once one gets it.
    pub fn take(&self, id: &Secret) -> Option<Pending> {
        self.waiting().remove(&hash(id.expose()))
    }

    /// Forgets those of a user whose password or second factor is another now.
    pub fn forget(&self, user: &UserId) {
        self.waiting().retain(|_, pending| pending.proven.user != *user);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<[u8; 32], Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(name: &str) -> Proven {
        Proven { user: name.parse().unwrap(), credentials: 0 }
    }

    #[test]
    fn a_challenge_is_good_for_a_while_and_once() {
        let challenges = Challenges::default();
        let (alice, bob) = (proven("alice"), proven("bob"));
        let (id, ends_ms) = challenges.put(alice.clone(), false, 0).unwrap();
        assert_eq!(challenges.get(&id, ends_ms - 1).unwrap().proven, alice);
        assert_eq!(challenges.get(&id, ends_ms), None);
        assert_eq!(challenges.take(&id).unwrap().proven, alice);
        assert_eq!(challenges.take(&id), None);

        let (of_alice, _) = challenges.put(alice.clone(), true, 0).unwrap();
        let (of_bob, _) = challenges.put(bob, false, 0).unwrap();
        challenges.forget(&alice.user);
        assert_eq!(challenges.get(&of_alice, 1), None);
        assert!(challenges.get(&of_bob, 1).is_some());
    }

    #[test]
    fn the_oldest_is_given_up_for_the_newest() {
        let challenges = Challenges::default();
        let alice = proven("alice");
        let (oldest, _) = challenges.put(alice.clone(), false, 0).unwrap();
        for _ in 1..AT_MOST {
            challenges.put(alice.clone(), false, 1).unwrap();
        }
        assert!(challenges.get(&oldest, 2).is_some());
        let (newest, _) = challenges.put(alice, false, 2).unwrap();
        assert_eq!((challenges.get(&oldest, 2), challenges.waiting().len()), (None, AT_MOST));
        assert!(challenges.get(&newest, 2).is_some());
    }
}
