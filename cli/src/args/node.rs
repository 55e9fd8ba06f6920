//! Nodes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::{ChangeArgs, RemovalArgs};
use super::value::join_token_ttl;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List all nodes.
    List,
    /// Show one node and its newest values.
    Get {
        /// Its name. With --agent it may be left out: there is one node.
        name: Option<String>,
    },
    /// Shut a node out within seconds, until it is enrolled again or unlocked. Its guests run on.
    Lock {
        /// Its name.
        name: String,
        /// For people; shown with the node.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        removal: RemovalArgs,
    },
    /// Let a locked node in again, after a lock that was a mistake.
    ///
    /// Whoever holds its old certificate gets in with it again. Where the node was stolen or copied, use `reenroll` instead:
    /// with a token that was made after the lock it comes back unlocked, and its old certificate is dead.
    Unlock {
        /// Its name.
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Forget a node: its certificate stops working, and grants on it go. Its guests run on.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
    /// Make a token with which one node may enroll, once.
    #[command(after_help = "Example:\n  horcruxctl node join-token web2 --token-file web2.token")]
    JoinToken(JoinTokenArgs),
    /// Make a token with which an enrolled node gets a new certificate, when it has lost its own or let it end.
    ///
    /// It keeps its name, its history and its grants; no guest is touched. Its old certificate dies when the token is
    /// used. A token that was made after a lock ends the lock too.
    #[command(
        override_usage = "horcruxctl node reenroll [OPTIONS] <NAME>\n       horcruxctl node reenroll [OPTIONS] --all --token-dir <DIR>",
        after_help = "\
Examples:
  horcruxctl node reenroll web1 --token-file web1.token
  horcruxctl node reenroll --all --token-dir tokens       # writes tokens/NODE.token for each node"
    )]
    Reenroll(ReenrollArgs),
}

#[derive(Debug, Args)]
pub struct JoinTokenArgs {
    /// The name that the node will have.
    pub name: String,
    #[command(flatten)]
    pub ttl: JoinTokenTtl,
    /// Write the token to a new file with mode 0600 instead of printing it.
    #[arg(long, value_name = "F")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct JoinTokenTtl {
    /// How long the token works: 1m to 24h.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = join_token_ttl)]
    pub ttl: Duration,
}

impl JoinTokenTtl {
    #[must_use]
    pub fn seconds(&self) -> u32 {
        // The parser lets a day through at most.
        u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Args)]
pub struct ReenrollArgs {
    /// Its name. Left out with --all.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<String>,
    /// All nodes that are enrolled.
    #[arg(long, requires = "token_dir")]
    pub all: bool,
    #[command(flatten)]
    pub ttl: JoinTokenTtl,
    /// Write the token to a new file with mode 0600 instead of printing it.
    #[arg(long, value_name = "F", conflicts_with = "all")]
    pub token_file: Option<PathBuf>,
    /// With --all: the directory for the tokens, one file NODE.token each. Made with mode 0700 when it is not there.
    #[arg(long, value_name = "DIR", requires = "all", conflicts_with = "name")]
    pub token_dir: Option<PathBuf>,
    #[command(flatten)]
    pub change: ChangeArgs,
}
