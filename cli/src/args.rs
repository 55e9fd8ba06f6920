//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use horcrux_transport::client::{Pin, Target};

/// See and run the VMs and containers of all your hosts
#[derive(Debug, Parser)]
#[command(version, after_help = crate::exit::HELP)]
pub(crate) struct Cli {
    /// Which controller, by the name of its context; the current one when left out
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the first administrator of a new controller, and sign in
    Setup(Setup),
    /// Sign in to a controller
    Login(Login),
    /// End the session
    Logout,
    /// Say who is signed in
    Whoami,
    /// Controllers that were signed in to
    #[command(subcommand)]
    Context(Context),
    /// Hypervisors and container hosts
    #[command(subcommand)]
    Node(Node),
    /// Virtual machines
    #[command(subcommand)]
    Vm(Guest),
    /// Containers
    #[command(subcommand)]
    Container(Guest),
    /// Follow what changes, one line each
    Watch(Watch),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub(crate) struct Setup {
    #[command(flatten)]
    pub(crate) login: Login,
    /// The file that holds the setup code; asked for when left out
    #[arg(long)]
    pub(crate) code_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The controller's address, for instance https://controller:8006
    pub(crate) url: Target,
    #[arg(long, default_value = "admin")]
    pub(crate) user: String,
    /// The fingerprint of the controller's authority, where nobody is there to compare it
    #[arg(long)]
    pub(crate) fingerprint: Option<Pin>,
    /// The file that holds the password; asked for when left out
    #[arg(long)]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    List,
    Use { name: String },
    Remove { name: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    List,
    Get {
        name: String,
    },
    /// Forget a node: its certificate stops working
    Delete {
        name: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Make a token with which one node may enroll
    JoinToken {
        /// The node's name; its host name when left out
        #[arg(long)]
        name: Option<String>,
        /// Seconds until it expires
        #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u32).range(60..=86400))]
        ttl: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Guest {
    List {
        /// Of one node only
        #[arg(long)]
        node: Option<String>,
    },
    Get {
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[arg(value_enum)]
    pub(crate) topics: Vec<Topic>,
    /// Of these nodes only
    #[arg(long)]
    pub(crate) node: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topic {
    Nodes,
    Vms,
    Containers,
    Status,
    Events,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_password_is_never_an_argument() {
        assert!(Cli::try_parse_from(["horcruxctl", "login", "https://x", "--password", "p"]).is_err());
    }
}
