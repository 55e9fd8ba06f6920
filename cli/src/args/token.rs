//! API tokens.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::{ChangeArgs, RemovalArgs};
use super::sign_in::{OwnerArgs, SecondFactorArgs};
use super::value::{RoleOnPath, api_token_ttl, role_on_path};

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List API tokens: your own when nothing else is said.
    List(OwnerArgs),
    /// Make an API token for yourself. Its secret is shown once.
    #[command(after_help = "\
A token may do what its own grants give and you may do at that moment.

Examples:
  horcruxctl token create --comment ci --expires 30d --grant VmUser@/pools/ci --token-file ci-token
  horcruxctl token create --comment backup --full --network 192.0.2.0/24")]
    Create(TokenCreateArgs),
    /// Make an API token useless at once.
    Revoke {
        /// Its id, from `token list`.
        id: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct TokenCreateArgs {
    /// What it is for; shown in lists.
    #[arg(long, value_name = "TEXT")]
    pub comment: String,
    /// How long it lives: 1h to 366d.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = api_token_ttl)]
    pub expires: Duration,
    #[command(flatten)]
    pub rights: TokenRights,
    /// The --grant ones hold on their paths only, not below.
    #[arg(long, conflicts_with = "full")]
    pub no_propagate: bool,
    /// It works from this network only. May be given several times.
    #[arg(long = "network", value_name = "CIDR")]
    pub networks: Vec<String>,
    /// Write the secret to a new file with mode 0600 instead of printing it.
    #[arg(long, value_name = "F")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub second_factor: SecondFactorArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TokenRights {
    /// A role that it has on a path. May be given several times.
    #[arg(long = "grant", value_name = "ROLE@PATH", value_parser = role_on_path)]
    pub grants: Vec<RoleOnPath>,
    /// It may do all that you may, at every moment.
    #[arg(long)]
    pub full: bool,
}
