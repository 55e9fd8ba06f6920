//! The program's command line. What it is for stands in the library; what it does, in [`server`].
//!
//! SIGTERM ends it as it ends any program: it keeps nothing, and whoever waits for an answer sees the connection end.
#![deny(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{CommandFactory as _, Parser};
use clap_mangen::Man;
use horcrux_local::listener::{self, Kind};
use horcrux_local::options::{Allowed, duration};
use horcrux_local::{clock, log};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::asking::Asking;
use crate::rates::{MAX_RATE, MIN_RATE, Rates};
use crate::server::Server;
use crate::sys::pam::Pam;

mod asking;
mod places;
mod rates;
mod said;
mod server;
mod sys;

/// Asks PAM about one user and one password, for a controller that may not.
///
/// Started by systemd's horcrux-pamd.socket, or with a socket of its own.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Listen at this path instead of the socket that systemd passes; its group is that of a directory with the setgid bit
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The PAM service, a file in /etc/pam.d
    #[arg(long, default_value = "horcrux", value_parser = service)]
    service: String,
    #[command(flatten)]
    allowed: Allowed,
    /// How many requests a minute there may be for one user name from one host, or from somebody known
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_RATE)))]
    user_rate: u16,
    /// How many requests a minute there may be in all; a quarter is kept for users who are known, and one host gets no more than a quarter of the rest
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u16).range(i64::from(MIN_RATE)..=i64::from(MAX_RATE)))]
    rate: u16,
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
    // A core file would hold passwords.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("rule out a core file")?;
    // First: the descriptor that systemd passes must be nobody else's yet.
    let listener = listener::given(cli.socket.as_deref(), Kind::Packets)?;
    let allowed = cli.allowed.uids()?;
    let pam = match Pam::load() {
        Ok(pam) => Some(pam),
        Err(error) => {
            tracing::error!(error = %format!("{:#}", anyhow::Error::new(error)), "every request will fail");
            None
        }
    };
    let rates = Rates::new(cli.user_rate, cli.rate, clock::now());
    let server = Server::new(listener, allowed, cli.idle, rates, Asking::new(pam, cli.service))?;
    tracing::info!("listening");
    server.run()?;
    tracing::info!("idle: ending");
    Ok(())
}

/// A file name, and nothing that leads to another directory.
fn service(text: &str) -> anyhow::Result<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    ensure!(!text.is_empty() && text.chars().all(plain), "a service has a-z, 0-9, - and _ in its name");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_file_name() {
        assert!(service("horcrux").is_ok() && service("hx-test_2").is_ok());
        for text in ["", "../login", "a/b", "Login", "a.b", "a\0"] {
            assert!(service(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn somebody_has_to_be_allowed() {
        assert!(Cli::try_parse_from(["horcrux-pamd"]).is_err());
        assert!(Cli::try_parse_from(["horcrux-pamd", "--allow-uid", "0", "--allow-user", "root"]).is_ok());
        assert!(Cli::try_parse_from(["horcrux-pamd", "--allow-uid", "4294967295"]).is_err());
    }
}
