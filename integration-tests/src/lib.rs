//! Starts the real programs for a test, waits for states, and stops what it started.
//!
//! The programs are those beside the test in the target directory: `integration-tests/all` builds them first.

mod authenticator;
mod browser;
mod caller;
mod client;
mod controller;
mod daemon;
mod guest;
pub mod lab;
pub mod machine;
mod pam;
mod person;
mod played;
pub mod rpc;
mod viewer;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, bail};
use horcrux_transport::clock;
use serde_json::Value;

pub use self::authenticator::Authenticator;
pub use self::browser::Browser;
pub use self::caller::{Bearer, Caller, Heard, Wire};
pub use self::client::Client;
pub use self::controller::{Controller, Place};
pub use self::daemon::Daemon;
pub use self::guest::Guest;
pub use self::pam::Pam;
pub use self::person::Person;
pub use self::played::{Consoles, Manner, Opened, PlayedNode};
pub use self::viewer::Viewer;

/// What tests may take for a thing to come about on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A program of the project, as built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("find the test's own file")?;
    let beside = test.parent().context("find the target directory")?;
    // Tests are in a directory of their own below it, the bench is not.
    let dir = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let path = dir.join(name);
    if path.exists() { Ok(path) } else { bail!("{} is not built: cargo build --bins", path.display()) }
}

/// Node 20 or newer: the one that the page is made with where this machine's own is older.
#[must_use]
pub fn node_js() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controld/web/.node/node_modules/node/bin/node");
    if own.exists() { own } else { PathBuf::from("node") }
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
