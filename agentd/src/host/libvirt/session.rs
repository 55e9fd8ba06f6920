//! A connection that comes back: made when it is first needed, given up when it is dead, tried again with a backoff.

use std::os::unix::net::UnixStream;
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
const SESSION: &str = "qemu:///session";
/// Of a libvirt that runs for the agent's own user, which connecting would start.
const SESSION_SOCKETS: [&str; 2] = ["libvirt/libvirt-sock", "libvirt/virtqemud-sock"];

impl Place {
    #[must_use]
    pub fn new(uri: &str, root: &Path) -> Self {
        let (sockets, base): (&[&str], _) = match uri {
            "qemu:///system" => (&SOCKETS, Some(root.to_owned())),
            "lxc:///" | "lxc:///system" => (&LXC_SOCKETS, Some(root.to_owned())),
            SESSION => (&SESSION_SOCKETS, session_dir()),
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
        match self.driver() {
            "test" => Some("it is simulated"),
            _ if self.remote().is_some() => Some("it runs on another host"),
            "qemu" => None,
            "lxc" => Some("it is a container: the container of its name has this"),
            _ => Some("it is not run by QEMU"),
        }
    }

    /// The user, where it names one, and the host that it is on, where that isn't this one.
    pub(super) fn remote(&self) -> Option<(Option<&str>, &str)> {
        let (_, rest) = self.uri.split_once("://")?;
        let authority = rest.split(['/', '?']).next().filter(|authority| !authority.is_empty())?;
        Some(authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host)))
    }

    pub(super) fn is_by_ssh(&self) -> bool {
        self.uri.split("://").next().is_some_and(|scheme| scheme.ends_with("+ssh"))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Why it isn't worth a try.
    fn not_running(&self) -> Option<String> {
        let first = self.sockets.first()?;
        let mut there = self.sockets.iter().filter(|socket| socket.exists()).peekable();
        if there.peek().is_none() {
            return Some(format!("libvirtd is not running: {} does not exist", first.display()));
        }
        // A user's libvirtd that was killed leaves its socket, and libvirt would start another.
        if &*self.uri == SESSION && !there.any(|socket| UnixStream::connect(socket).is_ok()) {
            return Some(format!("libvirtd is not running: nobody answers at {}", first.display()));
        }
        None
    }

    /// What libvirt is given. ssh never asks anybody anything: who started the agent may be at a terminal.
    fn address(&self) -> String {
        if !self.is_by_ssh() || self.uri.contains("no_tty=") {
            return self.uri.to_string();
        }
        let separator = if self.uri.contains('?') { '&' } else { '?' };
        format!("{}{separator}no_tty=1", self.uri)
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
        if let Some(none) = self.place.not_running() {
            return Err(if self.had { Unavailable::Failing(none) } else { Unavailable::Absent(none) });
        }
        Connection::open(&self.place.address(), self.access).map_err(|error| {
            let text = Chain(&error).to_string();
            match &error {
                CallError::NotLoaded(_) => Unavailable::Absent(text),
                CallError::EventLoop(_) | CallError::TooOld(_) => Unavailable::Failing(text),
                CallError::Libvirt { error, .. } => Unavailable::Failing(
                    refusal::told(error, &text, self.access, &self.place).unwrap_or(text),
                ),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uri: &str) -> Place {
        Place::new(uri, Path::new("/"))
    }

    #[test]
    fn ssh_is_told_to_ask_nothing_and_others_are_given_the_address_as_it_stands() {
        for (uri, given) in [
            ("qemu+ssh://look@b/system", "qemu+ssh://look@b/system?no_tty=1"),
            ("qemu+ssh://b/system?keyfile=/k", "qemu+ssh://b/system?keyfile=/k&no_tty=1"),
            ("qemu+ssh://b/system?no_tty=1", "qemu+ssh://b/system?no_tty=1"),
            ("qemu+tls://b/system", "qemu+tls://b/system"),
            ("qemu:///system", "qemu:///system"),
        ] {
            assert_eq!(place(uri).address(), given);
        }
    }

    #[test]
    fn another_host_is_told_from_this_one() {
        for (uri, remote) in [
            ("qemu+ssh://look@b:2222/system", Some((Some("look"), "b:2222"))),
            ("qemu+tls://b/system?pkipath=/p", Some((None, "b"))),
            ("lxc:///system", None),
            ("qemu:///session", None),
            ("test:///default", None),
        ] {
            assert_eq!(place(uri).remote(), remote, "{uri}");
        }
    }

    #[test]
    fn why_a_vm_has_no_process_here_says_what_it_is() {
        let why = |uri| place(uri).without_processes().unwrap_or_default();
        assert_eq!((why("qemu:///system"), why("qemu:///session")), ("", ""));
        assert!(why("lxc:///").contains("a container") && why("lxc+ssh://b/").contains("another host"));
        assert!(
            why("qemu+tls://b/system").contains("another host")
                && why("test:///default").contains("simulated")
        );
    }
}
