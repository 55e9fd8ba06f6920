//! Resource pools and tags.

use clap::{Args, Subcommand};

use super::change::{ChangeArgs, RemovalArgs};

#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List resource pools and their members.
    List,
    /// Make a pool.
    Create {
        name: String,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Put nodes, VMs and containers into a pool.
    #[command(
        after_help = "Example:\n  horcruxctl pool add ci vms/build1 vms/build2 nodes/web1 containers/worker"
    )]
    Add(MembersArgs),
    /// Take members out of a pool.
    Remove(MembersArgs),
    /// Delete a pool and the grants on it. Its members stay.
    Delete {
        name: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct MembersArgs {
    /// The pool.
    pub name: String,
    /// nodes/NODE, vms/NAME, vms/UUID, or containers/ and what `container get` takes.
    #[arg(value_name = "RESOURCE", required = true)]
    pub members: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// List what has tags.
    List {
        /// Only what has this tag.
        #[arg(long, value_name = "T")]
        tag: Option<String>,
    },
    /// Give tags to a node, a VM or a container.
    #[command(after_help = "Example:\n  horcruxctl tag add vms/web1 qa nightly")]
    Add(TagsArgs),
    /// Take tags from it.
    Remove(TagsArgs),
}

#[derive(Debug, Args)]
pub struct TagsArgs {
    /// nodes/NODE, vms/NAME, vms/UUID, or containers/ and what `container get` takes.
    pub resource: String,
    /// 1 to 63 of a-z 0-9 -.
    #[arg(value_name = "TAG", required = true)]
    pub tags: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}
