//! The audit log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::value::{Since, since};

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show what was done and refused, the newest first.
    #[command(after_help = "\
Examples:
  horcruxctl audit list --user alice@corp --since 24h
  horcruxctl audit list --resource vms --since 2026-08-04T12:00:00Z -o json
  horcruxctl audit list --follow -o json")]
    List(AuditListArgs),
    /// Have the controller read the whole log and check that no row was edited, removed, moved or cut off. Ends with 1
    /// where one was.
    ///
    /// A checkpoint is a SEQUENCE:HASH that was noted down elsewhere: the controller writes one to its journal every
    /// minute. Without one, a log that was cut off at its end and went on from there looks whole. A large log takes a
    /// while: give it more --timeout.
    #[command(after_help = "Example:\n  horcruxctl audit verify --checkpoint-file noted --timeout 10m")]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub struct AuditListArgs {
    /// Only what this user did: NAME@REALM; without a realm, local. nodes/NODE and `controller` act too.
    #[arg(long, value_name = "USER@REALM")]
    pub user: Option<String>,
    /// Only what was done to this resource, or to those below it. VMs and containers may be given by name, containers by
    /// the start of their id.
    #[arg(long, value_name = "R")]
    pub resource: Option<String>,
    /// Only what is newer: an age (24h) or a moment (2026-08-04T12:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// At most so many rows, the newest.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u32,
    /// Go on with rows as they are written, until Ctrl-C. The oldest comes first then, each on a line of its own; -o json
    /// prints one object per line.
    #[arg(long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The log must contain this row. May be given several times.
    #[arg(long = "checkpoint", value_name = "SEQ:HASH")]
    pub checkpoints: Vec<String>,
    /// A file of such rows, one on each line, or standard input when F is `-`. The file that the controller
    /// writes, `audit_checkpoint_file`, does as it is.
    #[arg(long, value_name = "F")]
    pub checkpoint_file: Option<PathBuf>,
}
