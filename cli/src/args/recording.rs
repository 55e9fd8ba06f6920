//! Recordings of consoles.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use horcrux_proto::v1::RecordingScope;

use super::change::ChangeArgs;

#[derive(Debug, Subcommand)]
pub enum RecordingCommand {
    /// List recordings, the newest first.
    List {
        /// Only those of this VM, by name or uuid.
        #[arg(long)]
        vm: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
        limit: u16,
    },
    /// Play a recorded serial line in this terminal, as fast as it went then.
    ///
    /// Any key pauses and goes on; q or Ctrl-C leaves. At its end it is told whether anybody changed it.
    /// What would make this terminal answer, or change more than its screen, is left out.
    Play {
        /// Its id, from `recording list`.
        id: String,
        /// So many times as fast.
        #[arg(long, value_name = "TIMES", default_value = "1", value_parser = speed)]
        speed: f64,
    },
    /// Write a recording to a file that only you can read, and check that nobody changed it.
    ///
    /// A serial line's is asciicast v2, which asciinema plays; a screen's is timed RFB.
    Export {
        /// Its id, from `recording list`.
        id: String,
        /// It must not exist yet.
        file: PathBuf,
    },
    /// Which consoles are recorded.
    #[command(subcommand)]
    Policy(PolicyCommand),
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List what is recorded; what isn't listed isn't.
    List,
    /// Say what is recorded of a VM, of the VMs in a pool, or for a role. The strongest that applies counts.
    ///
    /// Consoles that are open go on as they are.
    #[command(
        after_help = "Examples:\n  horcruxctl recording policy set vms/web1 serial\n  horcruxctl recording policy set roles/VmUser all"
    )]
    Set {
        /// vms/NAME, vms/UUID, pools/POOL or roles/ROLE.
        subject: String,
        scope: Scope,
        /// Keep what is typed too: passwords are among it.
        #[arg(long)]
        keep_input: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    Never,
    /// Serial lines.
    Serial,
    /// Serial lines and screens.
    All,
}

impl Scope {
    #[must_use]
    pub fn wire(self) -> RecordingScope {
        match self {
            Self::Never => RecordingScope::Never,
            Self::Serial => RecordingScope::Serial,
            Self::All => RecordingScope::All,
        }
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.01..=1000.0).contains(speed));
    speed.ok_or_else(|| "from 0.01 to 1000".to_owned())
}
