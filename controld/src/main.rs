//! The controller's command line.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_mangen::Man;
use horcrux_controld::access::audit::{Audit, Entry};
use horcrux_controld::access::setup::SetupCode;
use horcrux_controld::config::{Config, USUAL};
use horcrux_controld::daemon;
use horcrux_controld::fleet::ca::Authority;
use horcrux_controld::fleet::enrollment::{DEFAULT_TTL, Enrollment, Purpose};
use horcrux_controld::store::Store;
use horcrux_proto::name::NodeName;
use horcrux_transport::{clock, files};

mod rotate_ca;

use rotate_ca::Step;

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
        /// The node's name
        #[arg(long)]
        name: NodeName,
        /// The node is enrolled already and has lost its certificate: it keeps its name and id
        #[arg(long)]
        reenroll: bool,
        /// Minutes until it expires
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: Option<u64>,
        /// Where to write the token, mode 0600: it is a secret
        #[arg(long)]
        token_file: PathBuf,
    },
    /// Make a code with which an administrator can be made, on the controller's own host, when nobody can get in
    ///
    /// The code works once and for an hour: `horcruxctl setup URL` asks for it. That it was made is on the audit log.
    RecoverAdmin {
        /// The settings; without it /etc/horcrux/controld.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
        /// Where to write the code, mode 0600: it is a secret
        #[arg(long)]
        code_file: PathBuf,
    },
    /// Replace the certificate authority, on the controller's own host, without a node being shut out
    RotateCa {
        /// The settings; without it /etc/horcrux/controld.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        step: Step,
    },
    /// Write the manual's pages, for packages
    #[command(hide = true)]
    Man { directory: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    horcrux_transport::log::init();
    // The databases hold hashes, names and numbers of others: nothing that is made here is for other users.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let is_service = matches!(cli.command, Command::Run { .. });
    match start(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if is_service {
                tracing::error!("{error:#}");
            } else {
                say(&format!("error: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// To whoever typed the command.
fn say(text: &str) {
    // Nobody is left to hear that nobody hears.
    drop(writeln!(io::stderr(), "{text}"));
}

fn start(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { config } => {
            let config = Config::load(config.as_deref())?;
            runtime()?.block_on(daemon::run(config))?;
        }
        Command::CheckConfig { config } => {
            let checked = Config::load(config.as_deref())?;
            daemon::check(&checked)?;
            let file = config.as_deref().unwrap_or(Path::new(USUAL));
            say(&format!("the settings in {} are good", file.display()));
            for role in checked.own_roles() {
                say(&format!(
                    "note: second_factor_roles: {role:?} is no built-in role: unless it was made with `horcruxctl role create`, \
                     nobody is held to it"
                ));
            }
        }
        Command::RecoverAdmin { config, code_file } => {
            let config = Config::load(config.as_deref())?;
            has_state(&config)?;
            let made = as_owner(&config, async {
                let store = Store::open(&config.state_dir).await?;
                let (audit, _scribe) = Audit::open(store.clone(), &config.state_dir, None).await?;
                anyhow::Ok(SetupCode::recover(&store, &audit, clock::unix_ms()).await?)
            });
            files::write_private(&code_file, format!("{}\n", made?.expose()).as_bytes())
                .with_context(|| format!("write {}", code_file.display()))?;
            say(&format!("setup code written to {}: it works once, for an hour", code_file.display()));
        }
        Command::Man { directory } => {
            let mut whole = Cli::command().disable_help_subcommand(true);
            whole.build();
            pages(whole, &directory).context("write the manual's pages")?;
        }
        Command::RotateCa { config, step } => {
            let config = Config::load(config.as_deref())?;
            as_owner(&config, rotate_ca::run(&config, step))?;
        }
        Command::JoinToken { config, name, reenroll, minutes, token_file } => {
            let config = Config::load(config.as_deref())?;
            let ttl = minutes.map_or(DEFAULT_TTL, |m| Duration::from_secs(m * 60));
            let made = as_owner(&config, async {
                let store = Store::open(&config.state_dir).await?;
                let has_nodes = !store.nodes().await?.is_empty();
                let authority = Authority::open(&config.state_dir, has_nodes)?;
                let enrollment = Enrollment::new(store, authority.into());
                let purpose = if reenroll { Purpose::Reenroll } else { Purpose::Enroll };
                let (audit, _scribe) =
                    Audit::open(enrollment.store().clone(), &config.state_dir, None).await?;
                let entry = Entry {
                    actor: "controller".to_owned(),
                    rpc: "join-token".to_owned(),
                    resource: format!("nodes/{name}"),
                    detail: format!("join token made on the controller's host, {} s", ttl.as_secs()),
                    ..Entry::default()
                };
                audit.event(&entry, "ok").await?;
                anyhow::Ok(enrollment.create_token(&name, purpose, ttl, clock::unix_ms()).await?)
            });
            let (token, _) = made?;
            files::write_private(&token_file, format!("{}\n", token.expose()).as_bytes())
                .with_context(|| format!("write {}", token_file.display()))?;
            say(&format!(
                "join token for {name} written to {}: it works once, for {} minutes",
                token_file.display(),
                ttl.as_secs() / 60
            ));
        }
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start")
}

/// Works with the controller's state as the user whose it is, so that what root makes there is that user's too. This thread
/// stays who it is: secrets that come of it are written where root may write.
fn as_owner<T: Send>(
    config: &Config,
    work: impl Future<Output = anyhow::Result<T>> + Send,
) -> anyhow::Result<T> {
    let dir = &config.state_dir;
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            files::act_as_owner(dir).with_context(|| format!("act as the owner of {}", dir.display()))?;
            runtime()?.block_on(work)
        });
        working.join().unwrap_or_else(|_| Err(anyhow!("the work with {} panicked", dir.display())))
    })
}

/// Of a command and of those in it.
fn pages(command: clap::Command, directory: &Path) -> std::io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner.clone(), directory)?;
    }
    Man::new(command).section("8").generate_to(directory).map(drop)
}

/// Refuses where no controller keeps its state: a code for a new, empty one would open nothing.
fn has_state(config: &Config) -> anyhow::Result<()> {
    let dir = config.state_dir.display();
    let exists = Store::exists(&config.state_dir)
        .with_context(|| format!("look into {dir}: run this as root or as the controller's user"))?;
    anyhow::ensure!(
        exists,
        "no controller keeps its state in {dir}: say with --config FILE which settings the controller runs with (without \
         it they are those in {USUAL})"
    );
    Ok(())
}
