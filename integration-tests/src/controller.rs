//! A controller that runs for a test, and what its people do with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, bail};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use crate::lab::Network;
use crate::{Client, Daemon, PATIENCE, Person, program, succeeded, wait_until};

/// A controller with an administrator, and the command line client signed in to it.
#[derive(Debug)]
pub struct Controller {
    pub daemon: Daemon,
    pub public_port: u16,
    /// What people reach it by.
    host: &'static str,
    place: Place,
    /// What all programs log.
    log: Option<&'static str>,
    /// Dropped last: the daemon's log is in it.
    dir: TempDir,
}

/// Where a controller and its clients run.
#[derive(Clone, Debug)]
pub enum Place {
    /// On this machine's loopback.
    Here,
    /// On a lab's network.
    Lab(Network),
}

impl Place {
    /// A command that runs `program` there.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::Lab(network) => network.command(program),
        }
    }
}

impl Controller {
    pub fn start() -> anyhow::Result<Self> {
        Self::begin(Place::Here, 0, "", None)
    }

    pub fn start_at(place: Place) -> anyhow::Result<Self> {
        Self::begin(place, 0, "", None)
    }

    /// With more settings: keys of its file first, tables after.
    pub fn start_with(settings: &str) -> anyhow::Result<Self> {
        Self::begin(Place::Here, 0, settings, None)
    }

    /// On a port that others know before it runs.
    pub fn start_on(public_port: u16, settings: &str) -> anyhow::Result<Self> {
        Self::begin(Place::Here, public_port, settings, None)
    }

    /// With all that the programs would tell somebody who looks for a fault.
    pub fn start_talkative() -> anyhow::Result<Self> {
        let everything = "debug,horcrux_agentd=trace,horcrux_controld=trace,horcrux_proto=trace,horcrux_realms=trace,\
                          horcrux_transport=trace,horcruxctl=trace,axum=trace,tungstenite=trace,tokio_tungstenite=trace";
        Self::begin(Place::Here, 0, "", Some(everything))
    }

    fn begin(
        place: Place,
        public_port: u16,
        settings: &str,
        log: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let host = match &place {
            Place::Here => "127.0.0.1",
            Place::Lab(_) => Network::CONTROLLER,
        };
        let state = dir.path().join("controller");
        let put_settings = |public_port: u16, agents_port: u16| {
            let text = format!(
                "late_after = \"2s\"\ndown_after = \"6s\"\nnames = [{host:?}, \"localhost\"]\n\
                 public_listen = \"{host}:{public_port}\"\nagents_listen = \"{host}:{agents_port}\"\n\
                 state_dir = {:?}\n{settings}",
                state.display().to_string()
            );
            fs::write(dir.path().join("controld.toml"), text)
        };
        put_settings(public_port, 0)?;
        fs::write(dir.path().join("password"), "correct horse battery\n")?;
        let daemon = Self::run(&place, log, dir.path())?;
        let (public_port, agents_port) = Self::ports(&state)?;
        // A restart must come back where agents know it.
        put_settings(public_port, agents_port)?;
        let controller = Self { daemon, public_port, host, place, log, dir };
        let setup = controller.ctl(&[
            "setup",
            &controller.url(),
            "--code-file",
            &controller.state("setup-code"),
            "--password-file",
            &controller.path("password"),
            "--fingerprint",
            controller.fingerprint()?.trim(),
        ])?;
        succeeded(&setup)?;
        Ok(controller)
    }

    fn run(place: &Place, log: Option<&'static str>, dir: &Path) -> anyhow::Result<Daemon> {
        let mut command = place.command(&program("horcrux-controld")?);
        command.envs(log.map(|level| ("HORCRUX_LOG", level)));
        command.args(["run", "--config"]).arg(dir.join("controld.toml"));
        Daemon::start(command, &dir.join("controld.log"))
    }

    fn ports(state: &Path) -> anyhow::Result<(u16, u16)> {
        let text = wait_until("the controller's ports", || Ok(fs::read_to_string(state.join("ports"))?))?;
        let port = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.parse().ok());
        port("public=").zip(port("agents=")).context("a ports file names both ports")
    }

    /// Starts the controller again after its end.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        fs::remove_file(self.state("ports"))?;
        self.daemon = Self::run(&self.place, self.log, self.dir.path())?;
        Self::ports(&self.dir.path().join("controller")).map(|_| ())
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.host, self.public_port)
    }

    /// A file beside the controller's state.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    #[must_use]
    pub fn state(&self, name: &str) -> String {
        self.path(&format!("controller/{name}"))
    }

    pub fn fingerprint(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.state("ca-fingerprint"))?)
    }

    /// A command that runs where this controller is reached.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        self.place.command(program)
    }

    /// A command line client that keeps what it knows under `name`; `admin` is who was made at the start, signed in.
    pub fn client(&self, name: &str) -> anyhow::Result<Client> {
        let home = if name == "admin" { "config".to_owned() } else { format!("client-{name}") };
        Ok(Client {
            place: self.place.clone(),
            url: self.url(),
            fingerprint: self.fingerprint()?.trim().to_owned(),
            authority: self.state("ca.pem"),
            home: self.dir.path().join(home),
            log: self.log,
        })
    }

    /// The command line client, as this controller's administrator.
    pub fn ctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.administrator()?.ctl(args)
    }

    /// What the client prints as JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.administrator()?.json(args)
    }

    /// Who was made at the start.
    pub fn administrator(&self) -> anyhow::Result<Person> {
        self.somebody("admin", "password")
    }

    /// Makes a local user with no rights, and signs them in.
    pub fn person(&self, name: &str) -> anyhow::Result<Person> {
        let password_file = format!("{name}.password");
        fs::write(self.path(&password_file), format!("{name} opens forty-seven wooden doors\n"))?;
        let person = self.somebody(name, &password_file)?;
        let admin = self.administrator()?;
        admin.done(&["user", "create", name, "--password-file", &person.password_file()])?;
        person.sign_in()?;
        Ok(person)
    }

    fn somebody(&self, name: &str, password_file: &str) -> anyhow::Result<Person> {
        let (name, client) = (name.to_owned(), self.client(name)?);
        Ok(Person { name, client, password_file: self.dir.path().join(password_file) })
    }

    /// Changes the controller's records behind its back, as somebody who has got at its files would.
    pub async fn alter_records(&self, sql: &str) -> anyhow::Result<()> {
        let options = SqliteConnectOptions::new().filename(self.state("control.db"));
        let mut records = options.busy_timeout(PATIENCE).connect().await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut records).await?;
        Ok(records.close().await?)
    }

    /// One number about the samples that are kept.
    pub fn recent(&self, query: &str) -> anyhow::Result<i64> {
        let options = SqliteConnectOptions::new().filename(self.state("recent.db")).read_only(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut records = options.busy_timeout(PATIENCE).connect().await?;
            let number = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut records).await?;
            records.close().await?;
            Ok(number)
        })
    }

    /// A join token in a file.
    pub fn join_token(&self, node: &str) -> anyhow::Result<String> {
        let file = self.path(&format!("{node}.token"));
        let made = Command::new(program("horcrux-controld")?)
            .args(["join-token", "--name", node, "--token-file", &file, "--config"])
            .arg(self.path("controld.toml"))
            .output()?;
        succeeded(&made)?;
        Ok(file)
    }

    /// Enrolls an agent of this machine as `node`; says how that went.
    pub fn enroll(&self, node: &str, token_file: &str) -> anyhow::Result<Output> {
        let config = self.path(&format!("{node}.toml"));
        // Filesystems and VMs' monitors are asked more often than a host would like, so that tests needn't wait.
        let state = self.path(&format!("agent-{node}"));
        fs::write(
            &config,
            format!(
                "state_dir = {state:?}\nnode_slow_interval = \"1s\"\nvm_interval = \"1s\"\nvm_slow_interval = \"2s\"\n"
            ),
        )?;
        let mut command = self.place.command(&program("horcrux-agentd")?);
        command.envs(self.log.map(|level| ("HORCRUX_LOG", level)));
        command.args([
            "enroll",
            "--controller",
            &self.url(),
            "--token-file",
            token_file,
            "--config",
            &config,
            "--privd-dir",
            &self.privd_dir(node),
        ]);
        command.output().context("run horcrux-agentd enroll")
    }

    /// Where enrolling `node` leaves what its horcrux-privd goes by.
    #[must_use]
    pub fn privd_dir(&self, node: &str) -> String {
        self.path(&format!("host-{node}/etc/horcrux/privd"))
    }

    /// Starts the enrolled agent `node`.
    pub fn agent(&self, node: &str) -> anyhow::Result<Daemon> {
        self.run_agent(node, Command::new(program("horcrux-agentd")?))
    }

    /// Starts the enrolled agent `node` by a command that runs the agent where it belongs.
    pub fn run_agent(&self, node: &str, mut command: Command) -> anyhow::Result<Daemon> {
        command.args(["run", "--config", &self.path(&format!("{node}.toml"))]);
        command.envs(self.log.map(|level| ("HORCRUX_LOG", level)));
        Daemon::start(command, Path::new(&self.path(&format!("{node}.log"))))
    }

    /// Enrolls and starts an agent, and waits until it is seen.
    pub fn joined(&self, node: &str) -> anyhow::Result<Daemon> {
        succeeded(&self.enroll(node, &self.join_token(node)?)?)?;
        let agent = self.agent(node)?;
        self.wait_for_state(node, "connected")?;
        Ok(agent)
    }

    pub fn wait_for_state(&self, node: &str, state: &str) -> anyhow::Result<Value> {
        wait_until(&format!("{node} to be {state}"), || {
            let seen = self.json(&["node", "get", node])?;
            if seen["state"] == state { Ok(seen) } else { bail!("it is {}", seen["state"]) }
        })
    }
}
