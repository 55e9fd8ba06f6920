//! The controller's command line.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use horcrux_controld::config::{Config, USUAL};
use horcrux_controld::daemon;
use horcrux_controld::fleet::ca::Authority;
use horcrux_controld::fleet::enrollment::{DEFAULT_TTL, Enrollment};
use horcrux_controld::store::Store;
use horcrux_proto::name::NodeName;
use horcrux_transport::{clock, files};

/// The Horcrux controller.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM
    Run {
        /// The settings; without it /etc/horcrux/controld.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Read the settings, tell all problems, change nothing
    CheckConfig {
        /// The settings; without it /etc/horcrux/controld.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Create a join token on the controller's own host, with which one node may enroll
    JoinToken {
        /// The settings; without it /etc/horcrux/controld.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
        /// The node's name; the host name of whoever redeems the token when left out
        #[arg(long)]
        name: Option<NodeName>,
        /// Minutes until it expires
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: Option<u64>,
        /// Where to write the token, mode 0600: it is a secret
        #[arg(long)]
        token_file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    horcrux_transport::log::init();
    // The databases hold hashes, names and numbers of others: nothing that is made here is for other users.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match start(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start")?;
    match command {
        Command::Run { config } => {
            let config = Config::load(config.as_deref())?;
            runtime.block_on(daemon::run(config))?;
        }
        Command::CheckConfig { config } => {
            daemon::check(&Config::load(config.as_deref())?)?;
            let file = config.as_deref().unwrap_or(Path::new(USUAL));
            tracing::info!(file = %file.display(), "the settings are good");
        }
        Command::JoinToken { config, name, minutes, token_file } => {
            let config = Config::load(config.as_deref())?;
            let ttl = minutes.map_or(DEFAULT_TTL, |m| Duration::from_secs(m * 60));
            let made = runtime.block_on(async {
                let store = Store::open(&config.state_dir).await?;
                let has_nodes = !store.nodes().await?.is_empty();
                let authority = Authority::open(&config.state_dir, has_nodes)?;
                let enrollment = Enrollment::new(store, authority.into());
                anyhow::Ok(enrollment.create_token(name.as_ref(), ttl, clock::unix_ms()).await?)
            });
            let (token, _) = made?;
            files::write_private(&token_file, format!("{}\n", token.expose()).as_bytes())
                .with_context(|| format!("write {}", token_file.display()))?;
            tracing::info!(file = %token_file.display(), "join token written");
        }
    }
    Ok(())
}
