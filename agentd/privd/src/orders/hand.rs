//! The process that acts on one VM: this program once more, and the only part of it that speaks to libvirt.
//!
//! A call of libvirt blocks for as long as the QEMU that it asks is stopped, and can't be given up. A process can: so each
//! order that acts has one, with a deadline, and one that hangs costs that order alone. It finds the VM, is told to go on
//! once the policy has been asked, and hands back what it opened. While a console is open it stays, with a copy of the
//! descriptor: where privd ends without a word, it closes the console.
//!
//! ```text
//!   privd                                   hand
//!     ├── starts, with a socket as stdin ──────►│ connects, looks for the VM
//!     │◄───────────────────── Found or refused ──┤
//!     │ policy, journal                          │
//!     ├── Open ─────────────────────────────────►│ opens the console
//!     │◄──────────── Opened, with a descriptor ──┤
//!     │ …                                        │ passes on a serial line's bytes
//!     └── closes the socket, or is no more ─────►│ shuts the descriptor down, and ends
//! ```

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use horcrux_envelope::ConsoleKind;
use horcrux_local::clock;
use horcrux_privd::packets::{MAX_QUESTION, PacketError, Packets};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use uuid::Uuid;

/// The first argument of a hand.
pub(crate) const ARGUMENT: &str = "hand";

/// For libvirt to find a VM, and for it to open a console.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a hand says.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Said {
    /// Why it didn't do what it should.
    #[prost(string, optional, tag = "1")]
    pub(crate) refused: Option<String>,
    /// The VM's.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

/// What a hand is told.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Open {
    #[prost(enumeration = "horcrux_envelope::v1::ConsoleKind", tag = "1")]
    pub(crate) kind: i32,
}

/// One that has found its VM.
#[derive(Debug)]
pub(crate) struct Hand {
    child: Child,
    packets: Packets,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HandError {
    #[error("start a process for it: {0}")]
    Start(io::Error),
    #[error("libvirt did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    #[error("its process ended, or said what it should not")]
    Ended,
    #[error("{0}")]
    Refused(String),
}

impl Hand {
    /// One that has found the VM, and the VM's name.
    pub(crate) fn reach(libvirt_uri: &str, vm: Uuid) -> Result<(Self, String), HandError> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|errno| HandError::Start(errno.into()))?;
        // The very program that runs, even where another has taken its place on the disk.
        let mut command = Command::new("/proc/self/exe");
        let arguments = [OsString::from(ARGUMENT), libvirt_uri.into(), vm.to_string().into()];
        command.args(arguments).stdin(theirs).stdout(Stdio::null());
        let child = command.spawn().map_err(HandError::Start)?;
        // Its end must be the only one, so that its own end is seen.
        drop(command);
        let hand = Self { child, packets: Packets::new(ours, clock::now() + DEADLINE) };
        let (Said { name, .. }, _) = hand.hear()?;
        Ok((hand, name))
    }

    /// Opens the VM's console. What comes back is shut down when this is dropped, or when this program ends.
    pub(crate) fn open(&mut self, kind: ConsoleKind) -> Result<OwnedFd, HandError> {
        self.packets.set_deadline(clock::now() + DEADLINE);
        let told = Open { kind: horcrux_envelope::v1::ConsoleKind::from(kind).into() };
        self.packets.write(&told).map_err(ended)?;
        self.hear()?.1.ok_or(HandError::Ended)
    }

    fn hear(&self) -> Result<(Said, Option<OwnedFd>), HandError> {
        let (said, descriptor) = self.packets.read_with::<Said>(MAX_QUESTION).map_err(ended)?;
        said.refused.map_or(Ok((Said { refused: None, name: said.name }, descriptor)), |why| {
            Err(HandError::Refused(why))
        })
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // Even one that hangs in libvirt ends by this, and its end is waited for: that is how it is taken off the list.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            tracing::error!(%error, "the process of an order can't be ended");
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn ended(error: PacketError) -> HandError {
    if error.is_late() { HandError::TimedOut } else { HandError::Ended }
}
