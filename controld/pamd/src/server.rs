//! Takes connections, and gives each one answer.
//!
//! ```text
//! main: accept ─► whose? ─► connection's thread: read ─► bounds ─► wait ≤ 20 s ─► answer
//!                                                            └─► PAM's thread: ask
//! ```
//! Each conversation with PAM has a thread of its own, because nothing else can leave a module that hangs: the connection
//! is answered at the deadline, and the thread and its place are lost until the module returns. When all places are lost
//! the program ends with an error, and whoever started it starts it anew.
//!
//! Refusals are sent no sooner than [`REFUSAL`] after the request: how long one took would tell a wrong password, after
//! which PAM waits, from an account that has expired, which it tells at once.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use horcrux_pamd::wire::{MAX_REQUEST, Malformed};
use horcrux_pamd::{Answer, Request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};
use rustix::process::Uid;
use zeroize::Zeroizing;

use crate::asking::{Asking, unaskable};
use crate::clock;
use crate::places::Places;
use crate::rates::Rates;

/// Conversations with PAM at once.
pub(crate) const PLACES: usize = 4;
/// Connections at once, most of which wait for their refusal. Others wait in the backlog.
const CONNECTIONS: usize = 32;
/// From connecting to the request, and for the answer to be taken.
const PACKET: Duration = Duration::from_secs(5);
/// What PAM has for an answer. Modules give servers that don't answer about 10 s each.
const ANSWER: Duration = Duration::from_secs(20);
/// pam_unix waits 2 s after a wrong password, and PAM varies that by a quarter.
const REFUSAL: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Server {
    listener: OwnedFd,
    /// Who may ask.
    allowed: Vec<Uid>,
    /// Ends after so long without a connection.
    idle: Option<Duration>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    asking: Asking,
    rates: Mutex<Rates>,
    places: Places,
    open: Mutex<usize>,
    closed: Condvar,
    /// Written when all places are lost.
    lost: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("prepare to wait for connections")]
    Prepare(#[source] io::Error),
    #[error("wait for a connection")]
    Wait(#[source] io::Error),
    #[error("take a connection")]
    Accept(#[source] io::Error),
    #[error("start a thread for a connection")]
    Thread(#[source] io::Error),
    #[error("all of PAM's conversations hang: ending, to be started anew")]
    Lost,
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("receive a request")]
    Receive(#[source] io::Error),
    #[error("the connection was closed without a request")]
    Closed,
    #[error("read a request")]
    Malformed(#[source] Malformed),
}

enum Event {
    Connection,
    Idle,
    Lost,
}

impl Server {
    pub(crate) fn new(
        listener: OwnedFd,
        allowed: Vec<Uid>,
        idle: Option<Duration>,
        rates: Rates,
        asking: Asking,
    ) -> Result<Self, ServerError> {
        let lost = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| ServerError::Prepare(errno.into()))?;
        let shared = Arc::new(Shared {
            asking,
            rates: Mutex::new(rates),
            places: Places::new(PLACES),
            open: Mutex::new(0),
            closed: Condvar::new(),
            lost,
        });
        Ok(Self { listener, allowed, idle, shared })
    }

    /// Returns when it was idle for as long as it may be, or can't go on.
    pub(crate) fn run(&self) -> Result<(), ServerError> {
        loop {
            match self.wait().map_err(|errno| ServerError::Wait(errno.into()))? {
                Event::Lost => return Err(ServerError::Lost),
                Event::Idle if *lock(&self.shared.open) == 0 => return Ok(()),
                Event::Idle => {}
                Event::Connection => self.take()?,
            }
        }
    }

    fn wait(&self) -> Result<Event, Errno> {
        let mut ready =
            [PollFd::new(&self.shared.lost, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        let idle = self.idle.map(timespec);
        let count = retry_on_intr(|| poll(&mut ready, idle.as_ref()))?;
        let [lost, _] = ready;
        if !lost.revents().is_empty() {
            return Ok(Event::Lost);
        }
        Ok(if count == 0 { Event::Idle } else { Event::Connection })
    }

    fn take(&self) -> Result<(), ServerError> {
        let connection = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            // Whoever connected has gone, or another process of ours took it.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(ServerError::Accept(errno.into())),
        };
        // The kernel's word on who connected, not the peer's.
        match sockopt::socket_peercred(&connection) {
            Ok(peer) if self.allowed.contains(&peer.uid) => {}
            Ok(peer) => {
                let (uid, pid) = (peer.uid.as_raw(), peer.pid.as_raw_nonzero());
                tracing::warn!(uid, pid, "connection dropped: this user may not ask");
                return Ok(());
            }
            Err(errno) => {
                tracing::warn!(error = %errno, "connection dropped: it can't be seen whose it is");
                return Ok(());
            }
        }
        let open = Open::wait(&self.shared);
        thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || open.0.serve(&connection))
            .map_err(ServerError::Thread)?;
        Ok(())
    }
}

/// One of the connections that may be open. Counted until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    /// Waits while there are too many; none stays longer than its deadlines.
    fn wait(shared: &Arc<Shared>) -> Self {
        let open = lock(&shared.open);
        let mut open = shared
            .closed
            .wait_while(open, |open| *open >= CONNECTIONS)
            .unwrap_or_else(PoisonError::into_inner);
        *open += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *lock(&self.0.open) -= 1;
        self.0.closed.notify_one();
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, connection: &OwnedFd) {
        let request = match receive(connection) {
            Ok(request) => request,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "connection dropped");
                return;
            }
        };
        let asked = clock::now();
        let answer = self.answer(request, asked);
        if answer == Answer::Refused {
            hold(connection, asked + REFUSAL);
        }
        if let Err(error) = give(connection, &answer) {
            tracing::debug!(%error, "answer not taken");
        }
    }

    fn answer(self: &Arc<Self>, request: Request, asked: Instant) -> Answer {
        if let Err(reason) = unaskable(&request) {
            tracing::info!(?reason, "refused without asking PAM");
            return Answer::Refused;
        }
        if let Err(beyond) = lock(&self.rates).take(&request, asked) {
            tracing::warn!(host = request.host, ?beyond, "busy: too many requests in a minute");
            return Answer::Busy;
        }
        let Some(place) = self.places.take(asked) else {
            tracing::warn!(host = request.host, "busy: too many conversations with PAM at once");
            return Answer::Busy;
        };
        // One: the answer finds a place even when nobody waits for it any more.
        let (said, heard) = mpsc::sync_channel(1);
        let shared = Arc::clone(self);
        let started = thread::Builder::new().name("pam".to_owned()).spawn(move || {
            let answer = shared.asking.ask(&request);
            // Before the answer: with it the password is gone, and who has it may ask again at once.
            drop(request);
            drop(place);
            if said.send(answer).is_err() {
                tracing::warn!("PAM answered after the deadline");
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "PAM not asked: no thread");
            return Answer::Failed;
        }
        match heard.recv_timeout(ANSWER) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("PAM did not answer in time: a module hangs, and keeps its thread");
                self.end_if_lost();
                Answer::Failed
            }
            Err(RecvTimeoutError::Disconnected) => Answer::Failed,
        }
    }

    fn end_if_lost(&self) {
        if self.places.all_lost(ANSWER, clock::now())
            && let Err(error) = rustix::io::write(&self.lost, &1_u64.to_ne_bytes())
        {
            tracing::error!(%error, "can't end, though every conversation with PAM hangs");
        }
    }
}

fn receive(connection: &OwnedFd) -> Result<Request, Unread> {
    let failed = |errno: Errno| Unread::Receive(errno.into());
    sockopt::set_socket_timeout(connection, sockopt::Timeout::Recv, Some(PACKET)).map_err(failed)?;
    // One byte more than there can be: a longer packet is malformed, not cut to a shorter one.
    let mut packet = Zeroizing::new([0; MAX_REQUEST + 1]);
    let (length, _) =
        retry_on_intr(|| recv(connection, packet.as_mut_slice(), RecvFlags::empty())).map_err(failed)?;
    match packet.get(..length) {
        Some([]) | None => Err(Unread::Closed),
        Some(request) => Request::decode(request).map_err(Unread::Malformed),
    }
}

fn give(connection: &OwnedFd, answer: &Answer) -> io::Result<()> {
    sockopt::set_socket_timeout(connection, sockopt::Timeout::Send, Some(PACKET))?;
    let packet = answer.encode().map_err(io::Error::other)?;
    retry_on_intr(|| send(connection, &packet, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Waits until `until`, or until nobody waits for the answer.
fn hold(connection: &OwnedFd, until: Instant) {
    let left = timespec(until.saturating_duration_since(clock::now()));
    // Without a flag the end of the connection is still told.
    let mut ended = [PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::empty())];
    if let Err(error) = retry_on_intr(|| poll(&mut ended, Some(&left))) {
        tracing::warn!(%error, "a refusal is sent sooner than others");
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
