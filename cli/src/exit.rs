//! How a run ended, for scripts. The numbers are part of the interface: `--help` lists them, and they don't change.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotSignedIn = 3,
    NotFound = 4,
    Denied = 5,
    Unreachable = 6,
    Untrusted = 7,
}

/// At the end of `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  used in a wrong way
  3  not signed in
  4  not found
  5  permission denied
  6  the controller, or the agent, was not reached
  7  the controller's certificate authority is not the one that is trusted here";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
