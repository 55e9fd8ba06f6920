//! Starts the real programs for a test, waits for states, and stops what it started.
//!
//! The programs are those beside the test in the target directory: `integration-tests/all` builds them first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use horcrux_transport::clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What tests may take for a thing to come about on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A program of the project, as built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("find the test's own file")?;
    let dir = test.parent().and_then(Path::parent).context("find the target directory")?;
    let path = dir.join(name);
    if path.exists() { Ok(path) } else { bail!("{} is not built: cargo build --bins", path.display()) }
}

/// Waits until `look` gives something; its last word is in the error.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let until = clock::monotonic() + PATIENCE;
    // A channel that nobody sends on: waiting without sleeping through a stop.
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if clock::monotonic() > until => {
                return Err(last.context(format!("waited {PATIENCE:?} for {what}")));
            }
            Err(_) => drop(never.recv_timeout(LOOK_EVERY)),
        }
    }
}

/// A daemon that a test started. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn pid(&self) -> anyhow::Result<Pid> {
        Pid::from_raw(self.child.id().cast_signed()).context("a child has a pid")
    }

    /// As a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and gives its exit code.
    pub fn stop(mut self) -> anyhow::Result<Option<i32>> {
        kill_process(self.pid()?, Signal::TERM)?;
        wait_until("the daemon's end", || self.child.try_wait()?.context("it still runs")).map(|s| s.code())
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) && self.kill().is_err() {
            eprintln!("a daemon could not be killed");
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// A controller with an administrator, and the command line client signed in to it.
#[derive(Debug)]
pub struct Controller {
    pub daemon: Daemon,
    pub public_port: u16,
    /// Dropped last: the daemon's log is in it.
    dir: TempDir,
}

impl Controller {
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = "late_after = \"2s\"\ndown_after = \"6s\"\npublic_listen = \"127.0.0.1:0\"\n\
                      agents_listen = \"127.0.0.1:0\"\n";
        let state = dir.path().join("controller");
        let text = format!("{config}state_dir = {:?}\n", state.display().to_string());
        fs::write(dir.path().join("controld.toml"), text)?;
        fs::write(dir.path().join("password"), "correct horse battery\n")?;
        let daemon = Self::run(dir.path())?;
        let (public_port, agents_port) = Self::ports(&state)?;
        // A restart must come back where agents know it.
        let fixed = config.replacen(":0", &format!(":{public_port}"), 1).replacen(
            ":0",
            &format!(":{agents_port}"),
            1,
        );
        let text = format!("{fixed}state_dir = {:?}\n", state.display().to_string());
        fs::write(dir.path().join("controld.toml"), text)?;
        let controller = Self { daemon, public_port, dir };
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

    fn run(dir: &Path) -> anyhow::Result<Daemon> {
        Daemon::start(&program("horcrux-controld")?, &dir.join("controld.toml"), &dir.join("controld.log"))
    }

    fn ports(state: &Path) -> anyhow::Result<(u16, u16)> {
        let text = wait_until("the controller's ports", || Ok(fs::read_to_string(state.join("ports"))?))?;
        let port = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.parse().ok());
        port("public=").zip(port("agents=")).context("a ports file names both ports")
    }

    /// Starts the controller again after its end.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        fs::remove_file(self.state("ports"))?;
        self.daemon = Self::run(self.dir.path())?;
        Self::ports(&self.dir.path().join("controller")).map(|_| ())
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.public_port)
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

    /// The command line client, as this controller's administrator.
    pub fn ctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(program("horcruxctl")?);
        command.args(args).env("XDG_CONFIG_HOME", self.path("config")).stdin(Stdio::null());
        command.output().context("run horcruxctl")
    }

    /// What the client prints as JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(args);
        let output = self.ctl(&all)?;
        succeeded(&output)?;
        serde_json::from_slice(&output.stdout).context("horcruxctl prints JSON")
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
        fs::write(&config, format!("state_dir = {:?}\n", self.path(&format!("agent-{node}"))))?;
        let mut command = Command::new(program("horcrux-agentd")?);
        command.args([
            "enroll",
            "--controller",
            &self.url(),
            "--token-file",
            token_file,
            "--config",
            &config,
        ]);
        command.output().context("run horcrux-agentd enroll")
    }

    /// Starts the enrolled agent `node`.
    pub fn agent(&self, node: &str) -> anyhow::Result<Daemon> {
        let config = PathBuf::from(self.path(&format!("{node}.toml")));
        let log = PathBuf::from(self.path(&format!("{node}.log")));
        Daemon::start(&program("horcrux-agentd")?, &config, &log)
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

/// The value of a metric as a whole in what `node get`, `vm get` or `container get` print.
#[must_use]
pub fn value(object: &Value, metric: &str) -> Option<f64> {
    let values = object["values"].as_array()?;
    values.iter().find(|v| v["metric"] == metric && v["instance"] == "")?["value"].as_f64()
}

/// An error that holds what the program said, unless it ended well.
pub fn succeeded(output: &Output) -> anyhow::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}
