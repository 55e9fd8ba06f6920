//! The controller's settings: one TOML file, unknown keys refused, all problems told at once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::settings::duration;
use serde::Deserialize;

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

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not valid: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{} has {} problems:\n  {}", path.display(), problems.len(), problems.join("\n  "))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state_dir: Option<String>,
    public_listen: Option<String>,
    agents_listen: Option<String>,
    names: Option<Vec<String>>,
    certificate_file: Option<String>,
    key_file: Option<String>,
    late_after: Option<String>,
    down_after: Option<String>,
    session_idle: Option<String>,
    session_absolute: Option<String>,
    node_interval: Option<String>,
    container_interval: Option<String>,
    vm_interval: Option<String>,
    vm_slow_interval: Option<String>,
}

impl Config {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = match toml::from_str::<File>(text) {
            Ok(file) => file,
            Err(error) => {
                let unknown = unknown_keys(text);
                return Err(if unknown.is_empty() {
                    ConfigError::Syntax { path: path.to_owned(), message: error.to_string() }
                } else {
                    ConfigError::Invalid { path: path.to_owned(), problems: unknown }
                });
            }
        };
        let mut check = Check::default();
        let config = Self {
            state_dir: file
                .state_dir
                .map_or_else(|| PathBuf::from("/var/lib/horcrux-controld"), PathBuf::from),
            public_listen: check.address("public_listen", file.public_listen, "0.0.0.0:8006"),
            agents_listen: check.address("agents_listen", file.agents_listen, "0.0.0.0:8007"),
            names: file.names.unwrap_or_else(default_names),
            own_certificate: check.own_certificate(file.certificate_file, file.key_file),
            late_after: check.duration("late_after", file.late_after, Duration::from_secs(10)),
            down_after: check.duration("down_after", file.down_after, Duration::from_secs(30)),
            session_idle: check.duration("session_idle", file.session_idle, Duration::from_secs(30 * 60)),
            session_absolute: check.duration(
                "session_absolute",
                file.session_absolute,
                Duration::from_secs(12 * 3600),
            ),
            cadence: Cadence {
                node: check.interval("node_interval", file.node_interval),
                container: check.interval("container_interval", file.container_interval),
                vm: check.interval("vm_interval", file.vm_interval),
                vm_slow: check.interval("vm_slow_interval", file.vm_slow_interval),
            },
        };
        if config.down_after <= config.late_after {
            check.problems.push("down_after: must be longer than late_after".into());
        }
        if config.names.is_empty() {
            check.problems.push("names: at least one name is needed".into());
        }
        let strange = |name: &&String| name.is_empty() || name.contains(['/', ':', ' ', '*']) && !is_ip(name);
        for name in config.names.iter().filter(strange) {
            check.problems.push(format!("names: {name:?} is neither a host name nor an address"));
        }
        if check.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems: check.problems })
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

/// serde stops at the first unknown key; people want all of them.
fn unknown_keys(text: &str) -> Vec<String> {
    const KNOWN: &[&str] = &[
        "state_dir",
        "public_listen",
        "agents_listen",
        "names",
        "certificate_file",
        "key_file",
        "late_after",
        "down_after",
        "session_idle",
        "session_absolute",
        "node_interval",
        "container_interval",
        "vm_interval",
        "vm_slow_interval",
    ];
    let table = text.parse::<toml::Table>().unwrap_or_default();
    table.keys().filter(|k| !KNOWN.contains(&k.as_str())).map(|k| format!("{k}: no such setting")).collect()
}

#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn address(&mut self, key: &str, value: Option<String>, default: &str) -> SocketAddr {
        let text = value.unwrap_or_else(|| default.to_owned());
        text.parse().unwrap_or_else(|_| {
            self.problems.push(format!("{key}: {text:?} is not ADDRESS:PORT"));
            SocketAddr::from(([0, 0, 0, 0], 0))
        })
    }

    fn own_certificate(&mut self, chain: Option<String>, key: Option<String>) -> Option<OwnCertificate> {
        match (chain, key) {
            (Some(chain), Some(key)) => Some(OwnCertificate { chain: chain.into(), key: key.into() }),
            (None, None) => None,
            _ => {
                self.problems.push("certificate_file and key_file: both or neither".into());
                None
            }
        }
    }

    fn duration(&mut self, key: &str, value: Option<String>, default: Duration) -> Duration {
        let Some(text) = value else { return default };
        match duration(&text) {
            Some(duration) if !duration.is_zero() => duration,
            _ => {
                self.problems
                    .push(format!("{key}: {text:?} is not a duration such as 500ms, 10s, 5m or 12h"));
                default
            }
        }
    }

    fn interval(&mut self, key: &str, value: Option<String>) -> Option<Duration> {
        let text = value?;
        match duration(&text) {
            // Below 100 ms an agent would measure mostly itself.
            Some(d) if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&d) => Some(d),
            _ => {
                self.problems.push(format!("{key}: {text:?} is not a duration from 100ms to 1h"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("controld.toml"))
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
        let text = "public_listen = 'x'\nlate_after = '1 day'\nkey_file = 'k'\nnode_interval = '1ms'";
        let error = parse(text).unwrap_err().to_string();
        for part in ["public_listen", "late_after", "key_file", "node_interval"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = parse("stat_dir = 'x'\npublic_listn = 'y'").unwrap_err().to_string();
        assert!(error.contains("stat_dir") && error.contains("public_listn"), "{error}");
    }

    #[test]
    fn late_comes_before_down() {
        assert!(parse("late_after = '30s'\ndown_after = '30s'").is_err());
    }
}
