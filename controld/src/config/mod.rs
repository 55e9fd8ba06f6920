//! The controller's settings: one TOML file, unknown keys refused, all problems told at once.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::settings::{Settings, SettingsError};

pub mod realms;

use realms::RealmSettings;

use crate::access::privileges::built_in;

/// Settings that have been checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub state_dir: PathBuf,
    pub public_listen: SocketAddr,
    pub agents_listen: SocketAddr,
    /// Names and addresses that people reach the controller by: what its certificate says and which Origins a browser
    /// may come from.
    pub names: Vec<String>,
    /// A certificate of one's own for the public port, in place of the one from the controller's CA.
    pub own_certificate: Option<OwnCertificate>,
    pub late_after: Duration,
    pub down_after: Duration,
    pub session_idle: Duration,
    pub session_absolute: Duration,
    pub cadence: Cadence,
    /// Where people's passwords are checked; the local realm first.
    pub realms: Vec<RealmSettings>,
    /// Whoever holds one of these roles must have a second factor.
    pub second_factor_roles: BTreeSet<String>,
    /// How long the audit log is kept.
    pub audit_retention: Duration,
    /// Where the head of the audit log is noted every minute, beside the journal.
    pub audit_checkpoint_file: Option<PathBuf>,
    /// How long recordings of consoles are kept, and how many bytes of them.
    pub recording_retention: Duration,
    pub recording_quota: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// How often agents read; `None` leaves an agent's own setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cadence {
    pub node: Option<Duration>,
    pub container: Option<Duration>,
    pub vm: Option<Duration>,
    pub vm_slow: Option<Duration>,
}

/// A session, or a silence, of days is a mistake.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Below this an agent would measure mostly itself.
const SHORTEST_CADENCE: Duration = Duration::from_millis(100);
const LONGEST_CADENCE: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(24 * 3600);
const RETENTION: Duration = Duration::from_secs(400 * 24 * 3600);
const SHORTEST_RETENTION: Duration = DAY;
const RECORDING_RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);
const RECORDING_QUOTA: u64 = 10 << 30;
/// Less holds no recording that is worth one.
const LEAST_QUOTA: u64 = 1 << 20;
const MOST_QUOTA: u64 = 1 << 50;
const LONGEST_RETENTION: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Where the settings are looked for.
pub const USUAL: &str = "/etc/horcrux/controld.toml";

impl Config {
    /// From `given`, or from [`USUAL`] where that exists.
    pub fn load(given: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(Settings::load_or_default(given, Path::new(USUAL))?)
    }

    /// Roles that are named here and aren't built in: whether they were made is for the running controller to say.
    #[must_use]
    pub fn own_roles(&self) -> Vec<&str> {
        let roles = self.second_factor_roles.iter().map(String::as_str);
        roles.filter(|role| !built_in().contains_key(role)).collect()
    }

    fn read(mut from: Settings) -> Result<Self, SettingsError> {
        let s = Duration::from_secs;
        let address = |from: &mut Settings, key, port| {
            let given = from.parsed(key, "ADDRESS:PORT", |text| text.parse().ok());
            given.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], port)))
        };
        let duration = |from: &mut Settings, key, usual| {
            from.duration(key, Duration::from_millis(1), LONGEST).unwrap_or(usual)
        };
        let interval = |from: &mut Settings, key| from.duration(key, SHORTEST_CADENCE, LONGEST_CADENCE);
        let config = Self {
            state_dir: from
                .text("state_dir")
                .map_or_else(|| "/var/lib/horcrux-controld".into(), PathBuf::from),
            public_listen: address(&mut from, "public_listen", 8006),
            agents_listen: address(&mut from, "agents_listen", 8007),
            names: from.texts("names").unwrap_or_else(default_names),
            own_certificate: own_certificate(&mut from),
            late_after: duration(&mut from, "late_after", s(10)),
            down_after: duration(&mut from, "down_after", s(30)),
            session_idle: duration(&mut from, "session_idle", s(30 * 60)),
            session_absolute: duration(&mut from, "session_absolute", s(12 * 3600)),
            cadence: Cadence {
                node: interval(&mut from, "node_interval"),
                container: interval(&mut from, "container_interval"),
                vm: interval(&mut from, "vm_interval"),
                vm_slow: interval(&mut from, "vm_slow_interval"),
            },
            realms: realms::read(&mut from),
            second_factor_roles: from.texts("second_factor_roles").unwrap_or_default().into_iter().collect(),
            audit_retention: from
                .duration("audit_retention", SHORTEST_RETENTION, LONGEST_RETENTION)
                .unwrap_or(RETENTION),
            audit_checkpoint_file: from.text("audit_checkpoint_file").map(PathBuf::from),
            recording_retention: from
                .duration("recording_retention", SHORTEST_RETENTION, LONGEST_RETENTION)
                .unwrap_or(RECORDING_RETENTION),
            recording_quota: from.size("recording_quota", LEAST_QUOTA, MOST_QUOTA).unwrap_or(RECORDING_QUOTA),
        };
        if config.down_after <= config.late_after {
            from.problem("down_after: must be longer than late_after".into());
        }
        if config.session_idle > config.session_absolute {
            from.problem("session_idle: must not be longer than session_absolute".into());
        }
        if config.public_listen.port() != 0 && config.public_listen.port() == config.agents_listen.port() {
            from.problem("agents_listen: must be another port than public_listen".into());
        }
        if config.names.is_empty() {
            from.problem("names: at least one name is needed".into());
        }
        let strange = |name: &&String| name.is_empty() || name.contains(['/', ':', ' ', '*']) && !is_ip(name);
        for name in config.names.iter().filter(strange) {
            from.problem(format!("names: {name:?} is neither a host name nor an address"));
        }
        from.finish(config)
    }
}

fn own_certificate(from: &mut Settings) -> Option<OwnCertificate> {
    match (from.text("certificate_file"), from.text("key_file")) {
        (Some(chain), Some(key)) => Some(OwnCertificate { chain: chain.into(), key: key.into() }),
        (None, None) => None,
        _ => {
            from.problem("certificate_file and key_file: both or neither".into());
            None
        }
    }
}

fn is_ip(name: &str) -> bool {
    name.parse::<std::net::IpAddr>().is_ok()
}

/// What this machine answers to when nothing was configured.
fn default_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        let host = host.trim().to_owned();
        if !host.is_empty() && !names.contains(&host) {
            names.push(host);
        }
    }
    names.extend(
        addresses().map(|address| address.to_string()).filter(|a| !names.contains(a)).collect::<Vec<_>>(),
    );
    names
}

/// This machine's own addresses, as the kernel lists them; none where it doesn't.
fn addresses() -> impl Iterator<Item = IpAddr> {
    let v4 = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    local_v4(&v4).into_iter().map(IpAddr::V4).chain(local_v6(&v6).into_iter().map(IpAddr::V6))
}

/// An address stands on the line above the one that calls it local.
fn local_v4(fib_trie: &str) -> BTreeSet<Ipv4Addr> {
    let mut last = None;
    let mut found = BTreeSet::new();
    for line in fib_trie.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    found
}

/// Of global scope: others mean something on one link only.
fn local_v6(if_inet6: &str) -> BTreeSet<Ipv6Addr> {
    let global = if_inet6.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        (fields.nth(2)? == "00").then(|| Ipv6Addr::from(address))
    });
    global.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, SettingsError> {
        Config::read(Settings::parse(text, Path::new("controld.toml"))?)
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.public_listen.port(), 8006);
        assert_eq!(config.agents_listen.port(), 8007);
        assert_eq!(config.down_after, Duration::from_secs(30));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text =
            "public_listen = 'x'\nlate_after = '1 day'\nkey_file = 'k'\nnode_interval = '1ms'\nstat_dir = 5";
        let error = parse(text).unwrap_err().to_string();
        for part in ["public_listen", "late_after", "key_file", "node_interval", "stat_dir"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_told() {
        let text = "session_idle = '13h'\npublic_listen = '0.0.0.0:8006'\nagents_listen = '127.0.0.1:8006'";
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("session_idle") && error.contains("agents_listen"), "{error}");
    }

    #[test]
    fn addresses_are_found_in_the_kernels_lists() {
        let fib = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.2.0\n        /24 link UNICAST\n     |-- 10.0.2.15\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(local_v4(fib).into_iter().collect::<Vec<_>>(), [Ipv4Addr::new(10, 0, 2, 15)]);
        let inet6 = "fe80000000000000505400fffe123456 02 40 20 80     eth0\n20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert_eq!(
            local_v6(inet6).into_iter().collect::<Vec<_>>(),
            ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]
        );
    }

    #[test]
    fn realms_are_read_and_their_problems_told_with_their_place() {
        let good = "[realm.corp]\nkind = 'ldap'\nurls = ['ldaps://ldap.example']\nuser_base = 'dc=example'\n\
                    [realm.sso]\nkind = 'oidc'\nissuer = 'https://sso.example'\nclient_id = 'horcrux'\n\
                    [realm.local]\nsecond_factor = 'required'\n[realm.host]\nkind = 'pam'";
        let config = parse(good).unwrap();
        let names: Vec<_> = config.realms.iter().map(|r| (r.name.as_str(), r.requires_factor)).collect();
        assert_eq!(names, [("local", true), ("corp", false), ("host", false), ("sso", false)]);
        assert_eq!(parse("").unwrap().realms.len(), 1, "local is always there");
        let error = parse("[realm.corp]\nkind = 'ldap'\nbind_dn = 'x'\n[realm.X]\nkind = 'y'")
            .unwrap_err()
            .to_string();
        for part in [
            "realm.corp.urls",
            "realm.corp.user_base",
            "bind_password_file",
            "realm.X.kind",
            "a realm's name",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn a_role_that_may_not_exist_is_found_without_a_controller() {
        let config = parse("second_factor_roles = ['Administrater', 'Administrator']").unwrap();
        assert_eq!(config.own_roles(), ["Administrater"]);
    }

    #[test]
    fn recordings_have_bounds() {
        let usual = parse("").unwrap();
        assert_eq!((usual.recording_retention, usual.recording_quota), (90 * DAY, 10 << 30));
        let config = parse("recording_retention = '24h'\nrecording_quota = '1MiB'").unwrap();
        assert_eq!((config.recording_retention, config.recording_quota), (DAY, 1 << 20));
        assert!(parse("recording_quota = '1KiB'").is_err() && parse("recording_retention = '1h'").is_err());
    }

    #[test]
    fn late_comes_before_down() {
        assert!(parse("late_after = '30s'\ndown_after = '30s'").is_err());
    }
}
