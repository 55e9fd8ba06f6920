//! How it stands with the controller, for who asks on this host.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Written by the link, read by anyone.
#[derive(Debug, Default)]
pub struct Standing {
    attached: AtomicBool,
    attaches: AtomicU64,
    assigned: AtomicU64,
    stored: AtomicU64,
    spool_fails: AtomicBool,
    /// 0: no certificate was used yet.
    certificate_expires_ms: AtomicI64,
}

impl Standing {
    /// Whether a stream is there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// Streams since the start.
    #[must_use]
    pub fn attaches(&self) -> u64 {
        self.attaches.load(Ordering::Relaxed)
    }

    /// Records of this epoch: batches and events.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Up to which of them the controller has said that it stored what was sent as it was taken.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// When the certificate that was shown last ends; `None` before one was shown.
    #[must_use]
    pub fn certificate_expires_ms(&self) -> Option<i64> {
        Some(self.certificate_expires_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// Whether what is not stored yet is kept on disk too.
    #[must_use]
    pub fn is_spool_on_disk(&self) -> bool {
        !self.spool_fails.load(Ordering::Relaxed)
    }

    pub(super) fn keeps(&self, on_disk: bool) {
        self.spool_fails.store(!on_disk, Ordering::Relaxed);
    }

    pub(super) fn shows(&self, certificate_expires_ms: i64) {
        self.certificate_expires_ms.store(certificate_expires_ms, Ordering::Relaxed);
    }

    pub(super) fn is_there(&self) {
        self.attaches.fetch_add(1, Ordering::Relaxed);
        self.attached.store(true, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.attached.store(false, Ordering::Relaxed);
    }

    pub(super) fn counts(&self, records: u64) {
        self.assigned.store(records, Ordering::Relaxed);
    }

    pub(super) fn was_stored(&self, sequence: u64) {
        self.stored.store(sequence, Ordering::Relaxed);
    }

    /// Sequences begin anew.
    pub(super) fn begins_anew(&self) {
        self.assigned.store(0, Ordering::Relaxed);
        self.stored.store(0, Ordering::Relaxed);
    }
}
