//! A directory and an OpenID provider, as others write them: started in a directory of their own on a free port, ended
//! when dropped; and a terminal. `integration-tests/install` installs what they need.
#![forbid(unsafe_code)]

mod authority;
mod browser;
mod parrot;
mod provider;
mod slapd;
mod terminal;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use horcrux_transport::clock;

pub use self::authority::Authority;
pub use self::browser::agree;
pub use self::parrot::Parrot;
pub use self::provider::{Claims, Provider};
pub use self::slapd::{Slapd, Tls};
pub use self::terminal::{Screen, Terminal};

/// What a part may take to start on two busy cores.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A process that ends with its owner, and with the thread that started it where that ends without a word.
#[derive(Debug)]
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        if self.0.kill().and_then(|()| self.0.wait()).is_err() {
            eprintln!("a part could not be ended");
        }
    }
}

impl Part {
    /// Gives it once it listens on all `ports`.
    fn start(program: &Path, arguments: &[&str], ports: &[u16]) -> anyhow::Result<Self> {
        let what = program.display();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut part = Self(command.spawn().with_context(|| format!("start {what}"))?);
        let until = clock::monotonic() + PATIENCE;
        // A channel that nobody sends on: waiting without a sleep.
        let (_keep, never) = mpsc::channel::<()>();
        let open = |port: &u16| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok();
        while !ports.iter().all(open) {
            if let Some(status) = part.0.try_wait()? {
                bail!("{what} ended: {status}");
            }
            if clock::monotonic() > until {
                bail!("{what} does not listen on {ports:?} after {PATIENCE:?}");
            }
            // Nothing is ever sent: it ends by the timeout.
            if never.recv_timeout(LOOK_EVERY).is_ok() {
                break;
            }
        }
        Ok(part)
    }
}

/// One that nothing listens on. Another program may take it before it is used; the part that wanted it then ends.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The one that the page is made with where this machine's own is older.
fn node_js() -> PathBuf {
    let own =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../controld/web/.node/node_modules/node/bin/node");
    if own.exists() { own } else { PathBuf::from("node") }
}
