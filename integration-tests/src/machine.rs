//! A clean Debian that systemd runs, to install packages on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::{program, wait_until};

/// A machine, switched off when dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    dir: TempDir,
}

/// A package that `deploy/packages --debug` made, by the end of its file's name.
pub fn package(name: &str, end: &str) -> anyhow::Result<PathBuf> {
    let dir = packages()?;
    let version = env!("CARGO_PKG_VERSION");
    let is_it = |file: &Path| {
        let file = file.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.strip_prefix(name).is_some_and(|rest| rest[1..].starts_with(version)) && file.ends_with(end)
    };
    let entries = fs::read_dir(&dir).with_context(|| format!("look into {}", dir.display()))?;
    let found = entries.filter_map(Result::ok).map(|entry| entry.path()).find(|file| is_it(file));
    found.with_context(|| format!("no {name} in {}: run deploy/packages --debug", dir.display()))
}

fn packages() -> anyhow::Result<PathBuf> {
    let built = program("horcrux-agentd")?;
    let target = built.parent().and_then(Path::parent).context("find the target directory")?;
    Ok(target.join("packages"))
}

impl Machine {
    /// Boots one.
    pub fn boot() -> anyhow::Result<Self> {
        Self::boot_root(&[])
    }

    /// Boots one that has a libvirt, without a QEMU, and an sshd.
    pub fn boot_with_libvirt() -> anyhow::Result<Self> {
        Self::boot_root(&["libvirt"])
    }

    fn boot_root(kind: &[&str]) -> anyhow::Result<Self> {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
        let built =
            Command::new(lab.join("build-root")).arg(lab.join("../.cache/lab")).args(kind).output()?;
        crate::succeeded(&built)?;
        let root = String::from_utf8(built.stdout)?;
        let dir = tempfile::tempdir()?;
        let console = fs::File::create(dir.path().join("console"))?;
        let mut command = Command::new("unshare");
        // All of it ends with its first process, however the test ends.
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.arg(lab.join("machine")).arg(dir.path()).arg(root.trim()).arg(packages()?);
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let machine = Self { child: command.spawn().context("start the machine")?, dir };
        wait_until("the machine to be up", || {
            let state = machine.run(&["systemctl", "is-system-running"]);
            let state = state.with_context(|| machine.console())?;
            ensure!(state.trim() == "running", "{state}");
            Ok(())
        })?;
        Ok(machine)
    }

    /// What a program prints that runs there and ends well.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let process = self.first_process()?.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", process.as_str(), "-m", "-u", "-i", "-n", "-p", "--"]).args(arguments);
        let output = command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).output()?;
        let (told, problems) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return Ok(told.into_owned());
        }
        bail!("{arguments:?}: {}: {told}{problems}", output.status)
    }

    /// With apt, as people do.
    pub fn install(&self, name: &str) -> anyhow::Result<()> {
        let file = package(name, ".deb")?;
        let file = file.file_name().and_then(|file| file.to_str()).context("a package has a name")?;
        self.run(&["apt-get", "install", "-y", &format!("/packages/{file}")]).map(drop)
    }

    /// Where a file of the machine is, from outside.
    pub fn file(&self, path: &str) -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{path}", self.first_process()?)))
    }

    /// What somebody on the machine is answered who asks at a socket.
    pub fn get(&self, socket: &str, path: &str) -> anyhow::Result<String> {
        let mut command = Command::new("curl");
        command.args(["-sf", "--max-time", "10", "--unix-socket"]).arg(self.file(socket)?);
        let output = command.arg(format!("http://machine{path}")).output()?;
        crate::succeeded(&output)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The file system at /srv, from outside.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn first_process(&self) -> anyhow::Result<u32> {
        let only_child = |pid: u32| -> anyhow::Result<u32> {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            let first = children.split_whitespace().next().context("the machine doesn't run yet")?;
            first.parse().context("a process has a number")
        };
        // Of unshare, systemd-nspawn; of that, the machine's.
        only_child(only_child(self.child.id())?)
    }

    fn console(&self) -> String {
        fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.run(&["journalctl", "--no-pager", "-o", "cat", "-u", "horcrux-*"]);
            eprintln!("--- the machine's journal\n{}", journal.unwrap_or_else(|error| format!("{error:#}")));
        }
        // Its processes and mounts end with it.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the machine did not end: {error}");
        }
    }
}
