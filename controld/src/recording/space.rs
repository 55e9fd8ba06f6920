//! How much recordings may take: the oldest that have ended make room for what comes. Each VM has a share, and what is over
//! it finds room among its own alone: however much one VM says, the recordings of others stay, and go on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Held, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::Counts;
use crate::store::Store;
use crate::store::recordings::Oldest;

/// Where no room could be made for a VM, it isn't tried again for so long.
const AGAIN: Duration = Duration::from_secs(5);
/// Of the quota: what one VM may take.
const SHARE: u64 = 4;
/// Of the quota: what is kept for recordings to begin in.
const RESERVE: u64 = 64;

#[derive(Clone, Debug)]
pub(super) struct Space(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    store: Store,
    counts: Counts,
    quota: u64,
    used: Held<Used>,
    /// One makes room at a time.
    room: Mutex<()>,
}

#[derive(Debug, Default)]
struct Used {
    all: u64,
    /// By the VM's uuid.
    vms: HashMap<String, u64>,
    /// Until when it isn't tried again to make room for a VM.
    waits: HashMap<String, Instant>,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Share,
    Quota,
}

/// The space of one VM's recordings.
#[derive(Clone, Debug)]
pub(super) struct Share {
    space: Space,
    vm: String,
}

impl Share {
    /// Takes so many bytes, of those that older recordings give up where need be; `false` where there are none.
    pub(super) async fn take(&self, length: u64) -> bool {
        self.fits(length) || (self.make_room(length).await && self.fits(length))
    }

    /// Takes what a recording begins with: of the reserve, where nothing else is left.
    pub(super) async fn begin(&self, length: u64) -> bool {
        self.take(length).await || {
            let mut used = self.space.used();
            let fits = used.all.saturating_add(length) <= self.space.0.quota;
            if fits {
                used.add(&self.vm, length);
            }
            fits
        }
    }

    /// Takes a few bytes, whether there is room or not.
    pub(super) fn take_anyway(&self, length: u64) {
        self.space.used().add(&self.vm, length);
    }

    pub(super) fn give(&self, length: u64) {
        self.space.used().give(&self.vm, length);
    }

    fn fits(&self, length: u64) -> bool {
        let mut used = self.space.used();
        let fits = self.lack(&used, length).is_none();
        if fits {
            used.add(&self.vm, length);
        }
        fits
    }

    fn lack(&self, used: &Used, length: u64) -> Option<Lack> {
        let own = used.vms.get(&self.vm).copied().unwrap_or_default();
        let quota = self.space.0.quota;
        if own.saturating_add(length) > quota / SHARE {
            Some(Lack::Share)
        } else {
            (used.all.saturating_add(length) > quota - quota / RESERVE).then_some(Lack::Quota)
        }
    }

    async fn make_room(&self, length: u64) -> bool {
        let _one = self.space.0.room.lock().await;
        loop {
            let lack = {
                let used = self.space.used();
                if used.waits.get(&self.vm).is_some_and(|until| *until > Instant::now()) {
                    return false;
                }
                match self.lack(&used, length) {
                    Some(lack) => lack,
                    None => return true,
                }
            };
            if !self.free(lack, length).await {
                self.space.used().waits.insert(self.vm.clone(), Instant::now() + AGAIN);
                self.space.0.counts.add("recordings_without_room");
                let quota = self.space.0.quota;
                tracing::warn!(
                    vm = self.vm,
                    ?lack,
                    quota,
                    "a VM's recordings take all the room they may have"
                );
                return false;
            }
        }
    }

    /// One that has ended goes, where there is one that may.
    async fn free(&self, lack: Lack, length: u64) -> bool {
        let of = match lack {
            // Nothing that could go would make enough.
            Lack::Share if length > self.space.0.quota / SHARE => return false,
            Lack::Share => Some(&*self.vm),
            Lack::Quota => None,
        };
        match self.space.oldest(of).await {
            Some(oldest) => self.space.remove(&oldest, "others need its room").await,
            None => false,
        }
    }
}

impl Used {
    fn add(&mut self, vm: &str, length: u64) {
        self.all = self.all.saturating_add(length);
        let own = self.vms.entry(vm.to_owned()).or_default();
        *own = own.saturating_add(length);
    }

    fn give(&mut self, vm: &str, length: u64) {
        self.all = self.all.saturating_sub(length);
        if let Some(own) = self.vms.get_mut(vm) {
            *own = own.saturating_sub(length);
            if *own == 0 {
                self.vms.remove(vm);
            }
        }
    }
}

impl Space {
    /// With what the recordings of each VM take already.
    pub(super) fn new(
        dir: PathBuf,
        store: Store,
        counts: Counts,
        quota: u64,
        taken: &[(String, u64)],
    ) -> Self {
        let mut used = Used::default();
        taken.iter().for_each(|(vm, length)| used.add(vm, *length));
        Self(Arc::new(Inner { dir, store, counts, quota, used: Held::new(used), room: Mutex::default() }))
    }

    pub(super) fn of(&self, vm: &str) -> Share {
        Share { space: self.clone(), vm: vm.to_owned() }
    }

    /// A recording has ended: it can make room now.
    pub(super) fn has_ended(&self) {
        self.used().waits.clear();
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that ended before `before_ms` go.
    pub(super) async fn drop_before(&self, before_ms: i64) {
        while let Some(oldest) = self.oldest(None).await
            && oldest.ended_ms < before_ms
            && self.remove(&oldest, "its time is over").await
        {}
    }

    /// Of those that have ended, of one VM or of all.
    async fn oldest(&self, vm: Option<&str>) -> Option<Oldest> {
        self.0.store.oldest_recording(vm).await.unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "old recordings not looked up");
            None
        })
    }

    async fn remove(&self, Oldest { id, vm, size, .. }: &Oldest, why: &'static str) -> bool {
        match std::fs::remove_file(file(&self.0.dir, id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(recording = id, error = %Chain(&error), "a recording can't be removed");
                return false;
            }
            Ok(()) | Err(_) => {}
        }
        // Once its row is gone too: until then it is found again.
        if let Err(error) = self.0.store.delete_recording(id).await {
            tracing::error!(recording = id, error = %Chain(&error), "a removed recording is still listed");
            return false;
        }
        self.used().give(vm, u64::try_from(*size).unwrap_or_default());
        self.0.counts.add("recordings_removed");
        tracing::info!(recording = id, vm, size, why, at_ms = clock::unix_ms(), "recording removed");
        true
    }
}

pub(super) fn file(dir: &Path, id: &str) -> PathBuf {
    dir.join(id)
}
