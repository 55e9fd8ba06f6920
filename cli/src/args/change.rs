//! What all commands have that change something.

use clap::Args;

#[derive(Clone, Copy, Debug, Args)]
pub struct ChangeArgs {
    /// Only ask the controller whether it would do this; nothing changes.
    #[arg(long)]
    pub dry_run: bool,
}

/// Of a change that deletes, ends or shuts out, and of a grant, which may take away: a person is asked first.
#[derive(Clone, Copy, Debug, Args)]
pub struct RemovalArgs {
    /// Don't ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub change: ChangeArgs,
}
