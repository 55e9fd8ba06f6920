//! How many requests are let through in a minute.
//!
//! | bound | of |
//! |---|---|
//! | a user | one name from one host; one name of somebody known, wherever they are |
//! | a host | a quarter of what is open, over all names |
//! | all | three quarters open to everybody, a quarter kept for those who are known |
//!
//! By name alone, whoever knows a name would lock its owner out. A host also gets the less of its quarter the more of the
//! open part is used: four of them don't use up everything. Those who are known are not counted with their host, which
//! others may share.
//!
//! A bucket that holds a minute's requests and fills steadily is here one instant: when it will be full again. A request
//! moves that on by its share of a minute, and is refused where that would be more than a minute away. A bucket that is full
//! is as good as none, so the table forgets it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use horcrux_pamd::Request;

const MINUTE: Duration = Duration::from_secs(60);

/// The most that can be set, for a user or in all.
pub(crate) const MAX_RATE: u16 = 1000;
/// The least that can be set for all: a quarter must be something.
pub(crate) const MIN_RATE: u16 = 4;

/// Buckets that aren't full belong to requests of the last minute, at most twice [`MAX_RATE`] with those saved up before,
/// and each is counted in two of the table at most.
const TABLE: usize = 4 * MAX_RATE as usize;

#[derive(Debug)]
pub(crate) struct Rates {
    open: Bucket,
    kept: Bucket,
    table: HashMap<Key, Bucket>,
    shares: Shares,
}

/// Which bound a request is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    User,
    Host,
    All,
}

/// One request's share of a minute, for each bound.
#[derive(Clone, Copy, Debug)]
struct Shares {
    user: Duration,
    host: Duration,
    open: Duration,
    kept: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    UserAt(String, Host),
    Known(String),
    Host(Host),
}

/// What one machine has to itself: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Address(IpAddr),
    /// What isn't an address, the empty text too.
    Other(String),
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Rates {
    /// Both are per minute, taken as the nearest that can be set.
    pub(crate) fn new(user: u16, all: u16, now: Instant) -> Self {
        let all = all.clamp(MIN_RATE, MAX_RATE);
        let kept = all / 4;
        let open = all - kept;
        let share = |rate: u16| MINUTE / u32::from(rate.clamp(1, MAX_RATE));
        Self {
            open: Bucket { full_at: now },
            kept: Bucket { full_at: now },
            table: HashMap::new(),
            shares: Shares { user: share(user), host: share(open / 4), open: share(open), kept: share(kept) },
        }
    }

    /// Counts a request. One that is beyond a bound is counted nowhere: whoever floods one name doesn't use up all.
    pub(crate) fn take(&mut self, request: &Request, now: Instant) -> Result<(), Beyond> {
        self.make_room(now)?;
        // Many directories don't tell A from a: neither does the bound.
        let name = request.user.to_lowercase();
        if request.known {
            self.take_known(name, now)
        } else {
            self.take_at(name, Host::of(&request.host), now)
        }
    }

    fn take_at(&mut self, name: String, host: Host, now: Instant) -> Result<(), Beyond> {
        let (user_key, host_key) = (Key::UserAt(name, host.clone()), Key::Host(host));
        let user = self.bucket(&user_key, now).after(self.shares.user, now).ok_or(Beyond::User)?;
        let before = self.bucket(&host_key, now);
        let host = before.after(self.shares.host, now).ok_or(Beyond::Host)?;
        // Both are parts of a minute. A host's first request needs only what is left.
        if before.used(now) > Duration::ZERO && host.used(now) > MINUTE.saturating_sub(self.open.used(now)) {
            return Err(Beyond::Host);
        }
        self.open = self.open.after(self.shares.open, now).ok_or(Beyond::All)?;
        self.table.insert(user_key, user);
        self.table.insert(host_key, host);
        Ok(())
    }

    fn take_known(&mut self, name: String, now: Instant) -> Result<(), Beyond> {
        let key = Key::Known(name);
        let user = self.bucket(&key, now).after(self.shares.user, now).ok_or(Beyond::User)?;
        match self.open.after(self.shares.open, now) {
            Some(open) => self.open = open,
            None => self.kept = self.kept.after(self.shares.kept, now).ok_or(Beyond::All)?,
        }
        self.table.insert(key, user);
        Ok(())
    }

    fn bucket(&self, key: &Key, now: Instant) -> Bucket {
        self.table.get(key).copied().unwrap_or(Bucket { full_at: now })
    }

    fn make_room(&mut self, now: Instant) -> Result<(), Beyond> {
        let full = |table: &HashMap<Key, Bucket>| table.len() + 2 > TABLE;
        if full(&self.table) {
            self.table.retain(|_, bucket| bucket.full_at > now);
        }
        if full(&self.table) { Err(Beyond::All) } else { Ok(()) }
    }
}

impl Host {
    fn of(text: &str) -> Self {
        // What follows is the interface, by which this machine tells networks apart, not hosts.
        let address = text.split_once('%').map_or(text, |(address, _)| address);
        match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(v4 @ IpAddr::V4(_)) => Self::Address(v4),
            Ok(IpAddr::V6(v6)) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Self::Address(IpAddr::V6(Ipv6Addr::from(network)))
            }
            Err(_) => Self::Other(text.to_owned()),
        }
    }
}

impl Bucket {
    /// The bucket without one more request; none when it has none.
    fn after(self, share: Duration, now: Instant) -> Option<Self> {
        let full_at = self.full_at.max(now) + share;
        (full_at <= now + MINUTE).then_some(Self { full_at })
    }

    /// How much of its minute is used.
    fn used(self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use horcrux_pamd::Password;
    use proptest::prelude::*;

    use super::*;
    use horcrux_local::clock;

    fn asked(user: &str, host: &str) -> Request {
        let password = Password::from("p".to_owned());
        Request { user: user.to_owned(), password, host: host.to_owned(), known: false }
    }

    fn known(user: &str, host: &str) -> Request {
        Request { known: true, ..asked(user, host) }
    }

    /// How many of so many requests are let in.
    fn let_in(rates: &mut Rates, now: Instant, requests: impl Iterator<Item = Request>) -> usize {
        requests.filter(|request| rates.take(request, now).is_ok()).count()
    }

    #[test]
    fn a_user_at_a_host_has_so_many_tries_and_then_one_each_share_of_a_minute() {
        let start = clock::now();
        let mut rates = Rates::new(6, 100, start);
        assert_eq!(let_in(&mut rates, start, (0..10).map(|_| asked("alice", "192.0.2.1"))), 6);
        assert_eq!(rates.take(&asked("ALICE", "192.0.2.1"), start), Err(Beyond::User));
        assert_eq!(rates.take(&asked("bob", "192.0.2.1"), start), Ok(()));
        let later = start + Duration::from_secs(10);
        assert_eq!(rates.take(&asked("alice", "192.0.2.1"), later), Ok(()));
        assert_eq!(rates.take(&asked("alice", "192.0.2.1"), later), Err(Beyond::User));
    }

    #[test]
    fn an_owner_is_not_locked_out_by_what_others_type_elsewhere() {
        let start = clock::now();
        let mut rates = Rates::new(10, 120, start);
        let flood = (0..400).map(|n| asked("alice", &format!("192.0.2.{}", n % 4)));
        assert!(let_in(&mut rates, start, flood) >= 12);
        assert_eq!(rates.take(&asked("alice", "198.51.100.7"), start), Ok(()));
    }

    #[test]
    fn one_host_is_bounded_whatever_the_names() {
        let start = clock::now();
        let mut rates = Rates::new(10, 160, start);
        let flood = (0..400).map(|n| asked(&format!("user{n}"), "192.0.2.1"));
        assert!((1..=30).contains(&let_in(&mut rates, start, flood)));
        assert_eq!(rates.take(&asked("alice", "192.0.2.1"), start), Err(Beyond::Host));
        let mut steady = 0;
        for second in 1..=600 {
            let now = start + Duration::from_secs(second);
            steady += let_in(&mut rates, now, (0..5).map(|n| asked(&format!("{second}-{n}"), "192.0.2.1")));
        }
        assert!((290..=310).contains(&steady), "30 a minute: {steady}");
    }

    #[test]
    fn a_few_hosts_leave_the_others_something() {
        let start = clock::now();
        let mut rates = Rates::new(10, 120, start);
        let flood = (0..2000).map(|n| asked(&format!("user{n}"), &format!("192.0.2.{}", n % 8)));
        assert!(let_in(&mut rates, start, flood) < 90);
        for _ in 0..3 {
            assert_eq!(rates.take(&asked("alice", "198.51.100.7"), start), Ok(()));
        }
    }

    #[test]
    fn one_ipv6_network_is_one_host_and_a_mapped_address_is_the_ipv4_one() {
        let start = clock::now();
        let mut rates = Rates::new(2, 120, start);
        assert_eq!(let_in(&mut rates, start, (0..9).map(|n| asked("alice", &format!("2001:db8::{n}")))), 2);
        assert_eq!(rates.take(&asked("alice", "2001:db8:0:1::1"), start), Ok(()));
        assert_eq!(Host::of("::ffff:192.0.2.1"), Host::of("192.0.2.1"));
        assert_eq!(Host::of("fe80::1%eth0"), Host::of("fe80::2%eth1"));
        assert_ne!(Host::of(""), Host::of("192.0.2.1"));
    }

    #[test]
    fn many_hosts_together_stay_within_what_is_open_and_the_rest_is_kept_for_the_known() {
        let start = clock::now();
        let mut rates = Rates::new(6, 40, start);
        let hosts = (0..250).map(|n| asked("alice", &format!("192.0.2.{n}")));
        assert_eq!(let_in(&mut rates, start, hosts), 30);
        assert_eq!(rates.take(&asked("alice", "198.51.100.7"), start), Err(Beyond::All));
        assert_eq!(let_in(&mut rates, start, (0..20).map(|_| known("alice", "192.0.2.1"))), 6);
        assert_eq!(rates.take(&known("ALICE", "198.51.100.7"), start), Err(Beyond::User));
        assert_eq!(let_in(&mut rates, start, (0..20).map(|n| known(&format!("user{n}"), ""))), 4);
        assert_eq!(rates.take(&known("bob", ""), start), Err(Beyond::All));
    }

    #[test]
    fn who_is_known_has_their_own_tries_at_a_host_that_is_beyond_its_bound() {
        let start = clock::now();
        let mut rates = Rates::new(5, 120, start);
        let flood = (0..400).map(|n| asked(if n < 50 { "alice" } else { "bob" }, "192.0.2.1"));
        assert_eq!(let_in(&mut rates, start, flood), 10);
        assert_eq!(let_in(&mut rates, start, (0..20).map(|_| known("alice", "192.0.2.1"))), 5);
    }

    #[test]
    fn the_table_forgets_names_and_never_grows_beyond_its_bound() {
        let start = clock::now();
        let mut rates = Rates::new(1, MAX_RATE, start);
        for n in 0..20_000_u32 {
            let now = start + Duration::from_millis(80) * n;
            let host = format!("10.0.{}.{}", n / 256, n % 256);
            assert_eq!(rates.take(&asked(&format!("user{n}"), &host), now), Ok(()), "{n}");
            assert!(rates.table.len() <= TABLE);
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
                let let_in = rates.take(&known("alice", ""), now).is_ok();
                prop_assert_eq!(let_in, model.held > 0);
                model.held -= u64::from(let_in);
            }
        }
    }
}
