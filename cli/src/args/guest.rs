//! Virtual machines, containers, and watching them.

use clap::{Args, Subcommand, ValueEnum};

use super::console::ConsoleArgs;

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
    /// Be at its keyboard: the serial line in this terminal, or the screen in a viewer.
    ///
    /// The serial line takes this terminal over: every key goes to the VM, Ctrl-C too; Ctrl-] leaves. It works in a pipe as
    /// well: what comes in is typed, what the VM says goes out, until the console ends or a signal comes. A serial line
    /// doesn't know how large a window is: `resize` or `stty rows R cols C` in the VM sets it.
    Console(ConsoleArgs),
}

#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// List containers.
    ///
    /// NAME is `-` where the name is not known: values are read from cgroups, which carry Docker's, Podman's and
    /// Kubernetes' ids only. LXC and nspawn name theirs after the container.
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
