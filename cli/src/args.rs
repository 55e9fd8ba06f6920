//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use horcrux_transport::client::{Pin, Target};

use crate::contexts::ContextName;
use crate::exit;
use crate::view::Output;

/// See and manage the nodes, virtual machines and containers of a Horcrux controller.
#[derive(Debug, Parser)]
#[command(name = "horcruxctl", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Which controller: a name from `context list` instead of the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<ContextName>,
    /// The form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, hide_possible_values = false)]
    pub output: Output,
    /// How long the controller may take to answer, for instance 5s or 1m.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a controller and make it the current one.
    Login(LoginArgs),
    /// Make the first administrator of a new controller, then sign in.
    Setup(SetupArgs),
    /// End the session.
    Logout,
    /// Show who is signed in, with which roles.
    Whoami,
    /// The controllers that are known here.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Hypervisors and container hosts.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Virtual machines.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Containers.
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Print changes as they come, until Ctrl-C.
    Watch(WatchArgs),
    /// Show live usage of nodes, VMs and containers, full-screen.
    ///
    /// CPU and memory of a VM are shares of what it was given, of a container shares of its limits, or of the node
    /// where it has none. `?` shows the keys.
    Top,
    /// Print a completion script for a shell.
    Completions { shell: Shell },
    /// Print the version.
    Version {
        /// Ask the controller for its version too.
        #[arg(long)]
        controller: bool,
    },
}

/// How a controller proves who it is.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
pub struct TrustArgs {
    /// The fingerprint of the controller's certificate authority: SHA-256 of its public key, as 64 hex digits. It
    /// is in the file ca-fingerprint of the controller's state directory.
    #[arg(long, value_name = "HEX")]
    pub fingerprint: Option<Pin>,
    /// A file with the certificate authority (or several), in PEM.
    #[arg(long, value_name = "PEM")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// For instance https://web1.example; the port is 8006 when none is given.
    #[arg(value_name = "URL", value_parser = target)]
    pub target: Target,
    /// The user's name; asked for when not given.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Read the password from a file, or from standard input when F is `-`. Asked for when not given.
    #[arg(long, value_name = "F")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SetupArgs {
    #[command(flatten)]
    pub login: LoginArgs,
    /// Read the setup code from a file, or from standard input when F is `-`. Asked for when not given.
    #[arg(long, value_name = "F")]
    pub code_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List the controllers that are known here.
    List,
    /// Make another controller the current one.
    Use { name: ContextName },
    /// Forget a controller, its session and whom it is trusted by.
    Remove { name: ContextName },
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List all nodes.
    List,
    /// Show one node and its newest values.
    Get {
        /// Its name.
        name: String,
    },
    /// Forget a node: its certificate stops working.
    Delete {
        /// Its name.
        name: String,
        /// Don't ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a token with which one node may enroll, once.
    JoinToken(JoinTokenArgs),
}

#[derive(Debug, Args)]
pub struct JoinTokenArgs {
    /// The name that the node will have. Its own host name when not given.
    #[arg(long, value_name = "N")]
    pub name: Option<String>,
    /// How long the token works: 1m to 24h.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = join_token_ttl)]
    pub ttl: Duration,
    /// Write the token to a new file with mode 0600 instead of printing it.
    #[arg(long, value_name = "F")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// List virtual machines.
    List {
        /// Only those on this node.
        #[arg(long)]
        node: Option<String>,
    },
    /// Show one virtual machine and its newest values.
    Get {
        /// Its name, its uuid, or NODE/NAME.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// List containers.
    List {
        /// Only those on this node.
        #[arg(long)]
        node: Option<String>,
    },
    /// Show one container and its newest values.
    Get {
        /// Its name, its id, the first characters of its id, or NODE/ID.
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// What to watch; several may be given.
    #[arg(value_enum, value_name = "TOPIC", default_values_t = [WatchTopic::All])]
    pub topics: Vec<WatchTopic>,
    /// Only this node and what runs on it. May be given several times.
    #[arg(long)]
    pub node: Vec<String>,
    /// Only this virtual machine, by name or uuid. May be given several times.
    #[arg(long)]
    pub vm: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchTopic {
    /// Values of nodes.
    Nodes,
    /// Values of virtual machines.
    Vms,
    /// Values of containers.
    Containers,
    /// What exists and how it is.
    Status,
    /// What happens.
    Events,
    /// All of these.
    All,
}

fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|e: horcrux_transport::client::ConnectError| e.to_string())
}

/// `90s`, `30m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is not a time: write for instance 90s, 30m or 2h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    // A year is more than anything here can mean.
    match number.checked_mul(seconds) {
        Some(0) => Err("must be more than nothing".to_owned()),
        Some(seconds) if seconds <= 366 * 86400 => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(wrong()),
    }
}

fn join_token_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    let allowed = Duration::from_secs(60)..=Duration::from_secs(86400);
    if allowed.contains(&ttl) { Ok(ttl) } else { Err("a join token works for 1m to 24h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "90", "s", "-1s", "1.5h", "0s", "99999999999999999999d", "999999d", "5ü"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(join_token_ttl("59s").is_err());
        assert!(join_token_ttl("25h").is_err());
    }

    #[test]
    fn global_options_may_come_last() {
        let cli = Cli::try_parse_from([
            "horcruxctl",
            "vm",
            "list",
            "--node",
            "web1",
            "-o",
            "json",
            "--context",
            "lab",
        ]);
        let cli = cli.unwrap();
        assert_eq!(cli.global.output, Output::Json);
        assert_eq!(cli.global.context.unwrap().as_str(), "lab");
    }

    #[test]
    fn a_password_has_no_place_on_the_command_line() {
        for wrong in [
            vec!["login", "https://web1", "--password", "x"],
            vec!["login", "http://web1"],
            vec!["login", "https://web1", "--fingerprint", "00"],
            vec!["login", "https://web1", "--ca-file", "a.pem", "--fingerprint", &"ab".repeat(32)],
            vec!["context", "use", "../x"],
        ] {
            let args = std::iter::once("horcruxctl").chain(wrong.iter().copied());
            assert!(Cli::try_parse_from(args).is_err(), "{wrong:?}");
        }
    }
}
