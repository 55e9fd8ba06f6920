//! `horcruxctl`, the command line client. Data goes to stdout, talk to stderr.
#![forbid(unsafe_code)]

pub mod account;
pub mod agent;
pub mod api_tokens;
pub mod args;
pub mod audit;
pub mod change;
pub mod consequence;
pub mod console;
pub mod contexts;
pub mod door;
pub mod exit;
pub mod failure;
mod feed;
pub mod field;
pub mod fleet;
pub mod footnotes;
pub mod grants;
mod held;
mod hidden;
pub mod inventory;
pub mod known;
pub mod login;
pub mod nodes;
pub mod oidc;
mod pages;
pub mod people;
pub mod place;
pub mod pools;
pub mod private;
pub mod prompt;
pub mod recording;
pub mod session;
pub mod sign_in;
pub mod tokens;
pub mod top;
pub mod user;
pub mod view;
pub mod watch;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use horcrux_proto::authz::Privilege;
use horcrux_proto::v1::GetVersionRequest;
use horcrux_proto::v1::system_service_client::SystemServiceClient;
use horcrux_transport::clock;

use crate::args::guest::{ContainerCommand, VmCommand};
use crate::args::sign_in::ContextCommand;
use crate::args::{Cli, Command, Global};
use crate::contexts::{ContextName, Contexts};
use crate::failure::Failure;
use crate::footnotes::Listed;
use crate::private::Home;
use crate::session::{Session, channel, unsigned};
use crate::view::whoami::VersionView;
use crate::view::{Output, View};

/// What all commands share.
#[derive(Clone, Debug)]
pub struct App {
    pub home: Home,
    pub context: Option<ContextName>,
    /// The socket of the agent that is asked instead of a controller.
    pub agent: Option<PathBuf>,
    pub output: Output,
    pub deadline: Duration,
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let home = Home::from_environment().map_err(anyhow::Error::from)?;
    let Global { context, agent, output, timeout } = cli.global;
    if agent.is_some() {
        if context.is_some() {
            return Err(Failure::Usage("--agent asks no controller: leave --context out".to_owned()));
        }
        agent::check(&cli.command)?;
    }
    let app = App { home, context, agent, output, deadline: timeout };
    app.run(cli.command).await
}

impl App {
    pub async fn run(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Login(args) => login::login(self, &args).await,
            Command::Setup(args) => login::setup(self, &args).await,
            Command::Logout => login::logout(self).await,
            Command::Whoami => self.print(&login::whoami(self).await?),
            Command::Context(ContextCommand::List) => self.print(&known::list(self)?),
            Command::Context(ContextCommand::Use { name }) => known::choose(self, &name).await,
            Command::Context(ContextCommand::Remove { name }) => known::remove(self, &name).await,
            Command::Session(command) => self.sessions(command).await,
            Command::Password(args) => self.change_password(&args).await,
            Command::Totp(command) => self.totp(command).await,
            Command::Node(command) => self.nodes(command).await,
            Command::Vm(VmCommand::List { node }) => {
                let session = self.session().await?;
                self.print(&inventory::vms(&session, node.as_deref()).await?)?;
                self.footnotes(&session, Listed::Vms, node.as_deref(), Vec::new()).await;
                Ok(())
            }
            Command::Vm(VmCommand::Console(args)) => self.console(&args).await,
            Command::Vm(VmCommand::Get { name }) => {
                self.print(&inventory::vm(&self.session().await?, &name).await?)
            }
            Command::Console(command) => self.consoles(command).await,
            Command::Recording(command) => self.recordings(command).await,
            Command::Container(ContainerCommand::List { node }) => {
                let session = self.session().await?;
                let containers = inventory::containers(&session, node.as_deref()).await?;
                self.print(&containers)?;
                let unnamed = footnotes::unnamed(&containers);
                self.footnotes(&session, Listed::Containers, node.as_deref(), unnamed).await;
                Ok(())
            }
            Command::Container(ContainerCommand::Get { name }) => {
                self.print(&inventory::container(&self.session().await?, &name).await?)
            }
            Command::Pool(command) => self.pools(command).await,
            Command::Tag(command) => self.tags(command).await,
            Command::User(command) => self.users(command).await,
            Command::Group(command) => self.groups(command).await,
            Command::Role(command) => self.roles(command).await,
            Command::Grant(command) => self.grants(command).await,
            Command::Auth(command) => self.explain(command).await,
            Command::Token(command) => self.api_tokens(command).await,
            Command::Audit(command) => self.audit(command).await,
            Command::Watch(args) => watch::run(self, &args).await,
            Command::Top => top::run(self).await,
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "horcruxctl", &mut script);
                write_out(&script).map(drop)
            }
            Command::Man { directory } => Ok(clap_mangen::generate_to(Cli::command(), &directory)
                .with_context(|| format!("write the manual's pages into {}", directory.display()))?),
            Command::Version { controller } => self.version(controller).await,
        }
    }

    async fn version(&self, controller: bool) -> Result<(), Failure> {
        let mut view = VersionView {
            client: env!("CARGO_PKG_VERSION").to_owned(),
            controller: None,
            controller_api: None,
        };
        if controller {
            let contexts = Contexts::read(&self.home)?;
            let (_, context) = contexts.chosen(self.context.as_ref())?;
            let channel = channel(&context.target()?, &context.trust(&self.home)?, self.deadline).await?;
            let mut client = SystemServiceClient::new(channel);
            let answer =
                unsigned(&context.url, self.deadline, client.get_version(GetVersionRequest {})).await?;
            (view.controller, view.controller_api) = (Some(answer.version), Some(answer.api));
        }
        self.print(&view)
    }

    /// The chosen context's session, or the agent.
    pub async fn session(&self) -> Result<Session, Failure> {
        if let Some(path) = &self.agent {
            return Session::with_agent(path, self.deadline).await;
        }
        Session::open(&self.home, self.context.as_ref(), self.deadline).await
    }

    /// What a list can't show, for people.
    async fn footnotes(&self, session: &Session, listed: Listed, only: Option<&str>, notes: Vec<String>) {
        if self.output == Output::Table {
            for note in notes.into_iter().chain(inventory::missing(session, listed, only).await) {
                self.say(&format!("note: {note}"));
            }
        }
    }

    /// What to do next about a list that `is_empty`, to a person who may.
    pub(crate) async fn suggest(
        &self,
        session: &Session,
        is_empty: bool,
        (privilege, path): (Privilege, &str),
        hint: &str,
    ) -> Result<(), Failure> {
        if is_empty
            && self.agent.is_none()
            && self.output == Output::Table
            && held::holds(session, privilege, path).await?
        {
            self.say(&format!("next: {hint}"));
        }
        Ok(())
    }

    /// Data, on stdout.
    pub fn print(&self, view: &impl View) -> Result<(), Failure> {
        write_out(self.output.render(view, clock::unix_ms())?.as_bytes()).map(drop)
    }

    /// Talk, on stderr.
    pub fn say(&self, text: &str) {
        // Nobody is left to hear that nobody hears.
        drop(writeln!(io::stderr(), "{text}"));
    }
}

/// Whoever reads our output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Listens,
    Left,
}

/// A reader that has seen enough (`| head`) is not a failure.
pub(crate) fn write_out(bytes: &[u8]) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Left),
        Err(error) => Err(error).context("write to standard output").map_err(Failure::from),
    }
}
