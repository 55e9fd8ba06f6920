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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use horcrux_local::clock;
use horcrux_local::server::{Ended, timespec};
use horcrux_pamd::wire::{MAX_REQUEST, Malformed};
use horcrux_pamd::{Answer, Request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use rustix::process::Uid;
use zeroize::Zeroizing;

use crate::asking::{Asking, unaskable};
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
    connections: horcrux_local::server::Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    asking: Asking,
    rates: Mutex<Rates>,
    places: Places,
    /// Written when all places are lost.
    lost: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("prepare to wait for connections")]
    Prepare(#[source] io::Error),
    #[error("take connections")]
    Connections(#[source] horcrux_local::server::ServerError),
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
        let shared = Arc::new(Shared { asking, rates: Mutex::new(rates), places: Places::new(PLACES), lost });
        let connections = horcrux_local::server::Server::new(listener, allowed, idle, CONNECTIONS);
        Ok(Self { connections, shared })
    }

    /// Returns when it was idle for as long as it may be, or can't go on.
    pub(crate) fn run(&self) -> Result<(), ServerError> {
        let shared = Arc::clone(&self.shared);
        let serve = move |connection| shared.serve(&connection);
        match self.connections.run(Some(self.shared.lost.as_fd()), serve).map_err(ServerError::Connections)? {
            Ended::Idle => Ok(()),
            Ended::Told => Err(ServerError::Lost),
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
