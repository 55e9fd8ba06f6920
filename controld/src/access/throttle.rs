//! How fast somebody may try passwords. Wrong ones slow down the address that they come from, and that address with that
//! name, whether it is a user's or not. A device that the user signed in with before has a pace of its own: nobody is
//! locked out by what others type, elsewhere or at the same address. Pure: time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::device::Device;

/// Attempts in a row, then one in each interval.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    every: Duration,
}

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
/// Addresses and names that are remembered; beyond, those that have nothing left to wait for are forgotten, then the
/// oldest.
const REMEMBERED: usize = 50_000;

/// Where an attempt comes from: an IPv4 address, or an IPv6 network of 64 bits, which one machine has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            v4 @ IpAddr::V4(_) => Self(v4),
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

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

/// When failures are paid off.
#[derive(Debug)]
struct Debts<K>(HashMap<K, Instant>);

impl<K: Eq + Hash + Clone> Debts<K> {
    /// How long until another attempt is heard.
    fn wait(&self, key: &K, allowed: Allowance, now: Instant) -> Duration {
        let Some(paid) = self.0.get(key) else { return Duration::ZERO };
        let credit = allowed.every * (allowed.burst - 1);
        paid.saturating_duration_since(now).saturating_sub(credit)
    }

    fn fail(&mut self, key: K, allowed: Allowance, now: Instant) {
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
}

/// Who tried in vain.
#[derive(Debug)]
pub struct Throttle {
    sources: Debts<Source>,
    pairs: Debts<(String, Trier)>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { sources: Debts(HashMap::new()), pairs: Debts(HashMap::new()) }
    }
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
        self.pairs.fail((name.to_owned(), trier), trier.allowance(), now);
        if let Trier::At(source) = trier {
            self.sources.fail(source, PER_SOURCE, now);
        }
    }

    /// How long this address must wait before it is heard at `door`; otherwise the attempt is counted.
    pub fn knock(&mut self, door: &'static str, source: Source, now: Instant) -> Duration {
        // No user's name begins so.
        let pair = (format!("/{door}"), Trier::At(source));
        let wait = self.pairs.wait(&pair, PER_DOOR, now);
        if wait.is_zero() {
            self.pairs.fail(pair, PER_DOOR, now);
        }
        wait
    }

    /// What was asked at `door` was right: it doesn't count.
    pub fn opened(&mut self, door: &'static str, source: Source, now: Instant) {
        if let Some(paid) = self.pairs.0.get_mut(&(format!("/{door}"), Trier::At(source))) {
            *paid = paid.checked_sub(PER_DOOR.every).unwrap_or(now);
        }
    }

    /// It was right: its name has nothing to wait for there.
    pub fn succeeded(&mut self, name: &str, trier: Trier, now: Instant) {
        self.pairs.0.remove(&(name.to_owned(), trier));
        if let Trier::At(source) = trier
            && let Some(paid) = self.sources.0.get_mut(&source)
        {
            *paid = paid.checked_sub(PER_SOURCE.every).unwrap_or(now);
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

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut throttle = Throttle::default();
        let now = clock::monotonic();
        for n in 0..(u32::try_from(REMEMBERED).unwrap() + 10) {
            throttle.sources.fail(source(&std::net::Ipv4Addr::from(n).to_string()), PER_SOURCE, now);
        }
        assert_eq!(throttle.sources.0.len(), REMEMBERED);
    }
}
