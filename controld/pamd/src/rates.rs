//! How many requests are let through: so many a minute for each user name, and so many in all.
//!
//! A bucket that holds a minute's requests and fills steadily is here one instant: when it will be full again. A request
//! moves that on by its share of a minute, and is refused where that would be more than a minute away. A bucket that is full
//! is as good as none, so the table forgets it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// The most that can be set, for a user or in all.
pub(crate) const MAX_RATE: u16 = 1000;

/// Buckets that aren't full belong to requests of the last minute, at most twice [`MAX_RATE`] with those saved up before.
const TABLE: usize = 2 * MAX_RATE as usize;

#[derive(Debug)]
pub(crate) struct Rates {
    all: Bucket,
    users: HashMap<String, Bucket>,
    /// One request's share of a minute.
    all_share: Duration,
    user_share: Duration,
}

/// Which of the two bounds a request is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    User,
    All,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Rates {
    /// Both are per minute; 0 is taken as 1.
    pub(crate) fn new(user: u16, all: u16, now: Instant) -> Self {
        let share = |rate: u16| MINUTE / u32::from(rate.clamp(1, MAX_RATE));
        Self {
            all: Bucket { full_at: now },
            users: HashMap::new(),
            all_share: share(all),
            user_share: share(user),
        }
    }

    /// Counts a request. One that is beyond a bound is counted nowhere: whoever floods one name doesn't use up all.
    pub(crate) fn take(&mut self, user: &str, now: Instant) -> Result<(), Beyond> {
        // Many directories don't tell A from a: neither does the bound.
        let name = user.to_lowercase();
        let before = self.users.get(&name).copied().unwrap_or(Bucket { full_at: now });
        let user = before.after(self.user_share, now).ok_or(Beyond::User)?;
        let all = self.all.after(self.all_share, now).ok_or(Beyond::All)?;
        if self.users.len() >= TABLE {
            self.users.retain(|_, bucket| bucket.full_at > now);
        }
        if self.users.len() >= TABLE {
            return Err(Beyond::All);
        }
        self.users.insert(name, user);
        self.all = all;
        Ok(())
    }
}

impl Bucket {
    /// The bucket without one more request; none when it has none.
    fn after(self, share: Duration, now: Instant) -> Option<Self> {
        let full_at = self.full_at.max(now) + share;
        (full_at <= now + MINUTE).then_some(Self { full_at })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn a_user_has_so_many_tries_and_then_one_each_share_of_a_minute() {
        let start = clock::now();
        let mut rates = Rates::new(6, 100, start);
        assert_eq!((0..10).filter(|_| rates.take("alice", start).is_ok()).count(), 6);
        assert_eq!(rates.take("ALICE", start), Err(Beyond::User));
        assert_eq!(rates.take("bob", start), Ok(()));
        let later = start + Duration::from_secs(10);
        assert_eq!(rates.take("alice", later), Ok(()));
        assert_eq!(rates.take("alice", later), Err(Beyond::User));
    }

    #[test]
    fn many_names_together_stay_within_the_bound_for_all() {
        let start = clock::now();
        let mut rates = Rates::new(6, 30, start);
        let let_in = (0..100).filter(|n| rates.take(&format!("user{n}"), start).is_ok()).count();
        assert_eq!(let_in, 30);
        assert_eq!(rates.take("user99", start), Err(Beyond::All));
    }

    #[test]
    fn a_flood_for_one_name_leaves_the_others_their_share() {
        let start = clock::now();
        let mut rates = Rates::new(5, 20, start);
        assert_eq!((0..1000).filter(|_| rates.take("victim", start).is_ok()).count(), 5);
        assert_eq!((0..100).filter(|n| rates.take(&format!("user{n}"), start).is_ok()).count(), 15);
    }

    #[test]
    fn the_table_forgets_names_and_never_grows_beyond_its_bound() {
        let start = clock::now();
        let mut rates = Rates::new(1, MAX_RATE, start);
        for n in 0..20_000_u32 {
            let now = start + Duration::from_millis(60) * n;
            assert_eq!(rates.take(&format!("user{n}"), now), Ok(()), "{n}");
            assert!(rates.users.len() <= TABLE);
        }
    }

    /// The same as whole requests in a bucket, refilled by a clock that ticks once for each.
    struct Model {
        held: u64,
        ticks: u64,
    }

    proptest! {
        #[test]
        fn a_bucket_lets_through_what_a_counter_would(
            rate in 1_u16..=60,
            steps in prop::collection::vec(0_u64..5, 0..200),
        ) {
            let start = clock::now();
            let share = MINUTE / u32::from(rate);
            let mut rates = Rates::new(rate, MAX_RATE, start);
            let mut model = Model { held: u64::from(rate), ticks: 0 };
            for step in steps {
                // On ticks only: between two of them a counter of whole requests doesn't know better.
                model.ticks += step;
                model.held = (model.held + step).min(u64::from(rate));
                let now = start + share * u32::try_from(model.ticks).unwrap();
                let let_in = rates.take("alice", now).is_ok();
                prop_assert_eq!(let_in, model.held > 0);
                model.held -= u64::from(let_in);
            }
        }
    }
}
