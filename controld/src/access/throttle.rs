//! How fast somebody may try passwords. Wrong ones slow down the address that they come from, and that address with that
//! name, whether it is a user's or not. A device that the user signed in with before has a pace of its own: nobody is
//! locked out by what others type, elsewhere or at the same address. Pure: time is passed in.

use std::time::{Duration, Instant};

use horcrux_transport::source::Source;

use super::device::Device;
use super::pace::{Allowance, Pace};

/// From one address, whatever the names: an office behind one address signs in the same morning.
const PER_SOURCE: Allowance = Allowance { burst: 30, every: Duration::from_secs(2) };
/// From one address with one name.
const PER_ACCOUNT_AND_SOURCE: Allowance = Allowance { burst: 6, every: Duration::from_secs(10) };
/// On a device that this user signed in with of late: a typing mistake is likelier than a guess.
const PER_DEVICE: Allowance = Allowance { burst: 10, every: Duration::from_secs(5) };
/// By one user who is signed in, right ones too: each costs us a hash.
const PER_SESSION: Allowance = Allowance { burst: 10, every: Duration::from_secs(5) };
/// From one address, of what needs no session and isn't a password: a rack of hosts that enroll comes from one too.
const PER_DOOR: Allowance = Allowance { burst: 60, every: Duration::from_secs(1) };
/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trier {
    /// Whoever is at an address.
    At(Source),
    Device(Device),
    /// The user themselves, who has a session.
    SignedIn,
}

impl Trier {
    fn allowance(self) -> Allowance {
        match self {
            Self::At(_) => PER_ACCOUNT_AND_SOURCE,
            Self::Device(_) => PER_DEVICE,
            Self::SignedIn => PER_SESSION,
        }
    }
}

/// Who tried in vain.
#[derive(Debug, Default)]
pub struct Throttle {
    sources: Pace<Source>,
    pairs: Pace<(String, Trier)>,
}

impl Throttle {
    /// How long they must wait before they are heard with this name; the same for names that exist and that don't.
    #[must_use]
    pub fn wait(&self, name: &str, trier: Trier, now: Instant) -> Duration {
        let by_pair = self.pairs.wait(&(name.to_owned(), trier), trier.allowance(), now);
        match trier {
            Trier::At(source) => by_pair.max(self.sources.wait(&source, PER_SOURCE, now)),
            // What others do at the same address doesn't count.
            Trier::Device(_) | Trier::SignedIn => by_pair,
        }
    }

    /// Counts an attempt before it is checked, so that no number of attempts at once gets past the bound.
    pub fn attempt(&mut self, name: &str, trier: Trier, now: Instant) {
        self.pairs.spend((name.to_owned(), trier), trier.allowance(), now);
        if let Trier::At(source) = trier {
            self.sources.spend(source, PER_SOURCE, now);
        }
    }

    /// How long this address must wait before it is heard at `door`; otherwise the attempt is counted.
    pub fn knock(&mut self, door: &'static str, source: Source, now: Instant) -> Duration {
        // No user's name begins so.
        let pair = (format!("/{door}"), Trier::At(source));
        let wait = self.pairs.wait(&pair, PER_DOOR, now);
        if wait.is_zero() {
            self.pairs.spend(pair, PER_DOOR, now);
        }
        wait
    }

    /// What was asked at `door` was right: it doesn't count.
    pub fn opened(&mut self, door: &'static str, source: Source, now: Instant) {
        self.pairs.give_back(&(format!("/{door}"), Trier::At(source)), PER_DOOR, now);
    }

    /// It was right: its name has nothing to wait for there.
    pub fn succeeded(&mut self, name: &str, trier: Trier, now: Instant) {
        self.pairs.forgive(&(name.to_owned(), trier));
        if let Trier::At(source) = trier {
            self.sources.give_back(&source, PER_SOURCE, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use horcrux_transport::clock;

    use super::*;
    use crate::access::keys::Seal;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    fn at(text: &str) -> Trier {
        Trier::At(source(text))
    }

    /// Alice's own.
    fn device() -> Trier {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path()).unwrap();
        let alice = "alice".parse().unwrap();
        let mark = Device::mark(&seal, &alice, "", 0).unwrap();
        Trier::Device(Device::known(&seal, &alice, "", &mark, 0).unwrap())
    }

    /// Attempts that are heard within a time when one tries as fast as one may.
    fn heard(throttle: &mut Throttle, name: &str, from: Trier, within: Duration) -> usize {
        let start = clock::monotonic();
        let (mut now, mut count) = (start, 0);
        while now < start + within {
            let wait = throttle.wait(name, from, now);
            now += wait;
            if now < start + within {
                throttle.attempt(name, from, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_guesser_is_slowed_down() {
        let mut throttle = Throttle::default();
        let minute = heard(&mut throttle, "alice", at("192.0.2.1"), Duration::from_secs(60));
        assert!((8..=13).contains(&minute), "{minute}");
    }

    #[test]
    fn names_in_turn_are_slowed_down_too() {
        let mut throttle = Throttle::default();
        let (now, from) = (clock::monotonic(), at("192.0.2.1"));
        let tried = (0..200).take_while(|n| {
            let name = format!("user{n}");
            let free = throttle.wait(&name, from, now).is_zero();
            throttle.attempt(&name, from, now);
            free
        });
        assert_eq!(tried.count(), 30);
    }

    #[test]
    fn what_others_try_keeps_nobody_out() {
        let mut throttle = Throttle::default();
        let (now, here) = (clock::monotonic(), at("192.0.2.1"));
        for _ in 0..10_000 {
            throttle.attempt("alice", here, now);
        }
        assert!(throttle.wait("alice", here, now) > Duration::from_secs(60));
        assert_eq!(throttle.wait("alice", at("192.0.2.2"), now), Duration::ZERO, "elsewhere");
        assert_eq!(throttle.wait("alice", device(), now), Duration::ZERO, "her device, at the same address");
        assert_eq!(throttle.wait("alice", Trier::SignedIn, now), Duration::ZERO);
    }

    #[test]
    fn a_device_and_a_session_are_slowed_down_by_what_they_try_themselves() {
        for trier in [device(), Trier::SignedIn] {
            let mut throttle = Throttle::default();
            let minute = heard(&mut throttle, "alice", trier, Duration::from_secs(60));
            assert!((20..=22).contains(&minute), "{minute}");
        }
    }

    #[test]
    fn a_door_that_opens_stays_open_and_one_that_does_not_is_slowed_down() {
        let mut throttle = Throttle::default();
        let (now, from) = (clock::monotonic(), source("192.0.2.1"));
        for _ in 0..1000 {
            assert_eq!(throttle.knock("enroll", from, now), Duration::ZERO);
            throttle.opened("enroll", from, now);
        }
        let heard = (0..100).filter(|_| throttle.knock("enroll", from, now).is_zero()).count();
        assert_eq!(heard, 60);
        assert_eq!(throttle.knock("setup", from, now), Duration::ZERO, "another door");
    }

    #[test]
    fn success_wipes_the_slate() {
        let mut throttle = Throttle::default();
        let (now, from) = (clock::monotonic(), at("2001:db8::1"));
        for _ in 0..6 {
            throttle.attempt("alice", from, now);
        }
        assert!(throttle.wait("alice", at("2001:db8::2"), now) > Duration::ZERO, "the same network");
        throttle.succeeded("alice", from, now);
        assert_eq!(throttle.wait("alice", from, now), Duration::ZERO);
    }
}
