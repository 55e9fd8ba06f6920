//! What all commands have that change something.

use clap::Args;

#[derive(Clone, Copy, Debug, Args)]
pub struct ChangeArgs {
    /// Only ask the controller whether it would do this; nothing changes.
    #[arg(long)]
    pub dry_run: bool,
}

/// Of a change that can't be taken back.
#[derive(Clone, Copy, Debug, Args)]
pub struct RemovalArgs {
    /// Don't ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub change: ChangeArgs,
}
