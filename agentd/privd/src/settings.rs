//! What root says about a controller: whose orders count here, and how much of them.
//!
//! Both files are root's, and written by `horcrux-agentd enroll` or by people: privd only reads them.

use std::fmt;

use clap::ValueEnum;
use horcrux_envelope::PublicKey;
use serde::{Deserialize, Serialize};

/// Below the host's root.
pub const DIRECTORY: [&str; 3] = ["etc", "horcrux", "privd"];
pub const CONTROLLER: &str = "controller.toml";
pub const POLICY: &str = "policy.toml";

/// How much a controller may do. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is carried out
    Observe,
    /// Consoles are opened
    Console,
    /// VMs are started and stopped, too
    Operate,
    /// VMs are made, changed and removed, too
    Manage,
}

/// Whose orders count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// With `node_id`, this node as its certificate names it: `spiffe://{cluster}/node/{node_id}`.
    pub cluster: String,
    pub node_id: String,
    pub keys: Vec<PublicKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error("{0}")]
    Toml(String),
    #[error("a key is not the 64 hexadecimal digits of an Ed25519 public key")]
    Key,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: String,
    node_id: String,
    keys: Vec<String>,
}

impl Controller {
    pub fn parse(text: &str) -> Result<Self, ControllerError> {
        let file: File =
            toml::from_str(text).map_err(|error| ControllerError::Toml(error.message().to_owned()))?;
        let keys = file.keys.iter().map(|digits| key(digits)).collect::<Option<_>>();
        let keys = keys.ok_or(ControllerError::Key)?;
        Ok(Self { cluster: file.cluster, node_id: file.node_id, keys })
    }

    /// As a file, which [`Self::parse`] reads.
    pub fn to_file(&self) -> Result<String, toml::ser::Error> {
        const HEAD: &str =
            "# Whose orders horcrux-privd takes: written by `horcrux-agentd enroll`, anew each time.\n";
        let hex =
            |key: &PublicKey| key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let keys = self.keys.iter().map(hex).collect();
        let file = File { cluster: self.cluster.clone(), node_id: self.node_id.clone(), keys };
        Ok(format!("{HEAD}{}", toml::to_string(&file)?))
    }
}

fn key(digits: &str) -> Option<PublicKey> {
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
        u8::from_str_radix(pair, 16).ok()
    });
    PublicKey::try_from(bytes.collect::<Option<Vec<u8>>>()?.as_slice()).ok()
}

/// The policy of a node that has none yet.
#[must_use]
pub fn starting_policy(mode: Mode) -> String {
    format!(
        r#"# What a controller may do on this host, whatever it says. horcrux-privd reads this file anew for each order.
# While a file /run/horcrux/hold exists, everything is refused and open consoles are closed.

# observe  nothing is carried out
# console  consoles are opened
# operate  VMs are started and stopped, too
# manage   VMs are made, changed and removed, too
mode = "{mode}"

# Which VMs, by name or uuid: * stands for any characters, ? for one. No others.
allow_vms = ["*"]

# Operations that are refused whatever the mode: console-open, console-close.
#deny_ops = ["console-open"]

# Orders that end or remove something, in a minute. None of this version does.
#destructive_per_minute = 10

# The libvirt that has the VMs.
#libvirt_uri = "qemu:///system"
"#
    )
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Console => "console",
            Self::Operate => "operate",
            Self::Manage => "manage",
        })
    }
}

#[cfg(test)]
mod tests {
    use horcrux_envelope::Signer;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let keys = vec![Signer::new(&[1; 32]).public_key(), Signer::new(&[2; 32]).public_key()];
        let written = Controller { cluster: "a\"b".to_owned(), node_id: "n1".to_owned(), keys };
        assert_eq!(Controller::parse(&written.to_file().unwrap()).unwrap(), written);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let with = |keys: &str| format!("cluster = \"c\"\nnode_id = \"n\"\nkeys = {keys}\n");
        assert!(Controller::parse(&with("[]")).unwrap().keys.is_empty());
        assert!(matches!(Controller::parse(&with("[\"00\"]")), Err(ControllerError::Key)));
        assert!(matches!(Controller::parse(&with("[\"+0\"]")), Err(ControllerError::Key)));
        for text in ["", "cluster = 1", &(with("[]") + "more = 1"), "\0"] {
            assert!(matches!(Controller::parse(text), Err(ControllerError::Toml(_))), "{text}");
        }
    }
}
