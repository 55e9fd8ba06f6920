//! The agent's command line.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_mangen::Man;
use horcrux_agentd::collect::Running;
use horcrux_agentd::config::Config;
use horcrux_agentd::enroll::orders::{Left, leave};
use horcrux_agentd::enroll::{self, Existing, JoinToken, Outcome};
use horcrux_agentd::link::Link;
use horcrux_agentd::local::exporter::Exporter;
use horcrux_agentd::local::served::AgentSocket;
use horcrux_agentd::local::{Forward, Local, Shown, this_node};
use horcrux_agentd::sample::Lane;
use horcrux_agentd::{collect, config, host, identity, print};
use horcrux_privd::settings::{Controller, Mode, POLICY};
use horcrux_privd::v1::{Mode as PrivdMode, PolicyAnswer};
use horcrux_transport::client::Target;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Tasks;
use horcrux_transport::{files, signal};
use tokio::sync::mpsc;

/// The Horcrux node agent.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get this node's certificate from a controller, with a join token
    Enroll {
        /// The controller's address for people, for instance https://controller:8006; with --again, the one that it has
        #[arg(long, required_unless_present = "again")]
        controller: Option<Target>,
        /// The file that holds the join token; `-` for standard input
        #[arg(long)]
        token_file: PathBuf,
        /// Replace the identity that this node has; a running agent takes the new one within seconds
        #[arg(long)]
        again: bool,
        /// What the controller may do on this host, where no policy says so yet: /etc/horcrux/privd/policy.toml
        #[arg(long, value_enum, default_value_t = Mode::Observe)]
        mode: Mode,
        /// Where horcrux-privd finds its policy and whose orders count: etc/horcrux/privd below what is its --root
        #[arg(long, value_name = "DIR", default_value = "/etc/horcrux/privd")]
        privd_dir: PathBuf,
        /// The settings; without it /etc/horcrux/agentd.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Run until SIGTERM
    Run {
        /// Serve what is seen on this host alone: no controller is dialled
        #[arg(long)]
        no_controller: bool,
        /// The settings; without it /etc/horcrux/agentd.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Read the settings, tell all problems and what a controller may do here, change nothing
    CheckConfig {
        /// The settings; without it /etc/horcrux/agentd.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print what the agent sees
    Sample {
        /// Read each lane once, and end
        #[arg(long, required = true)]
        once: bool,
        #[arg(short, long, value_enum, default_value = "json")]
        output: Output,
        /// The settings; without it /etc/horcrux/agentd.toml where that exists
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Write the manual's pages, for packages
    #[command(hide = true)]
    Man { directory: PathBuf },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Json,
}

/// How long the stream has to say goodbye.
const GRACE: Duration = Duration::from_secs(3);
/// For what privd is asked.
const PRIVD_ANSWERS: Duration = Duration::from_secs(5);
/// How often a node without a controller looks whether it was enrolled.
const LOOK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    horcrux_transport::log::init();
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
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn start(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enroll { controller, token_file, again, mode, privd_dir, config } => {
            let config = Config::load(config.as_deref())?;
            let token = if token_file.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().take(4096).read_to_string(&mut text).context("read the token")?;
                text
            } else {
                std::fs::read_to_string(&token_file)
                    .with_context(|| format!("read {}", token_file.display()))?
            };
            let token = JoinToken::parse(&token)?;
            let file = config.root.join("proc/sys/kernel/hostname");
            let hostname =
                std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let existing = if again { Existing::Replace } else { Existing::Keep };
            let state_dir = config.state_dir;
            // Root hands the node's key to the agent's own user, where it has one. On a thread, since that is whom the
            // change of user is for: what privd goes by stays root's to write.
            let enrolling = std::thread::spawn(move || -> anyhow::Result<Outcome> {
                files::act_as_owner(&state_dir)
                    .with_context(|| format!("act as the owner of {}", state_dir.display()))?;
                let enrolling = enroll::enroll(controller, &token, hostname.trim(), &state_dir, existing);
                Ok(runtime()?.block_on(enrolling)?)
            });
            let outcome = enrolling.join().map_err(|_| anyhow!("the thread that enrolls ended"))??;
            tell_enrolled(&outcome);
            leave_orders(&privd_dir, outcome.orders.as_ref(), mode)
        }
        Command::Run { no_controller, config } => {
            let mut config = Config::load(config.as_deref())?;
            config.check()?;
            config.no_controller |= no_controller;
            run(&config)
        }
        Command::CheckConfig { config: file } => {
            let config = Config::load(file.as_deref())?;
            config.check()?;
            config.exporter.as_ref().map_or(Ok(()), Exporter::check)?;
            let file = file.as_deref().unwrap_or(Path::new(config::USUAL));
            say(&format!("the settings in {} are good", file.display()));
            tell_policy(&config.privd_socket);
            Ok(())
        }
        Command::Sample { once: _, output: Output::Json, config } => {
            let config = Config::load(config.as_deref())?;
            config.check()?;
            let cycles: Vec<_> = lanes(&config)
                .into_iter()
                .map(|(mut lane, _)| {
                    let cycle = lane.read(collect::now());
                    print::cycle(lane.name(), &cycle)
                })
                .collect();
            let mut text = serde_json::to_string_pretty(&cycles).context("print")?;
            text.push('\n');
            std::io::stdout().write_all(text.as_bytes()).context("print")
        }
        Command::Man { directory } => {
            let mut whole = Cli::command().disable_help_subcommand(true);
            whole.build();
            pages(whole, &directory).context("write the manual's pages")
        }
    }
}

/// Of a command and of those in it.
fn pages(command: clap::Command, directory: &Path) -> std::io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner.clone(), directory)?;
    }
    Man::new(command).section("8").generate_to(directory).map(drop)
}

fn tell_enrolled(outcome: &Outcome) {
    let Outcome { node, id, before, orders: _ } = outcome;
    match before {
        None => say(&format!("enrolled as {node} ({id})")),
        Some((_, was)) if was == id => say(&format!("enrolled again as {node} ({id})")),
        Some((was, was_id)) => {
            say(&format!("enrolled as {node} ({id}): another node than this was, {was} ({was_id})"));
        }
    }
}

/// Says what a controller may do here, as far as it is told: what says so is root's, and is no setting of the agent.
fn tell_policy(socket: &Path) {
    let told = match horcrux_privd::policy(socket, PRIVD_ANSWERS) {
        Ok(PolicyAnswer { mode, reason, held: _ }) => {
            let mode = PrivdMode::try_from(mode).unwrap_or_default().as_str_name();
            let mode = mode.trim_start_matches("MODE_").to_lowercase();
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            format!("orders of the controller are taken in mode {mode}{reason}")
        }
        Err(error) => {
            let socket = socket.display();
            format!("horcrux-privd, which would take orders, is not reached at {socket}: {}", Chain(&error))
        }
    };
    say(&told);
}

/// Says whose orders this host takes from now on.
fn leave_orders(directory: &Path, orders: Option<&Controller>, mode: Mode) -> anyhow::Result<()> {
    const NOT: &str = "orders of the controller, such as to open a console, will not be taken";
    let policy = directory.join(POLICY);
    let policy = policy.display();
    let Some(orders) = orders.filter(|orders| !orders.keys.is_empty()) else {
        say(&format!("{NOT}: it gave no key to know them by"));
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        say(&format!("{NOT}: only root can say here that they count; run this as root, with --again"));
        return Ok(());
    }
    let taken = match leave(directory, orders, mode).context(NOT)? {
        Left::Starting(Mode::Observe) => format!("{NOT} until {policy} allows them"),
        Left::Starting(mode) => format!("orders of the controller are taken as {policy} allows: {mode}"),
        Left::Kept => format!("orders of the controller are taken as {policy} allows: it is as it was"),
    };
    say(&taken);
    Ok(())
}

fn run(config: &Config) -> anyhow::Result<()> {
    // Held until the end: a second agent with the same certificate would end this one's stream, and this one the other's.
    let _owned = files::own_dir(&config.state_dir)
        .with_context(|| format!("take the state directory {}", config.state_dir.display()))?;
    raise_descriptor_limit();
    if !config.no_controller && identity::stamp(&config.state_dir).is_none() {
        tracing::warn!(
            "this node has no controller: it is seen on this host alone until `horcrux-agentd enroll` is run"
        );
        let alone = Config { no_controller: true, ..config.clone() };
        if serve(&alone, Until::Enrolled)? == Ended::Told {
            return Ok(());
        }
        tracing::info!("enrolled: going on with a controller");
        if config.exporter.is_none() || config.agent_socket.is_none() {
            tracing::warn!(
                "an agent with a controller serves this host itself only where its settings say so: `[exporter]` and `agent_socket`"
            );
        }
    }
    serve(config, Until::Told).map(drop)
}

/// Until when an agent runs as it was started. It ends when it is told to in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Told,
    Enrolled,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Told,
    Enrolled,
}

fn serve(config: &Config, until: Until) -> anyhow::Result<Ended> {
    let (cycles, collected) = mpsc::channel(collect::QUEUE);
    let running = lanes(config)
        .into_iter()
        .map(|(lane, interval)| collect::start(lane, interval, cycles.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    drop(cycles);
    let exporter = config.exporter.clone().or_else(|| config.no_controller.then(config::Exporter::default));
    let usual = || config.no_controller.then(|| config::AGENT_SOCKET.into());
    let agent_socket: Option<PathBuf> = config.agent_socket.clone().or_else(usual);
    let watched = running.iter().map(Running::watched).collect();
    runtime()?.block_on(async {
        let terminate = signal::terminate().context("take signals")?;
        let mut tasks = Tasks::default();
        let mut seen = None;
        let (to_link, from_lanes) = mpsc::channel(collect::QUEUE);
        let forward = if config.no_controller { Forward::Nowhere } else { Forward::Link(to_link) };
        let cycles = if exporter.is_none() && agent_socket.is_none() {
            collected
        } else {
            let (mut tap, local) = Local::tapped(watched, forward);
            seen = Some(Arc::clone(&local));
            if let Some(exporter) = &exporter {
                let exporter = Exporter::bind(exporter, local, &config.root).context("start the exporter")?;
                tasks.spawn("exporter", |stop| exporter.run(stop));
            }
            if let Some(path) = &agent_socket {
                let (known, node) = this_node(&config.state_dir, &config.root);
                let (shown, live, writer) = Shown::new(&known, node.clone());
                let socket = AgentSocket::bind(path, node, live).context("serve this host")?;
                tap = tap.showing(shown);
                tasks.spawn("live", |stop| writer.run(stop));
                tasks.spawn("agent-socket", |stop| socket.run(stop));
            }
            tasks.spawn("tap", |stop| tap.run(collected, stop));
            from_lanes
        };
        // Lanes end with what runs them.
        let _lanes = if config.no_controller {
            if identity::stamp(&config.state_dir).is_some() {
                tracing::warn!("this node is enrolled, and runs without its controller");
            }
            running
        } else {
            let link =
                Link::new(config.state_dir.clone(), config.spool, running, cycles, &config.privd_socket);
            let link = link.context("open the spool")?;
            if let Some(local) = seen {
                local.linked(link.standing());
            }
            tasks.spawn("link", |stop| link.run(stop));
            Vec::new()
        };
        let mut ended = Ended::Told;
        let shutdown = async {
            tokio::select! {
                () = terminate => {}
                () = enrolled(&config.state_dir), if until == Until::Enrolled => ended = Ended::Enrolled,
            }
        };
        tasks.run(shutdown, GRACE).await?;
        Ok(ended)
    })
}

/// Returns when this node has an identity.
async fn enrolled(state_dir: &Path) {
    let mut look = tokio::time::interval(LOOK);
    while identity::stamp(state_dir).is_none() {
        look.tick().await;
    }
}

/// The lanes keep files open, a dozen for each container; a service usually starts with 1024 descriptors.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "descriptor limit not raised: more files are opened anew for each reading");
    }
}

/// What this host has to read, and how often.
fn lanes(config: &Config) -> Vec<(Box<dyn Lane>, Duration)> {
    let (node, filesystems, sensors) = host::node_lanes(&config.root);
    let runtimes = host::runtimes::Runtimes::new(&config.privd_socket);
    let mut containers = host::cgroup::ContainerLane::new(&config.root, runtimes);
    let changes = containers.changes();
    let mut lanes: Vec<(Box<dyn Lane>, Duration)> = vec![
        // First, so that a single reading tells what they lack.
        (Box::new(filesystems), config.cadence.node_slow),
        (Box::new(sensors), config.cadence.node_slow),
        (Box::new(node.with_policy(host::policy::Policy::new(&config.privd_socket))), config.cadence.node),
        (Box::new(containers), config.cadence.container),
        (Box::new(changes), host::cgroup::CHANGES_EVERY),
    ];
    let known = host::qemu::Known::default();
    let is_system_s = |uri: &String| cfg!(feature = "libvirt") && uri == config::LOCAL_LIBVIRT;
    let has_system_libvirt = config.libvirt_uris.iter().any(is_system_s);
    #[cfg(feature = "libvirt")]
    {
        use host::libvirt::GuestAgents;
        let uris = config.libvirt_uris.iter();
        let places: Vec<_> = uris.map(|uri| host::libvirt::Place::new(uri, &config.root)).collect();
        let agents = if config.ask_guest_agents { GuestAgents::Ask } else { GuestAgents::Leave };
        for of_one in host::libvirt::lanes(&config.root, &places, &known, agents) {
            lanes.push((Box::new(of_one.vms), config.cadence.vm));
            if let Some(monitors) = of_one.monitors {
                lanes.push((Box::new(monitors), config.cadence.vm_slow));
            }
            if let Some(jobs) = of_one.jobs {
                lanes.push((Box::new(jobs), host::libvirt::JOBS_EVERY));
            }
            lanes.push((Box::new(of_one.events), host::libvirt::EVENTS_EVERY));
            if let Some(guests) = of_one.guests {
                lanes.push((Box::new(guests), host::libvirt::GUESTS_EVERY));
            }
        }
    }
    #[cfg(not(feature = "libvirt"))]
    lanes.push((Box::new(host::without_libvirt::NoVms), config.cadence.vm));
    // Last, so that a single reading leaves to libvirt what is libvirt's.
    let qemus = host::qemu::QemuLane::new(&config.root, known, has_system_libvirt);
    lanes.push((Box::new(qemus), config.cadence.vm));
    lanes
}

/// One thread: the agent has one stream, and its readings have threads of their own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")
}
