//! The real horcrux-pamd among accounts of its own, in a mount namespace of its own: see `namespace.sh`.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::{Daemon, program, wait_until};

#[derive(Debug)]
pub struct Pam {
    pub daemon: Daemon,
    dir: TempDir,
}

impl Pam {
    /// Of every account that has one; `namespace.sh` has its hash.
    pub const PASSWORD: &str = "a-long-good-passphrase";

    /// Takes root. Answers those who run as this user.
    pub fn start() -> anyhow::Result<Self> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = tempfile::tempdir()?;
        fs::copy(project.join("deploy/pam/horcrux"), dir.path().join("horcrux"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.arg(project.join("controld/pamd/tests/real_pam/namespace.sh")).arg(dir.path());
        command.arg(program("horcrux-pamd")?).args(["--service", "horcrux", "--socket"]);
        command.arg(dir.path().join("socket"));
        command.args(["--allow-uid", &rustix::process::geteuid().as_raw().to_string()]);
        let pam = Self { daemon: Daemon::start(command, &dir.path().join("log"))?, dir };
        wait_until("pamd's socket", || {
            anyhow::ensure!(pam.daemon.log().contains("listening"), "{}", pam.daemon.log());
            Ok(())
        })?;
        Ok(pam)
    }

    #[must_use]
    pub fn socket(&self) -> String {
        self.dir.path().join("socket").display().to_string()
    }
}
