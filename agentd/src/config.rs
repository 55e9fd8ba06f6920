//! The agent's settings: one TOML file, unknown keys refused, all problems told at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::settings::{Settings, SettingsError};

use crate::spool::Limits;

/// Settings that have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's key and certificate, 0700.
    pub state_dir: PathBuf,
    /// Where /proc, /sys and /etc are found.
    pub root: PathBuf,
    /// Which libvirts are asked; each has VMs of its own.
    pub libvirt_uris: Vec<String>,
    /// What runs inside VMs is asked too, over connections that may change them.
    pub ask_guest_agents: bool,
    /// Where horcrux-privd is asked what containers are called.
    pub privd_socket: PathBuf,
    pub cadence: Cadence,
    /// How much is kept while no controller stores it.
    pub spool: Limits,
    /// The agent is on its own.
    pub no_controller: bool,
    pub exporter: Option<Exporter>,
    /// Where this host's users ask the agent itself. Without a controller the usual one.
    pub agent_socket: Option<PathBuf>,
}

/// Where Prometheus asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    pub listen: Listen,
    /// Without it nothing but this host can ask.
    pub secured: Option<Secured>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// HTTPS, and a bearer token to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// PEM, the server's certificate first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub token_file: PathBuf,
}

/// How often each lane reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    pub node: Duration,
    /// Filesystems and sensors.
    pub node_slow: Duration,
    pub container: Duration,
    pub vm: Duration,
    /// What goes through a VM's monitor.
    pub vm_slow: Duration,
}

impl Default for Cadence {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { node: s(1), node_slow: s(10), container: s(5), vm: s(5), vm_slow: s(30) }
    }
}

/// Faster than this an agent would measure mostly itself.
pub const SHORTEST: Duration = Duration::from_millis(100);
pub const LONGEST: Duration = Duration::from_secs(3600);

/// A few segments; and what a disk that is not meant for it can spare.
const SMALLEST_SPOOL: u64 = 4 << 20;
const LARGEST_SPOOL: u64 = 64 << 30;
/// Where the exporter of an agent on its own listens, unless told otherwise.
pub const EXPORTER_SOCKET: &str = "/run/horcrux/exporter.sock";

/// Where an agent on its own answers this host's users, unless told otherwise.
pub const AGENT_SOCKET: &str = "/run/horcrux/agent.sock";
/// The system's own.
pub const LOCAL_LIBVIRT: &str = "qemu:///system";
/// Each costs a few threads and connections.
const MOST_LIBVIRTS: usize = 16;
const LONGEST_URI: usize = 256;

/// Where the settings are looked for.
pub const USUAL: &str = "/etc/horcrux/agentd.toml";

/// Settings that are well formed, and of no use on this host.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("root: {} is not there: the agent would see nothing", .0.display())]
    Root(PathBuf),
}

impl Config {
    /// Whether this host has what the settings name.
    pub fn check(&self) -> Result<(), Unusable> {
        let proc = self.root.join("proc");
        if proc.is_dir() { Ok(()) } else { Err(Unusable::Root(proc)) }
    }

    /// From `given`, or from [`USUAL`] where that exists.
    pub fn load(given: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(Settings::load_or_default(given, Path::new(USUAL))?)
    }

    fn read(mut from: Settings) -> Result<Self, SettingsError> {
        let (usual, limits) = (Cadence::default(), Limits::default());
        let interval =
            |from: &mut Settings, key, usual| from.duration(key, SHORTEST, LONGEST).unwrap_or(usual);
        let config = Self {
            state_dir: from.text("state_dir").map_or_else(|| "/var/lib/horcrux-agentd".into(), PathBuf::from),
            root: from.text("root").map_or_else(|| "/".into(), PathBuf::from),
            libvirt_uris: libvirt_uris(&mut from),
            ask_guest_agents: from.flag("ask_guest_agents").unwrap_or(false),
            privd_socket: from
                .text("privd_socket")
                .map_or_else(|| "/run/horcrux/privd.sock".into(), PathBuf::from),
            cadence: Cadence {
                node: interval(&mut from, "node_interval", usual.node),
                node_slow: interval(&mut from, "node_slow_interval", usual.node_slow),
                container: interval(&mut from, "container_interval", usual.container),
                vm: interval(&mut from, "vm_interval", usual.vm),
                vm_slow: interval(&mut from, "vm_slow_interval", usual.vm_slow),
            },
            spool: Limits {
                bytes: from.size("spool_size", SMALLEST_SPOOL, LARGEST_SPOOL).unwrap_or(limits.bytes),
                ..limits
            },
            no_controller: from.flag("no_controller").unwrap_or(false),
            exporter: from.table("exporter", Exporter::read).flatten(),
            agent_socket: from.parsed("agent_socket", "an absolute path", |text| {
                Path::new(text).is_absolute().then(|| text.into())
            }),
        };
        from.finish(config)
    }
}

/// Addresses are shown to whoever may see the node: one that holds a password is refused.
fn libvirt_uris(from: &mut Settings) -> Vec<String> {
    let Some(uris) = from.texts("libvirt_uris") else { return vec![LOCAL_LIBVIRT.to_owned()] };
    let mut problems = Vec::new();
    if uris.is_empty() || uris.len() > MOST_LIBVIRTS {
        problems.push(format!("name 1 to {MOST_LIBVIRTS}"));
    }
    for (at, uri) in uris.iter().enumerate() {
        // What is wrong is told without the address: it may be the password that makes it so.
        let number = at + 1;
        let (scheme, rest) = uri.split_once("://").unwrap_or_default();
        let user = rest.split(['/', '?']).next().and_then(|authority| authority.rsplit_once('@'));
        if scheme.is_empty() || uri.len() > LONGEST_URI || uri.contains(|c: char| c.is_control() || c == ' ')
        {
            problems.push(format!("number {number} is not an address such as {LOCAL_LIBVIRT}"));
        } else if user.is_some_and(|(user, _)| user.contains(':')) {
            problems.push(format!("number {number} holds a password: use a key or a certificate"));
        } else if uris[..at].contains(uri) {
            problems.push(format!("number {number} is there twice"));
        }
    }
    for problem in problems {
        from.problem(format!("libvirt_uris: {problem}"));
    }
    uris
}

impl Default for Exporter {
    fn default() -> Self {
        Self { listen: Listen::Unix(EXPORTER_SOCKET.into()), secured: None }
    }
}

impl Exporter {
    fn read(from: &mut Settings) -> Option<Self> {
        let listen = from.parsed("listen", "unix:/PATH or ADDRESS:PORT", Listen::parse);
        let paths = ["certificate", "key", "token_file"].map(|key| from.text(key).map(PathBuf::from));
        let secured = match paths {
            [Some(certificate), Some(key), Some(token_file)] => {
                Some(Secured { certificate, key, token_file })
            }
            [None, None, None] => None,
            _ => {
                from.problem(
                    "certificate, key, token_file: they go together: set all three or none".to_owned(),
                );
                return None;
            }
        };
        let listen = listen.unwrap_or_else(|| Self::default().listen);
        match &listen {
            Listen::Tcp(address) if secured.is_none() && !address.ip().is_loopback() => {
                from.problem(format!(
                    "listen: {address} is no loopback address: set certificate, key and token_file too"
                ));
                None
            }
            Listen::Unix(_) if secured.is_some() => {
                from.problem("certificate: a UNIX socket has no TLS: listen on ADDRESS:PORT".to_owned());
                None
            }
            Listen::Tcp(_) | Listen::Unix(_) => Some(Self { listen, secured }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl Listen {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => Path::new(path).is_absolute().then(|| Self::Unix(path.into())),
            None => text.parse().ok().map(Self::Tcp),
        }
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

    fn exporter(text: &str) -> Result<Option<Exporter>, String> {
        let config = parse(&format!("[exporter]\n{text}"));
        config.map(|config| config.exporter).map_err(|error| error.to_string())
    }

    const SECURED: &str = "certificate = 'c'\nkey = 'k'\ntoken_file = 't'\n";

    #[test]
    fn an_exporter_that_others_can_reach_is_refused_unless_it_is_secured() {
        for open in ["0.0.0.0:9105", "192.0.2.1:9105", "[::]:9105", "[::ffff:127.0.0.1]:9105"] {
            let told = exporter(&format!("listen = '{open}'")).unwrap_err();
            assert!(told.contains("exporter.listen: ") && told.contains("no loopback"), "{told}");
            let partly = exporter(&format!("listen = '{open}'\ncertificate = 'c'\nkey = 'k'")).unwrap_err();
            assert!(partly.contains("all three"), "{partly}");
            let secured = exporter(&format!("{SECURED}listen = '{open}'")).unwrap().unwrap();
            assert!(secured.secured.is_some());
        }
        for local in ["127.0.0.1:9105", "[::1]:9105", "unix:/run/x"] {
            assert!(exporter(&format!("listen = '{local}'")).unwrap().unwrap().secured.is_none());
        }
    }

    #[test]
    fn an_exporter_listens_on_a_socket_of_its_own_unless_told_otherwise() {
        assert_eq!(parse("").unwrap().exporter, None);
        assert_eq!(exporter(""), Ok(Some(Exporter::default())));
        assert!(exporter(SECURED).unwrap_err().contains("a UNIX socket has no TLS"));
        for wrong in ["unix:relative", "localhost:9105", "9105", ""] {
            let told = exporter(&format!("listen = '{wrong}'")).unwrap_err();
            assert!(told.contains("unix:/PATH or ADDRESS:PORT"), "{told}");
        }
    }

    #[test]
    fn libvirts_are_named_by_addresses_without_passwords() {
        assert_eq!(parse("").unwrap().libvirt_uris, ["qemu:///system"]);
        let several =
            "libvirt_uris = ['qemu:///system', 'qemu+ssh://root@b/system?no_tty=1', 'test:///default']";
        assert_eq!(parse(several).unwrap().libvirt_uris.len(), 3);
        let told = |text: &str| parse(&format!("libvirt_uris = {text}")).unwrap_err().to_string();
        let secret = told("['qemu+tcp://root:hunter2@b/system']");
        assert!(secret.contains("number 1 holds a password") && !secret.contains("hunter2"), "{secret}");
        assert!(told("['qemu:///system', 'qemu:///system']").contains("number 2 is there twice"));
        for wrong in ["[]", "['qemu']", "['://x']", "['qemu:///sys tem']"] {
            assert!(told(wrong).contains("libvirt_uris: "), "{wrong}");
        }
        assert!(told("'qemu:///system'").contains("a list of strings"));
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
