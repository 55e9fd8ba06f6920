//! Getting in and out, and one's own credentials.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use horcrux_transport::client::{Pin, Target};

use super::change::RemovalArgs;
use super::value::target;
use crate::contexts::ContextName;

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
#[command(after_help = "\
Examples:
  horcruxctl login https://web1.example --user alice@corp
  horcruxctl login https://web1.example --oidc
  horcruxctl login https://web1.example --context ci --api-token-file token")]
pub struct LoginArgs {
    /// For instance https://web1.example; the port is 8006 when none is given.
    #[arg(value_name = "URL", value_parser = target)]
    pub target: Target,
    /// The user's name, or NAME@REALM; asked for when not given.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Where the user is known: `local`, or a realm of the controller's settings. With --oidc it may be left out where
    /// there is one OpenID realm only.
    #[arg(long, value_name = "R")]
    pub realm: Option<String>,
    /// Sign in at an OpenID provider: prints an address and a code to enter there, and waits.
    #[arg(long, conflicts_with_all = ["user", "password_file"])]
    pub oidc: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Read the password from a file, or from standard input when F is `-`. Asked for when not given.
    #[arg(long, value_name = "F")]
    pub password_file: Option<PathBuf>,
    #[command(flatten)]
    pub second_factor: SecondFactorArgs,
    /// Use an API token (hxt_…) instead of a session: read it from a file, or from standard input when F is `-`. It is
    /// kept as a session's tokens are.
    #[arg(
        long,
        value_name = "F",
        conflicts_with_all = ["user", "realm", "oidc", "password_file", "second_factor_file"]
    )]
    pub api_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct SecondFactorArgs {
    /// Read the code of the second factor, or a recovery code, from a file, or from standard input when F is `-`. Asked
    /// for when it is needed and not given.
    #[arg(long, value_name = "F")]
    pub second_factor_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SetupArgs {
    /// For instance https://web1.example; the port is 8006 when none is given.
    #[arg(value_name = "URL", value_parser = target)]
    pub target: Target,
    /// The administrator's name; asked for when not given.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Read the password from a file, or from standard input when F is `-`. Asked for when not given.
    #[arg(long, value_name = "F")]
    pub password_file: Option<PathBuf>,
    #[command(flatten)]
    pub second_factor: SecondFactorArgs,
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
pub enum SessionCommand {
    /// List live sessions: your own when nothing else is said.
    List(OwnerArgs),
    /// End a session, and every stream that it opened.
    End {
        /// Its id, from `session list`.
        id: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

/// Whose.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct OwnerArgs {
    /// Those of this user.
    #[arg(long, value_name = "USER@REALM")]
    pub user: Option<String>,
    /// Those of all users.
    #[arg(long)]
    pub all: bool,
}

impl OwnerArgs {
    /// As the contract has it: empty is oneself, `*` is everyone.
    #[must_use]
    pub fn wire(&self) -> String {
        if self.all { "*".to_owned() } else { self.user.clone().unwrap_or_default() }
    }
}

#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// Read the old password from a file, or from standard input when F is `-`. Asked for when not given.
    #[arg(long, value_name = "F")]
    pub old_password_file: Option<PathBuf>,
    /// Read the new password from a file, or from standard input when F is `-`. Asked for when not given.
    #[arg(long, value_name = "F")]
    pub new_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum TotpCommand {
    /// Make a new second factor, show it, and confirm it with its first code. Prints the recovery codes, once.
    Setup {
        /// Read your password from a file, or from standard input when F is `-`. Asked for when it is needed and not
        /// given.
        #[arg(long, value_name = "F")]
        password_file: Option<PathBuf>,
        /// Read the first code from a file, or from standard input when F is `-`. Asked for when not given. It can only
        /// be known once the secret is shown.
        #[arg(long, value_name = "F")]
        second_factor_file: Option<PathBuf>,
    },
    /// Remove your second factor. Needs a code of it.
    Remove {
        #[command(flatten)]
        code: SecondFactorArgs,
    },
}
