//! The agent's settings: one TOML file, unknown keys refused, all problems told at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::settings::{Settings, SettingsError};

/// Settings that have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's key and certificate, 0700.
    pub state_dir: PathBuf,
    /// Where /proc, /sys and /etc are found.
    pub root: PathBuf,
    /// Which libvirt is asked.
    pub libvirt_uri: String,
    /// Where horcrux-privd is asked what containers are called.
    pub privd_socket: PathBuf,
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

/// Where the settings are looked for.
pub const USUAL: &str = "/etc/horcrux/agentd.toml";

impl Config {
    /// From `given`, or from [`USUAL`] where that exists.
    pub fn load(given: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(Settings::load_or_default(given, Path::new(USUAL))?)
    }

    fn read(mut from: Settings) -> Result<Self, SettingsError> {
        let usual = Cadence::default();
        let interval =
            |from: &mut Settings, key, usual| from.duration(key, SHORTEST, LONGEST).unwrap_or(usual);
        let config = Self {
            state_dir: from.text("state_dir").map_or_else(|| "/var/lib/horcrux-agentd".into(), PathBuf::from),
            root: from.text("root").map_or_else(|| "/".into(), PathBuf::from),
            libvirt_uri: from.text("libvirt_uri").unwrap_or_else(|| "qemu:///system".to_owned()),
            privd_socket: from
                .text("privd_socket")
                .map_or_else(|| "/run/horcrux/privd.sock".into(), PathBuf::from),
            cadence: Cadence {
                node: interval(&mut from, "node_interval", usual.node),
                container: interval(&mut from, "container_interval", usual.container),
                vm: interval(&mut from, "vm_interval", usual.vm),
                vm_slow: interval(&mut from, "vm_slow_interval", usual.vm_slow),
            },
        };
        from.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, SettingsError> {
        Config::read(Settings::parse(text, Path::new("agentd.toml"))?)
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
