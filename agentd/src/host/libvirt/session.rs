//! A connection that comes back: made when it is first needed, given up when it is dead, tried again with a backoff.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use horcrux_proto::v1::{Source, SourceState};
use horcrux_transport::backoff::{Backoff, draw};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;

use crate::sample::SourceReport;

use super::raw::{Access, CallError, Connection};
use super::refusal;

/// Where libvirt is, as the settings say.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) uri: Arc<str>,
    /// One of these must be there before it is worth a try; none: always try.
    sockets: Arc<[PathBuf]>,
    /// Where /etc and /usr are found.
    root: Arc<Path>,
}

#[derive(Debug)]
pub(super) struct Session {
    place: Place,
    access: Access,
    state: State,
    backoff: Backoff,
    /// A host that had libvirt once and has it no more has lost it.
    had: bool,
}

#[derive(Debug)]
enum State {
    Connected(Connection),
    Unavailable { why: Unavailable, retry_at: Instant },
    New,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// This host has no libvirt.
    Absent(String),
    Failing(String),
    /// It was asked and does not come back.
    Stuck(String),
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(10);
/// Of the system's QEMU driver: of libvirtd, and of the daemon that does this alone.
const SOCKETS: [&str; 2] = ["run/libvirt/libvirt-sock-ro", "run/libvirt/virtqemud-sock-ro"];
/// The same for containers.
const LXC_SOCKETS: [&str; 2] = ["run/libvirt/libvirt-sock-ro", "run/libvirt/virtlxcd-sock-ro"];
/// Of a libvirt that runs for the agent's own user, which connecting would start.
const SESSION_SOCKETS: [&str; 2] = ["libvirt/libvirt-sock", "libvirt/virtqemud-sock"];

impl Place {
    #[must_use]
    pub fn new(uri: &str, root: &Path) -> Self {
        let (sockets, base): (&[&str], _) = match uri {
            "qemu:///system" => (&SOCKETS, Some(root.to_owned())),
            "lxc:///" | "lxc:///system" => (&LXC_SOCKETS, Some(root.to_owned())),
            "qemu:///session" => (&SESSION_SOCKETS, session_dir()),
            _ => (&[], None),
        };
        let sockets = base.iter().flat_map(|base| sockets.iter().map(|socket| base.join(socket))).collect();
        Self { uri: uri.into(), sockets, root: root.into() }
    }

    /// What is read from it. What the test driver tells is made up.
    pub(super) fn source(&self) -> Source {
        if self.is_simulated() { Source::Simulated } else { Source::Libvirt }
    }

    pub(super) fn is_simulated(&self) -> bool {
        self.driver() == "test"
    }

    pub(super) fn has_monitors(&self) -> bool {
        self.driver() == "qemu"
    }

    /// Whether it is the libvirt whose files and groups mark what it starts on this host.
    pub(super) fn is_system_s(&self) -> bool {
        &*self.uri == crate::config::LOCAL_LIBVIRT
    }

    /// Why its VMs have no process here.
    pub(super) fn without_processes(&self) -> Option<&'static str> {
        let host =
            self.uri.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
        match self.driver() {
            "test" => Some("it is simulated"),
            _ if !host.is_empty() => Some("it runs on another host"),
            "qemu" => None,
            _ => Some("it is not run by QEMU"),
        }
    }

    fn driver(&self) -> &str {
        self.uri.split(['+', ':']).next().unwrap_or("")
    }
}

/// As libvirt finds it.
fn session_dir() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("XDG_RUNTIME_DIR").or_else(|| of("XDG_CACHE_HOME")).or_else(|| Some(of("HOME")?.join(".cache")))
}

impl Session {
    pub(super) fn new(place: Place) -> Self {
        let backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        Self { place, access: Access::Look, state: State::New, backoff, had: false }
    }

    /// Not read-only. Whoever makes one answers for what is called with it.
    pub(super) fn that_may_change(place: Place) -> Self {
        Self { access: Access::Change, ..Self::new(place) }
    }

    /// Makes a call, connected for it if need be.
    pub(super) fn call<T>(
        &mut self,
        call: impl FnOnce(&Connection) -> Result<T, CallError>,
    ) -> Result<T, Unavailable> {
        let connection = self.connected()?;
        match call(connection) {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // The next call connects at once: a libvirtd that was restarted is there already.
                if !connection.is_alive() {
                    self.state = State::New;
                }
                Err(Unavailable::Failing(Chain(&error).to_string()))
            }
        }
    }

    /// The connection is of no use any more.
    pub(super) fn forget(&mut self) {
        if matches!(self.state, State::Connected(_)) {
            self.state = State::New;
        }
    }

    fn connected(&mut self) -> Result<&Connection, Unavailable> {
        // One that was lost since the last call would cost this one's answer.
        if matches!(&self.state, State::Connected(connection) if !connection.is_alive()) {
            self.state = State::New;
        }
        if let State::Unavailable { why, retry_at } = &self.state
            && clock::monotonic() < *retry_at
        {
            return Err(why.clone());
        }
        if !matches!(self.state, State::Connected(_)) {
            match self.open() {
                Ok(connection) => {
                    self.backoff.succeeded();
                    self.had = true;
                    self.state = State::Connected(connection);
                }
                Err(why) => {
                    let retry_at = clock::monotonic() + self.backoff.failed(draw());
                    self.state = State::Unavailable { why, retry_at };
                }
            }
        }
        match &self.state {
            State::Connected(connection) => Ok(connection),
            State::Unavailable { why, .. } => Err(why.clone()),
            State::New => Err(Unavailable::Failing("not connected".to_owned())),
        }
    }

    fn open(&self) -> Result<Connection, Unavailable> {
        let sockets = &self.place.sockets;
        if !sockets.is_empty() && !sockets.iter().any(|socket| socket.exists()) {
            let none = format!("libvirtd is not running: {} does not exist", sockets[0].display());
            return Err(if self.had { Unavailable::Failing(none) } else { Unavailable::Absent(none) });
        }
        Connection::open(&self.place.uri, self.access).map_err(|error| {
            let text = Chain(&error).to_string();
            match &error {
                CallError::NotLoaded(_) => Unavailable::Absent(text),
                CallError::EventLoop(_) | CallError::TooOld(_) => Unavailable::Failing(text),
                CallError::Libvirt { error, .. } => {
                    let refused = refusal::of(error)
                        .map(|kind| refusal::told(kind, self.access, &text, &self.place.root));
                    Unavailable::Failing(refused.unwrap_or(text))
                }
            }
        })
    }
}

impl Unavailable {
    pub(super) fn report(&self, source: Source, place: &Place) -> SourceReport {
        let (state, detail) = match self {
            Self::Absent(why) => (SourceState::Absent, why),
            Self::Failing(why) => (SourceState::Failing, why),
            Self::Stuck(why) => (SourceState::Stuck, why),
        };
        SourceReport { source, instance: Arc::clone(&place.uri), state, detail: detail.clone() }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Absent(why) | Self::Failing(why) | Self::Stuck(why) => why,
        }
    }
}

pub(super) fn ok(source: Source, place: &Place) -> SourceReport {
    let instance = Arc::clone(&place.uri);
    SourceReport { source, instance, state: SourceState::Ok, detail: String::new() }
}
