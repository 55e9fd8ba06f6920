//! Takes connections of those who may ask, and gives each to a thread of its own.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::Uid;

use crate::sys::peer;

#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    /// Who may ask.
    allowed: Vec<Uid>,
    /// Ends after so long without a connection.
    idle: Option<Duration>,
    connections: Arc<Connections>,
}

#[derive(Debug)]
struct Connections {
    most: usize,
    open: Mutex<usize>,
    closed: Condvar,
}

/// Why it ended, where nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Idle,
    /// By the descriptor that it was given for that.
    Told,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("wait for a connection")]
    Wait(#[source] io::Error),
    #[error("take a connection")]
    Accept(#[source] io::Error),
    #[error("start a thread for a connection")]
    Thread(#[source] io::Error),
}

enum Event {
    Connection,
    Idle,
    Told,
}

impl Server {
    /// At most `most` connections are open at once; others wait in the backlog.
    #[must_use]
    pub fn new(listener: OwnedFd, allowed: Vec<Uid>, idle: Option<Duration>, most: usize) -> Self {
        let connections = Connections { most, open: Mutex::new(0), closed: Condvar::new() };
        Self { listener, allowed, idle, connections: Arc::new(connections) }
    }

    /// Gives connections to `serve`, none of which may take it for good. Returns when it was idle for as long as it may be,
    /// when `end` can be read, or when it can't go on.
    pub fn run(
        &self,
        end: Option<BorrowedFd<'_>>,
        serve: impl Fn(OwnedFd) + Send + Sync + 'static,
    ) -> Result<Ended, ServerError> {
        let serve = Arc::new(serve);
        loop {
            match self.wait(end).map_err(|errno| ServerError::Wait(errno.into()))? {
                Event::Told => return Ok(Ended::Told),
                Event::Idle if *self.connections.lock() == 0 => return Ok(Ended::Idle),
                Event::Idle => {}
                Event::Connection => {
                    let Some(connection) = self.take()? else { continue };
                    let open = Open::wait(&self.connections);
                    let serve = Arc::clone(&serve);
                    let serving = move || {
                        serve(connection);
                        drop(open);
                    };
                    let named = thread::Builder::new().name("connection".to_owned());
                    named.spawn(serving).map_err(ServerError::Thread)?;
                }
            }
        }
    }

    fn wait(&self, end: Option<BorrowedFd<'_>>) -> Result<Event, Errno> {
        let mut ready = vec![PollFd::new(&self.listener, PollFlags::IN)];
        ready.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
        let idle = self.idle.map(timespec);
        let count = retry_on_intr(|| poll(&mut ready, idle.as_ref()))?;
        if ready.get(1).is_some_and(|end| !end.revents().is_empty()) {
            return Ok(Event::Told);
        }
        Ok(if count == 0 { Event::Idle } else { Event::Connection })
    }

    /// None where whoever connected has gone, or may not ask.
    fn take(&self) -> Result<Option<OwnedFd>, ServerError> {
        let connection = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            // Or another process of ours took it.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(ServerError::Accept(errno.into())),
        };
        // The kernel's word on who connected, not the peer's.
        match peer::of(&connection) {
            Ok((uid, _)) if self.allowed.contains(&uid) => Ok(Some(connection)),
            Ok((uid, pid)) => {
                let uid = uid.as_raw();
                tracing::warn!(uid, pid, "connection dropped: this user may not ask");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "connection dropped: it can't be seen whose it is");
                Ok(None)
            }
        }
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the connections that may be open. Counted until it is dropped.
struct Open(Arc<Connections>);

impl Open {
    /// Waits while there are too many; none stays longer than its deadlines.
    fn wait(connections: &Arc<Connections>) -> Self {
        let most = connections.most;
        let waited = connections.closed.wait_while(connections.lock(), |open| *open >= most);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Arc::clone(connections))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.closed.notify_one();
    }
}

/// For `poll`.
#[must_use]
pub fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use rustix::process::geteuid;

    use super::*;
    use crate::listener::{Kind, bound};

    fn greeting(allowed: Vec<Uid>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = bound(&path, Kind::Stream).unwrap();
        let server = Server::new(listener, allowed, Some(Duration::from_millis(100)), 1);
        let running = thread::spawn(move || {
            server.run(None, |connection| UnixStream::from(connection).write_all(b"hello").unwrap())
        });
        let mut text = String::new();
        UnixStream::connect(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(running.join().unwrap().unwrap(), Ended::Idle);
        text
    }

    #[test]
    fn who_may_ask_is_served_and_another_is_dropped() {
        assert_eq!(greeting(vec![geteuid()]), "hello");
        assert_eq!(greeting(vec![Uid::from_raw(geteuid().as_raw() + 1)]), "");
    }

    #[test]
    fn it_ends_when_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let listener = bound(&dir.path().join("socket"), Kind::Stream).unwrap();
        let (end, mut told) = UnixStream::pair().unwrap();
        told.write_all(b"x").unwrap();
        let end: OwnedFd = end.into();
        let server = Server::new(listener, Vec::new(), None, 1);
        assert_eq!(server.run(Some(std::os::fd::AsFd::as_fd(&end)), drop).unwrap(), Ended::Told);
    }
}
