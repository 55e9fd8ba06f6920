//! The socket that questions come in by: systemd's, or one of our own.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};
use rustix::process::{getpid, umask};

use crate::sys::inherited;

/// systemd's first descriptor, sd_listen_fds(3).
const FIRST: i32 = 3;

/// Connections that wait to be taken. Who asks has a bound of its own on how many do at once.
const BACKLOG: i32 = 32;

/// How the socket keeps what is said apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As packets, each small.
    Packets,
    Stream,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("no socket: start this by its systemd socket unit, or give --socket")]
    None,
    #[error("{0} sockets were passed; it must be one")]
    Count(String),
    #[error("take the socket that was passed")]
    Take(#[source] io::Error),
    #[error("the socket that was passed is not a listening one of {0}=")]
    Kind(&'static str),
    #[error("{} is not a socket: it is left as it is", .0.display())]
    Occupied(PathBuf),
    #[error("{} is in use", .0.display())]
    InUse(PathBuf),
    #[error("listen at {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Kind {
    fn of_socket(self) -> SocketType {
        match self {
            Self::Packets => SocketType::SEQPACKET,
            Self::Stream => SocketType::STREAM,
        }
    }

    /// systemd's word for it, systemd.socket(5).
    fn directive(self) -> &'static str {
        match self {
            Self::Packets => "ListenSequentialPacket",
            Self::Stream => "ListenStream",
        }
    }
}

/// A socket at `path`, or else the one that systemd passed. First of all that `main` does: the descriptor that was passed
/// must be nobody else's yet.
pub fn given(path: Option<&Path>, kind: Kind) -> Result<OwnedFd, ListenerError> {
    path.map_or_else(|| passed(kind), |path| bound(path, kind))
}

/// The socket that systemd passed. Once: see [`inherited::take`].
fn passed(kind: Kind) -> Result<OwnedFd, ListenerError> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    // The variables may have been meant for a parent of this program.
    if variable("LISTEN_PID") != getpid().as_raw_nonzero().to_string() {
        return Err(ListenerError::None);
    }
    let count = variable("LISTEN_FDS");
    if count != "1" {
        return Err(ListenerError::Count(count));
    }
    let socket = inherited::take(FIRST).map_err(ListenerError::Take)?;
    if serves(&socket, kind).unwrap_or_default() {
        Ok(socket)
    } else {
        Err(ListenerError::Kind(kind.directive()))
    }
}

fn serves(socket: &OwnedFd, kind: Kind) -> Result<bool, Errno> {
    Ok(sockopt::socket_domain(socket)? == AddressFamily::UNIX
        && sockopt::socket_type(socket)? == kind.of_socket()
        && sockopt::socket_acceptconn(socket)?)
}

/// A socket at `path`, for this user and the file's group. To be called before there are threads: they share the umask.
pub fn bound(path: &Path, kind: Kind) -> Result<OwnedFd, ListenerError> {
    let failed = |source: io::Error| ListenerError::Listen { path: path.to_owned(), source };
    let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno.into()))?;
    make_way(path, kind, &address)?;
    let socket = unconnected(kind).map_err(|errno| failed(errno.into()))?;
    let before = umask(Mode::XUSR | Mode::XGRP | Mode::RWXO);
    let done = bind(&socket, &address);
    umask(before);
    done.and_then(|()| listen(&socket, BACKLOG)).map_err(|errno| failed(errno.into()))?;
    Ok(socket)
}

/// Removes the socket that an earlier run left.
fn make_way(path: &Path, kind: Kind, address: &SocketAddrUnix) -> Result<(), ListenerError> {
    let failed = |source: io::Error| ListenerError::Listen { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(ListenerError::Occupied(path.to_owned()));
        }
        Ok(_) => {}
    }
    let attempt = unconnected(kind).and_then(|socket| connect(&socket, address));
    if attempt == Err(Errno::CONNREFUSED) {
        std::fs::remove_file(path).map_err(failed)
    } else {
        Err(ListenerError::InUse(path.to_owned()))
    }
}

fn unconnected(kind: Kind) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, kind.of_socket(), SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_not_a_socket_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(bound(&file, Kind::Stream), Err(ListenerError::Occupied(_))));
        assert!(matches!(bound(&link, Kind::Packets), Err(ListenerError::Occupied(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_socket_is_replaced_when_nobody_listens_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = bound(&path, Kind::Packets).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bound(&path, Kind::Packets), Err(ListenerError::InUse(_))));
        drop(first);
        let second = bound(&path, Kind::Packets).unwrap();
        assert!(serves(&second, Kind::Packets).unwrap());
    }

    #[test]
    fn only_a_listening_socket_of_its_kind_serves() {
        assert!(!serves(&unconnected(Kind::Packets).unwrap(), Kind::Packets).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let stream = std::os::unix::net::UnixListener::bind(dir.path().join("stream")).unwrap();
        let stream = stream.into();
        assert!(!serves(&stream, Kind::Packets).unwrap());
        assert!(serves(&stream, Kind::Stream).unwrap());
    }

    #[test]
    fn without_a_socket_passed_there_is_none() {
        assert!(matches!(passed(Kind::Stream), Err(ListenerError::None)));
    }
}
