//! Consoles.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::{ChangeArgs, RemovalArgs};
use super::value::guest_link_ttl;

#[derive(Debug, Subcommand)]
pub enum ConsoleCommand {
    /// List open consoles: your own, and those of VMs whose consoles you may open.
    List {
        /// Only those of this VM, by name or uuid.
        #[arg(long)]
        vm: Option<String>,
    },
    /// End an open console: your own, or with VmConfig on its VM anyone's.
    End {
        /// Its id, from `console list`.
        id: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
    /// Links with which somebody without an account opens one VM's console in a browser.
    #[command(subcommand)]
    Link(LinkCommand),
}

#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Make a link. It is shown once. You need VmConsole and PermissionsModify on the VM.
    #[command(after_help = "\
Whoever has the link may open this one console until it ends, and nothing else.
It ends earlier when you lose what you need to make it.
One console is open by it at a time: who opens it again elsewhere takes it over.

Examples:
  horcruxctl console link create web1 --serial --expires 2h --comment 'support of the vendor'
  horcruxctl console link create web1 --vnc --view")]
    Create(LinkCreateArgs),
    /// List links that have not ended: your own, and with PermissionsModify on its VM anyone's.
    List {
        /// Only those for this VM, by name or uuid.
        #[arg(long)]
        vm: Option<String>,
    },
    /// Make a link useless at once: the console that is open by it ends.
    Revoke {
        /// Its id, from `console link list`.
        id: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct LinkCreateArgs {
    /// The VM's name, its uuid, or NODE/NAME.
    pub vm: String,
    /// For its screen.
    #[arg(long, conflicts_with = "serial", required_unless_present = "serial")]
    pub vnc: bool,
    /// For its serial line.
    #[arg(long)]
    pub serial: bool,
    /// Only to look: nothing that the guest types reaches the VM.
    #[arg(long)]
    pub view: bool,
    /// How long it works: 1m to 7d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = guest_link_ttl)]
    pub expires: Duration,
    /// Whom it is for. Shown in lists, to those who look at the same console, and to the guest.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Its name, its uuid, or NODE/NAME.
    pub name: String,
    /// Only look: nothing that is typed reaches the VM.
    #[arg(long)]
    pub view: bool,
    /// Take over where somebody else's keys reach the VM; they go on looking.
    #[arg(long, conflicts_with = "view")]
    pub take: bool,
    /// Append what the VM says on its serial line to this file, which only you can read.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vnc", "spice", "screenshot"])]
    pub log: Option<PathBuf>,
    /// The screen: a port of this host that takes one VNC viewer. Ends when the viewer leaves.
    ///
    /// Starts a viewer where a usual one is installed and there is a display. The port asks for no password; connections
    /// of other users of this host are refused.
    #[arg(long, group = "port", conflicts_with = "screenshot")]
    pub vnc: bool,
    /// The screen, with sound and USB: a port of this host that takes one SPICE client. Ends when the client leaves.
    ///
    /// Starts remote-viewer where it is installed and there is a display. A VM serves one SPICE client at a time: --take
    /// ends the console of who is there. It can't be only looked at (--view), and is not recorded: where a policy demands
    /// that, it is refused.
    #[arg(long, group = "port", conflicts_with = "screenshot")]
    pub spice: bool,
    /// Where your own viewer connects; none is started then. Loopback only; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "port", value_parser = loopback)]
    pub listen: Option<SocketAddr>,
    /// Where the file is written that tells remote-viewer the port; it is not started then. The file is removed at the end.
    #[arg(long, value_name = "FILE", requires = "spice", conflicts_with = "vnc")]
    pub file: Option<PathBuf>,
    /// Take a picture of the screen, as PNG. Nothing is sent to the VM.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["view", "take"])]
    pub screenshot: Option<PathBuf>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    Serial { log: Option<&'a Path> },
    Vnc { listen: Option<SocketAddr> },
    Spice { listen: Option<SocketAddr>, file: Option<&'a Path> },
    Screenshot(&'a Path),
}

impl ConsoleArgs {
    #[must_use]
    pub fn wanted(&self) -> Wanted<'_> {
        match &self.screenshot {
            Some(path) => Wanted::Screenshot(path),
            None if self.vnc => Wanted::Vnc { listen: self.listen },
            None if self.spice => Wanted::Spice { listen: self.listen, file: self.file.as_deref() },
            None => Wanted::Serial { log: self.log.as_deref() },
        }
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write ADDRESS:PORT, for instance 127.0.0.1:5900".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("only this host may connect: use an address of 127.0.0.0/8, or [::1]".to_owned())
    }
}
