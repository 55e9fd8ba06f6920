//! The controller's settings: one TOML file, unknown keys refused, all problems told at once.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::settings::{Settings, SettingsError};

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

impl Config {
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::read(Settings::load(path)?)
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
        };
        if config.down_after <= config.late_after {
            from.problem("down_after: must be longer than late_after".into());
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
    names
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
    fn late_comes_before_down() {
        assert!(parse("late_after = '30s'\ndown_after = '30s'").is_err());
    }
}
