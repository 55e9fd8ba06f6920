//! How much recordings may take: the oldest that have ended make room for what comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::Counts;
use crate::store::Store;

/// Where no room could be made, it isn't tried again for so long.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Space(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    store: Store,
    counts: Counts,
    quota: u64,
    used: AtomicU64,
    /// One makes room at a time; and when it is worth trying again.
    room: Mutex<Instant>,
}

impl Space {
    pub(super) fn new(dir: PathBuf, store: Store, counts: Counts, quota: u64, used: u64) -> Self {
        let (used, room) = (AtomicU64::new(used), Mutex::new(Instant::now()));
        Self(Arc::new(Inner { dir, store, counts, quota, used, room }))
    }

    /// Takes so many bytes, of those that older recordings give up where need be; `false` where there are none.
    pub(super) async fn take(&self, length: u64) -> bool {
        self.fits(length) || (self.make_room(length).await && self.fits(length))
    }

    /// Takes a few bytes, whether there is room or not.
    pub(super) fn take_anyway(&self, length: u64) {
        self.0.used.fetch_add(length, Ordering::Relaxed);
    }

    pub(super) fn give(&self, length: u64) {
        self.0.used.fetch_sub(length, Ordering::Relaxed);
    }

    /// Those that ended before `before_ms` go.
    pub(super) async fn drop_before(&self, before_ms: i64) {
        while let Some((id, ended_ms)) = self.oldest().await
            && ended_ms < before_ms
            && self.remove(&id, "its time is over").await
        {}
    }

    fn fits(&self, length: u64) -> bool {
        let fits = |used: u64| used.checked_add(length).filter(|used| *used <= self.0.quota);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    async fn make_room(&self, length: u64) -> bool {
        let mut again = self.0.room.lock().await;
        if *again > Instant::now() {
            return false;
        }
        while self.0.used.load(Ordering::Relaxed).saturating_add(length) > self.0.quota {
            let gone = match self.oldest().await {
                Some((id, _)) => self.remove(&id, "the others need its room").await,
                None => false,
            };
            if !gone {
                *again = Instant::now() + AGAIN;
                self.0.counts.add("recordings_without_room");
                tracing::warn!(quota = self.0.quota, "recordings take all the room they may have");
                return false;
            }
        }
        true
    }

    /// Of those that have ended, with when.
    async fn oldest(&self) -> Option<(String, i64)> {
        self.0.store.oldest_recording().await.unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "old recordings not looked up");
            None
        })
    }

    async fn remove(&self, id: &str, why: &'static str) -> bool {
        let path = file(&self.0.dir, id);
        let size = match remove_file(&path) {
            Ok(size) => size,
            Err(error) => {
                tracing::error!(recording = id, error = %Chain(&error), "a recording can't be removed");
                return false;
            }
        };
        self.give(size);
        if let Err(error) = self.0.store.delete_recording(id).await {
            tracing::error!(recording = id, error = %Chain(&error), "a removed recording is still listed");
            return false;
        }
        self.0.counts.add("recordings_removed");
        tracing::info!(recording = id, size, why, at_ms = clock::unix_ms(), "recording removed");
        true
    }
}

/// Its length; 0 where it was gone already.
fn remove_file(path: &Path) -> std::io::Result<u64> {
    match std::fs::metadata(path) {
        Ok(found) => std::fs::remove_file(path).map(|()| found.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

pub(super) fn file(dir: &Path, id: &str) -> PathBuf {
    dir.join(id)
}
