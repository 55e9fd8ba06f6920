//! A program of the project that runs for a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait_until;

/// A daemon that a test started. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts what `command` says, with what it logs added to `log`.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("start {command:?}"))?, log: log.to_owned() })
    }

    /// The program itself: what was started may be a wrapper that waits for it, in another namespace.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let mut pid = self.child.id();
        while let Some(child) = only_child(pid) {
            pid = child;
        }
        Pid::from_raw(pid.cast_signed()).context("a child has a pid")
    }

    /// As a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        kill_process(self.pid()?, Signal::KILL)?;
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

fn only_child(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
