//! What an enrollment leaves for `horcrux-privd`: whose orders count, and, on a host that has none yet, a policy.
//!
//! Root writes it, and nobody else can: an agent that is not what it was can't choose whose orders privd takes.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use horcrux_privd::settings::{CONTROLLER, Controller, Mode, POLICY, starting_policy};
use horcrux_transport::files;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The host has a policy now.
    Starting(Mode),
    /// The host's own is as it was.
    Kept,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    #[error("make {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("write down the controller's keys")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Writes it to `directory`, below which nothing else is touched.
pub fn leave(directory: &Path, controller: &Controller, mode: Mode) -> Result<Left, LeaveError> {
    make(directory)?;
    let text = controller.to_file().map_err(|error| LeaveError::Encode(error.into()))?;
    write(&directory.join(CONTROLLER), &text)?;
    let policy = directory.join(POLICY);
    // One that is of no use is somebody's too: privd says what is wrong with it.
    if policy.symlink_metadata().is_ok() {
        return Ok(Left::Kept);
    }
    write(&policy, &starting_policy(mode))?;
    Ok(Left::Starting(mode))
}

/// Those that are missing are made for everybody to read and root to write, whatever the umask.
fn make(directory: &Path) -> Result<(), LeaveError> {
    let mut missing: Vec<&Path> = directory.ancestors().take_while(|at| !at.exists()).collect();
    while let Some(path) = missing.pop() {
        let made =
            fs::create_dir(path).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)));
        made.map_err(|source| LeaveError::Directory { path: path.to_owned(), source })?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), LeaveError> {
    files::write_public(path, text.as_bytes())
        .map_err(|source| LeaveError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use horcrux_envelope::Signer;

    use super::*;

    #[test]
    fn keys_are_replaced_and_a_policy_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/horcrux/privd");
        let controller = |seed| Controller {
            cluster: "c".to_owned(),
            node_id: "n".to_owned(),
            keys: vec![Signer::new(&[seed; 32]).public_key()],
        };
        assert_eq!(leave(&directory, &controller(1), Mode::Console).unwrap(), Left::Starting(Mode::Console));
        let policy = fs::read_to_string(directory.join(POLICY)).unwrap();
        assert!(policy.contains("\nmode = \"console\"\n"), "{policy}");
        assert_eq!(leave(&directory, &controller(2), Mode::Manage).unwrap(), Left::Kept);
        assert_eq!(fs::read_to_string(directory.join(POLICY)).unwrap(), policy);
        let kept = fs::read_to_string(directory.join(CONTROLLER)).unwrap();
        assert_eq!(Controller::parse(&kept).unwrap(), controller(2));
        for (name, mode) in [(".", 0o755), (CONTROLLER, 0o644), (POLICY, 0o644)] {
            let about = fs::metadata(directory.join(name)).unwrap();
            assert_eq!(about.permissions().mode() & 0o7777, mode, "{name}");
        }
    }
}
