//! The program's command line. What it is for stands in the library; what it does, in [`server`].
//!
//! SIGTERM ends it as it ends any program: it keeps nothing, and whoever waits for an answer sees the connection end.
#![deny(unsafe_code)]

use std::ffi::CString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser};
use rustix::process::{DumpableBehavior, Uid, set_dumpable_behavior};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::asking::Asking;
use crate::rates::{MAX_RATE, MIN_RATE, Rates};
use crate::server::Server;
use crate::sys::pam::Pam;

mod asking;
mod clock;
mod listener;
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
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Allowed {
    /// A user id that may ask; others are dropped unanswered. May be repeated
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..i64::from(u32::MAX)))]
    allow_uid: Vec<u32>,
    /// A user that may ask, by name. May be repeated
    #[arg(long, value_name = "NAME")]
    allow_user: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("HORCRUX_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    // A core file would hold passwords.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("rule out a core file")?;
    // First: the descriptor that systemd passes must be nobody else's yet.
    let listener = match &cli.socket {
        Some(path) => listener::bound(path)?,
        None => listener::passed()?,
    };
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

impl Allowed {
    fn uids(self) -> anyhow::Result<Vec<Uid>> {
        let mut uids: Vec<Uid> = self.allow_uid.into_iter().map(Uid::from_raw).collect();
        for name in self.allow_user {
            let known = CString::new(name.as_str())
                .map_err(anyhow::Error::new)
                .and_then(|name| Ok(sys::accounts::uid(&name)?));
            let uid = known.with_context(|| format!("look up user {name}"))?;
            uids.push(uid.with_context(|| format!("there is no user {name}"))?);
        }
        Ok(uids)
    }
}

/// A file name, and nothing that leads to another directory.
fn service(text: &str) -> anyhow::Result<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    ensure!(!text.is_empty() && text.chars().all(plain), "a service has a-z, 0-9, - and _ in its name");
    Ok(text.to_owned())
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    for (unit, seconds) in units {
        if let Some(count) = text.strip_suffix(unit) {
            let count: u32 = count.parse().context("a number and s, m or h")?;
            ensure!(count > 0, "must be more than 0");
            return Ok(Duration::from_secs(u64::from(count) * seconds));
        }
    }
    bail!("a number and s, m or h")
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
    fn times_have_units() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("5m").unwrap(), Duration::from_secs(300));
        for text in ["5", "0s", "-1m", "m", "", "5d"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn somebody_has_to_be_allowed() {
        assert!(Cli::try_parse_from(["horcrux-pamd"]).is_err());
        assert!(Cli::try_parse_from(["horcrux-pamd", "--allow-uid", "0", "--allow-user", "root"]).is_ok());
        assert!(Cli::try_parse_from(["horcrux-pamd", "--allow-uid", "4294967295"]).is_err());
    }
}
