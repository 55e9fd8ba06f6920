//! The asking side of a UNIX socket: everything that can block has one deadline.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::Uid;

use crate::clock;
use crate::sys::peer;

/// Connects to the socket at `path`. What is full and stays so is [`io::ErrorKind::TimedOut`].
pub fn connected(path: &Path, kind: SocketType, until: Instant) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let connection = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    // The kernel counts waiting for a full backlog as sending.
    sockopt::set_socket_timeout(&connection, sockopt::Timeout::Send, Some(left(until)?))?;
    match retry_on_intr(|| connect(&connection, &address)) {
        Ok(()) => Ok(connection),
        Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whose the other end is, by the kernel's word: of who listens, when he began to; of who connected, when he did.
pub fn peer(connection: impl AsFd) -> io::Result<Uid> {
    peer::of(connection).map(|(uid, _)| uid)
}

/// What is left until then; [`io::ErrorKind::TimedOut`] when nothing is.
pub fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(clock::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A stream with one deadline for all that is read from it and written to it.
#[derive(Debug)]
pub struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    /// `connection` has to be a stream socket.
    #[must_use]
    pub fn new(connection: OwnedFd, until: Instant) -> Self {
        Self { stream: connection.into(), until }
    }

    /// Changes the deadline, for what comes next.
    pub fn set_deadline(&mut self, until: Instant) {
        self.until = until;
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(buffer).map_err(late)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.until)?))?;
        self.stream.write(buffer).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn one_who_is_silent_or_full_is_left_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let until = || clock::now() + SHORT;
        let mut silent = Timed::new(connected(&path, SocketType::STREAM, until()).unwrap(), until());
        assert_eq!(silent.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        silent.set_deadline(until());
        let endless = vec![0; 1 << 20];
        let full = (0..64).find_map(|_| silent.write_all(&endless).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_other_end_is_known_before_anything_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let connection = connected(&path, SocketType::STREAM, clock::now() + SHORT).unwrap();
        assert_eq!(peer(&connection).unwrap(), rustix::process::geteuid());
    }
}
