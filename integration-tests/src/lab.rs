//! Nodes with a kernel view, a libvirt and containers of their own, made of namespaces by `lab/lab`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Controller, Daemon, program, succeeded};

/// A lab, ended when dropped.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    network: Network,
}

/// The network that a lab's nodes are on, beside them.
#[derive(Clone, Debug)]
pub struct Network(PathBuf);

/// How much a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It boots, and then waits.
    Idle,
    /// It burns half of a core; a guest writes to its disk too.
    Busy,
    /// It has QEMU's guest agent, a filesystem and somebody logged in.
    Agent,
    /// Somebody can sit at it: a shell on its screen, and a login on its serial line, of root with the password `horcrux`.
    Console,
    /// The same, with SPICE in VNC's place.
    Spice,
}

impl Work {
    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Agent => "agent",
            Self::Console => "console",
            Self::Spice => "spice",
        }
    }
}

impl Network {
    /// The address that is kept for a controller.
    pub const CONTROLLER: &str = "10.77.0.254";

    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.0.display())).arg("--").arg(program);
        command
    }
}

impl Lab {
    /// A lab of so many nodes, named `node1`, `node2` and so on.
    pub fn up(nodes: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        lab(dir.path(), "up", &[&nodes.to_string()])?;
        let id = fs::read_to_string(dir.path().join("id")).context("read the lab's id")?;
        let network = Network(Path::new("/run/netns").join(id.trim()));
        Ok(Self { dir, network })
    }

    #[must_use]
    pub fn network(&self) -> Network {
        self.network.clone()
    }

    /// What a program prints that runs in a node.
    pub fn exec(&self, node: usize, arguments: &[&str]) -> anyhow::Result<String> {
        let node = node.to_string();
        let mut all = vec![node.as_str()];
        all.extend(arguments);
        lab(self.dir.path(), "exec", &all)
    }

    pub fn start_libvirtd(&self, node: usize) -> anyhow::Result<()> {
        lab(self.dir.path(), "libvirtd", &[&node.to_string(), "start"]).map(drop)
    }

    /// kill -9.
    pub fn kill_libvirtd(&self, node: usize) -> anyhow::Result<()> {
        lab(self.dir.path(), "libvirtd", &[&node.to_string(), "kill"]).map(drop)
    }

    /// Starts a guest of the lab on a node; `number` is its own in the whole lab. Gives its uuid.
    pub fn vm(&self, node: usize, name: &str, number: usize, work: Work) -> anyhow::Result<String> {
        lab(self.dir.path(), "vm", &[&node.to_string(), name, &number.to_string(), work.word()])?;
        Ok(format!("aaaaaaaa-0000-4000-8000-{number:012x}"))
    }

    /// Makes the empty disk that a guest comes to where it migrates to this node.
    pub fn disk(&self, node: usize, name: &str) -> anyhow::Result<()> {
        lab(self.dir.path(), "disk", &[&node.to_string(), name]).map(drop)
    }

    pub fn start_dockerd(&self, node: usize) -> anyhow::Result<()> {
        lab(self.dir.path(), "dockerd", &[&node.to_string(), "start"]).map(drop)
    }

    /// Starts a container that may have half of a core and 64 MiB, and holds 24 of them; gives its id.
    pub fn container(&self, node: usize, name: &str, work: Work) -> anyhow::Result<String> {
        let printed = lab(self.dir.path(), "container", &[&node.to_string(), name, work.word()])?;
        Ok(printed.trim().to_owned())
    }

    /// The same, by Podman.
    pub fn podman(&self, node: usize, name: &str, work: Work) -> anyhow::Result<String> {
        let printed = lab(self.dir.path(), "podman", &[&node.to_string(), name, work.word()])?;
        Ok(printed.trim().to_owned())
    }

    /// Has Podman answer where privd asks it.
    pub fn start_podman_api(&self, node: usize) -> anyhow::Result<()> {
        lab(self.dir.path(), "podman-api", &[&node.to_string()]).map(drop)
    }

    /// What Podman itself says of a container.
    pub fn podman_stats(&self, node: usize, name: &str) -> anyhow::Result<Value> {
        let printed = lab(self.dir.path(), "podman-stats", &[&node.to_string(), name])?;
        let all: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
        Ok(all[0].clone())
    }

    /// The same as `container`, by LXC, whose containers have names alone.
    pub fn lxc(&self, node: usize, name: &str, work: Work) -> anyhow::Result<()> {
        lab(self.dir.path(), "lxc", &[&node.to_string(), name, work.word()]).map(drop)
    }

    /// Starts a node's horcrux-privd, where its agent looks for it.
    pub fn start_privd(&self, node: usize) -> anyhow::Result<Daemon> {
        const SOCKET: &str = "/run/horcrux/privd.sock";
        self.exec(node, &["mkdir", "-p", "/run/horcrux"])?;
        let mut command = self.command(node, &program("horcrux-privd")?);
        command.args(["--socket", SOCKET, "--allow-uid", "0"]);
        Daemon::start(command, &self.dir.path().join(format!("privd-{node}.log")))
    }

    /// Takes a node's network away.
    pub fn partition(&self, node: usize) -> anyhow::Result<()> {
        lab(self.dir.path(), "partition", &[&node.to_string()]).map(drop)
    }

    pub fn heal(&self, node: usize) -> anyhow::Result<()> {
        lab(self.dir.path(), "heal", &[&node.to_string()]).map(drop)
    }

    /// Enrolls and starts the agent of a node.
    pub fn join(&self, controller: &Controller, node: usize) -> anyhow::Result<Daemon> {
        let name = format!("node{node}");
        succeeded(&controller.enroll(&name, &controller.join_token(&name)?)?)?;
        // It ran beside the node, whose /etc/horcrux is its own.
        let left = controller.privd_dir(&name);
        if Path::new(&left).exists() {
            self.exec(node, &["cp", "-rT", &left, "/etc/horcrux/privd"])?;
        }
        let agent = self.agent(controller, node)?;
        controller.wait_for_state(&name, "connected")?;
        Ok(agent)
    }

    /// Starts the agent of a node that has been enrolled.
    pub fn agent(&self, controller: &Controller, node: usize) -> anyhow::Result<Daemon> {
        let command = self.command(node, &program("horcrux-agentd")?);
        controller.run_agent(&format!("node{node}"), command)
    }

    /// A command that runs `program` in a node.
    #[must_use]
    pub fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = script();
        command.arg("exec").arg(self.dir.path()).arg(node.to_string()).arg(program);
        command
    }
}

/// Boots a Linux on cgroup v2 and runs what is called `run` in `dir` there; gives what that prints.
pub fn on_cgroup2(dir: &Path) -> anyhow::Result<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join("lab/cgroup2"));
    let output = command.arg(here.join(".cache/lab")).arg(dir).stdin(Stdio::null()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    succeeded(&output).with_context(|| format!("it printed: {printed}"))?;
    Ok(printed)
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = lab(self.dir.path(), "down", &[]) {
            eprintln!("the lab did not end: {error:#}");
        }
    }
}

fn script() -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join("lab/lab"));
    command.env("HORCRUX_LAB_CACHE", here.join(".cache/lab")).stdin(Stdio::null());
    command
}

fn lab(dir: &Path, verb: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = script();
    command.arg(verb).arg(dir).args(arguments);
    // What daemons print that it starts must not keep a pipe open: only `exec` and `container` print for us.
    let output = command.output().with_context(|| format!("run lab {verb}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("lab {verb} {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}
