//! The program's command line. What it is for stands in the library; what it does, in [`answering`] and [`runtimes`].
//!
//! SIGTERM ends it as it ends any program: it keeps nothing, and whoever waits for an answer sees the connection end.
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

use crate::answering::Answering;
use crate::runtimes::Host;

mod answering;
mod runtimes;

/// Connections at once: an agent has one. Others wait in the backlog.
const CONNECTIONS: usize = 8;

/// Asks container runtimes what they call their containers, for an agent that may not.
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
    /// Below which directory the runtimes' sockets and files are found
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
    let listener = listener::given(cli.socket.as_deref(), Kind::Stream)?;
    let server = Server::new(listener, cli.allowed.uids()?, cli.idle, CONNECTIONS);
    let answering = Answering::new(Host::new(&cli.root));
    tracing::info!("listening");
    server.run(None, move |connection| answering.serve(connection))?;
    tracing::info!("idle: ending");
    Ok(())
}
