//! The consoles that are open, and how they end.
//!
//! A console lasts as long as the connection on which it was ordered, and no longer than it was signed for; an order or
//! the hold file ends it sooner. Its socket is then shut down, which reaches every copy that somebody made of it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use horcrux_envelope::ConsoleId;
use horcrux_local::clock;
use horcrux_local::server::timespec;
use horcrux_privd::packets::Packets;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{Shutdown, shutdown};

/// Open at once: each is a process.
const MOST: usize = 64;
/// How soon a hold is seen.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Consoles {
    open: Mutex<BTreeMap<ConsoleId, Arc<Ends>>>,
    hold: PathBuf,
}

/// What has to be shut down for a console to end. Nothing yet while it is being opened.
#[derive(Debug, Default)]
struct Ends(Mutex<(bool, Vec<OwnedFd>)>);

/// A console's place among those that are open. Its end, when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    consoles: &'a Consoles,
    id: ConsoleId,
    ends: Arc<Ends>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("there is a console of this id")]
    Taken,
    #[error("{MOST} consoles are open, and there can be no more")]
    Full,
}

/// Why a console ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Agent,
    Vm,
    Time,
    Ordered,
    Hold,
    Failed,
}

impl Consoles {
    pub(crate) fn new(hold: PathBuf) -> Self {
        Self { open: Mutex::default(), hold }
    }

    /// Whether everything is refused. Also where that can't be told.
    pub(crate) fn is_held(&self) -> bool {
        !matches!(self.hold.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn place(&self, id: ConsoleId) -> Result<Place<'_>, NoPlace> {
        let mut open = self.lock();
        if open.contains_key(&id) {
            return Err(NoPlace::Taken);
        }
        if open.len() >= MOST {
            return Err(NoPlace::Full);
        }
        let ends = Arc::new(Ends::default());
        open.insert(id, Arc::clone(&ends));
        Ok(Place { consoles: self, id, ends })
    }

    /// Says whether it was open.
    pub(crate) fn close(&self, id: ConsoleId) -> bool {
        let ends = self.lock().get(&id).cloned();
        ends.inspect(|ends| ends.close()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConsoleId, Arc<Ends>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, (bool, Vec<OwnedFd>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether it is still to be.
    fn add(&self, end: OwnedFd) -> bool {
        let mut ends = self.lock();
        ends.1.push(end);
        !ends.0
    }

    fn close(&self) {
        let mut ends = self.lock();
        ends.0 = true;
        for end in &ends.1 {
            // One whose other side is gone has nothing to shut down.
            if let Err(error) = shutdown(end, Shutdown::Both) {
                tracing::debug!(%error, "a console was closed before");
            }
        }
    }
}

impl Place<'_> {
    /// Has the console's socket shut down with it. False: it was ordered closed before it was open.
    pub(crate) fn is_of(&self, display: &OwnedFd) -> io::Result<bool> {
        Ok(self.ends.add(display.try_clone()?))
    }

    /// Waits for the console's end. `until` is by the clock on the wall, and by one that nobody sets.
    pub(crate) fn last(
        &self,
        connection: &Packets,
        display: &OwnedFd,
        until_unix_ms: i64,
    ) -> io::Result<End> {
        let left = until_unix_ms.saturating_sub(clock::unix_ms());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
        let until = clock::now().checked_add(left);
        if !self.ends.add(connection.as_fd().try_clone_to_owned()?) {
            return Ok(End::Ordered);
        }
        loop {
            if self.consoles.is_held() {
                return Ok(End::Hold);
            }
            let now = clock::now();
            if until.is_some_and(|until| until <= now) || until_unix_ms <= clock::unix_ms() {
                return Ok(End::Time);
            }
            let wait = until.map_or(LOOK, |until: Instant| LOOK.min(until - now));
            // Nothing is to be said on the connection: that something is, is its end too.
            let gone = PollFlags::RDHUP;
            let mut ready = [PollFd::new(connection, PollFlags::IN | gone), PollFd::new(display, gone)];
            if retry_on_intr(|| poll(&mut ready, Some(&timespec(wait))))? > 0 {
                let [agent, vm] = ready.map(|end| !end.revents().is_empty());
                return Ok(match (self.ends.lock().0, agent, vm) {
                    (true, _, _) => End::Ordered,
                    (_, true, _) => End::Agent,
                    _ => End::Vm,
                });
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.ends.close();
        self.consoles.lock().remove(&self.id);
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "the agent closed it",
            Self::Vm => "the VM's side closed it",
            Self::Time => "its time is over",
            Self::Ordered => "it was ordered closed",
            Self::Hold => "a hold is in force",
            Self::Failed => "it could not be watched",
        })
    }
}

#[cfg(test)]
mod tests;
