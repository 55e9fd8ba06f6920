//! The program's command line. What it is for stands in the library; what it does, in [`answering`], [`runtimes`] and
//! [`orders`].
//!
//! SIGTERM ends it as it ends any program: what it has to remember is on the disk, whoever waits for an answer sees the
//! connection end, and open consoles are closed by the processes that guard them.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser};
use clap_mangen::Man;
use horcrux_local::listener::{self, Kind};
use horcrux_local::log;
use horcrux_local::options::{Allowed, duration};
use horcrux_local::server::Server;

use rustix::process::Uid;

use crate::answering::Answering;
use crate::orders::Orders;
use crate::runtimes::Host;

mod answering;
mod hand;
mod orders;
mod runtimes;

/// Connections at once: one for each console that can be open, and a few for questions. Others wait in the backlog.
const CONNECTIONS: usize = 80;

/// Does for the agent what the agent has no privilege for: asks container runtimes what they call their containers, and
/// carries out what a controller has signed and this host's policy allows.
///
/// Started by systemd's horcrux-privd.socket, or with a socket of its own.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Listen at this path instead of the socket that systemd passes; its group is that of a directory with the setgid bit
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    allowed: Allowed,
    /// Below which directory the runtimes' sockets, and all other files, are found
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// End after so long without a connection, for instance 5m; systemd starts it again
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "socket")]
    idle: Option<Duration>,
    /// Write the manual's page, for packages
    #[arg(long, hide = true, value_name = "DIR")]
    man: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == orders::hand::ARGUMENT) {
        log::init();
        // The first that is left takes the place of the program's name.
        return log::ended(hand::run(std::iter::once("hand".into()).chain(arguments)));
    }
    let cli = Cli::parse();
    log::init();
    log::ended(start(cli))
}

fn start(cli: Cli) -> anyhow::Result<()> {
    if let Some(directory) = &cli.man {
        let page = Man::new(Cli::command()).section("8").generate_to(directory);
        return page.map(drop).context("write the manual's page");
    }
    // First: the descriptor that systemd passes must be nobody else's yet.
    let listener = listener::given(cli.socket.as_deref(), Kind::Packets)?;
    let server = Server::new(listener, cli.allowed.uids()?, cli.idle, CONNECTIONS);
    let orders = Orders::new(&cli.root, Uid::ROOT).context("keep a record of orders")?;
    let answering = Answering::new(Host::new(&cli.root), orders);
    tracing::info!("listening");
    server.run(None, move |connection| answering.serve(connection))?;
    tracing::info!("idle: ending");
    Ok(())
}
