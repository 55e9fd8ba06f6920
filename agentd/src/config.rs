//! The agent's settings: one TOML file, unknown keys refused, all problems told at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::settings::duration;
use serde::Deserialize;

/// Settings that have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's key and certificate, 0700.
    pub state_dir: PathBuf,
    /// Where /proc, /sys and /etc are found.
    pub root: PathBuf,
    /// Which libvirt is asked.
    pub libvirt_uri: String,
    pub cadence: Cadence,
}

/// How often each lane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    pub node: Duration,
    pub container: Duration,
    pub vm: Duration,
    /// What goes through a VM's monitor.
    pub vm_slow: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { node: s(1), container: s(5), vm: s(5), vm_slow: s(30) }
    }
}

/// Faster than this an agent would measure mostly itself.
pub const SHORTEST: Duration = Duration::from_millis(100);
pub const LONGEST: Duration = Duration::from_secs(3600);

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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    state_dir: Option<String>,
    root: Option<String>,
    libvirt_uri: Option<String>,
    node_interval: Option<String>,
    container_interval: Option<String>,
    vm_interval: Option<String>,
    vm_slow_interval: Option<String>,
}

const KEYS: [&str; 7] = [
    "state_dir",
    "root",
    "libvirt_uri",
    "node_interval",
    "container_interval",
    "vm_interval",
    "vm_slow_interval",
];

impl Config {
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // serde stops at the first unknown key; people want all of them, beside what else is wrong.
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        let mut problems: Vec<String> = table
            .keys()
            .filter(|key| !KEYS.contains(&key.as_str()))
            .map(|key| format!("{key}: no such setting"))
            .collect();
        table.retain(|key, _| KEYS.contains(&key));
        let file = match table.try_into::<File>() {
            Ok(file) => file,
            Err(error) => {
                problems.push(error.message().to_owned());
                File::default()
            }
        };
        let mut interval = |key: &str, value: Option<String>, default: Duration| {
            let Some(text) = value else { return default };
            duration(&text).filter(|d| (SHORTEST..=LONGEST).contains(d)).unwrap_or_else(|| {
                problems.push(format!("{key}: {text:?} is not a duration from 100ms to 1h, such as 5s"));
                default
            })
        };
        let usual = Cadence::default();
        let config = Self {
            state_dir: file.state_dir.map_or_else(|| "/var/lib/horcrux-agentd".into(), PathBuf::from),
            root: file.root.map_or_else(|| "/".into(), PathBuf::from),
            libvirt_uri: file.libvirt_uri.unwrap_or_else(|| "qemu:///system".to_owned()),
            cadence: Cadence {
                node: interval("node_interval", file.node_interval, usual.node),
                container: interval("container_interval", file.container_interval, usual.container),
                vm: interval("vm_interval", file.vm_interval, usual.vm),
                vm_slow: interval("vm_slow_interval", file.vm_slow_interval, usual.vm_slow),
            },
        };
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("agentd.toml"))
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(parse("").unwrap().cadence, Cadence::default());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = parse("nodeinterval = '1s'\ncontainer_interval = 'x'\nrot = 1").unwrap_err();
        let error = error.to_string();
        for part in ["nodeinterval", "container_interval", "rot:"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told() {
        assert!(parse("state_dir = 5").unwrap_err().to_string().contains("string"));
    }
}
