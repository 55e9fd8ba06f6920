//! The audit log: what was done and refused, on a chain that can't be quietly edited.
//!
//! A change is on record before it is made (intent) and after (outcome). An intent that can't be written refuses the
//! change. A controller that was killed in between finds the intent at its next start, and says that the outcome is not
//! known. The chain shows an edited, removed or reordered row by itself; a truncated end only against a head that was
//! noted elsewhere, which is why the head goes to the journal every minute.

mod scribe;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use horcrux_transport::clock;
use tokio::sync::{broadcast, mpsc};

pub use self::scribe::Scribe;
use self::verify::dropped;
pub use self::verify::{Verdict, hex};
use super::name::is_disruptive;
use super::pace::{Allowance, Pace};
use crate::store::audit::{AuditFilter, AuditRow, Head};
use crate::store::{Store, StoreError};

/// Denials that wait to be written. One that doesn't fit is counted, and told with the next head.
const WAITING: usize = 1024;
/// Denials of one user, or from one address, for one reason, that are written one by one: whoever asks in a loop doesn't fill
/// the log, nor the places of what others are denied, or of what else they are.
const DENIALS: Allowance = Allowance { burst: 200, every: Duration::from_secs(1) };
/// Of so many it is told who they were and what they asked for.
const SHEDDERS: usize = 50;
const OTHERS: &str = "others";
/// Rows that a follower may lag behind before it reads them from the store.
const FOLLOWED: usize = 256;
/// Longer text is cut: it comes from callers.
const MAX_TEXT: usize = 512;
/// What a row says in place of an RPC that vouches for where the log begins.
const RETENTION: &str = "retention";
/// Where the last head is noted in the state directory.
pub const HEAD_FILE: &str = "audit-head";

/// What is put on record.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// `user@realm`, `nodes/{node}`, or `controller`.
    pub actor: String,
    /// A session's id, or `token ID`.
    pub session: String,
    pub source: String,
    pub rpc: String,
    pub resource: String,
    pub request_id: String,
    /// What allowed it; of a denial the privilege that was missing.
    pub decision: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Intent,
    Outcome,
    Event,
    Denial,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Event => "event",
            Self::Denial => "denial",
        }
    }
}

/// Denials that came too fast.
#[derive(Debug, Default)]
struct Unwritten {
    pace: Pace<String>,
    /// By who was denied what, since they were last told: how many, and the last of them.
    shed: BTreeMap<String, (u64, Entry)>,
}

/// Writes the log, and reads it.
#[derive(Clone, Debug)]
pub struct Audit {
    store: Store,
    written: broadcast::Sender<AuditRow>,
    denials: mpsc::Sender<AuditRow>,
    unwritten: Arc<Mutex<Unwritten>>,
    /// The last row that this process knows of: a log that doesn't hold it any more was cut.
    seen: Arc<Mutex<Head>>,
    head_file: PathBuf,
    /// Noted here too, one line for each head: somewhere that others can't write.
    checkpoint_file: Option<PathBuf>,
}

impl Audit {
    pub async fn open(
        store: Store,
        state_dir: &std::path::Path,
        checkpoint_file: Option<PathBuf>,
    ) -> Result<(Self, Scribe), StoreError> {
        let (denials, waiting) = mpsc::channel(WAITING);
        let head = store.audit_head().await?;
        let audit = Self {
            store,
            written: broadcast::Sender::new(FOLLOWED),
            denials,
            unwritten: Arc::default(),
            seen: Arc::new(Mutex::new(head)),
            head_file: state_dir.join(HEAD_FILE),
            checkpoint_file,
        };
        Ok((audit.clone(), Scribe { audit, denials: waiting }))
    }

    /// Puts on record that something is about to be done. It may be done only after this.
    pub async fn intent(&self, entry: &Entry) -> Result<i64, StoreError> {
        self.add(vec![row(Kind::Intent, entry, "", 0)]).await
    }

    /// Puts on record how it ended.
    pub async fn outcome(&self, entry: &Entry, intent: i64, outcome: &str) -> Result<(), StoreError> {
        self.add(vec![row(Kind::Outcome, entry, outcome, intent)]).await.map(|_| ())
    }

    /// Something that happened.
    pub async fn event(&self, entry: &Entry, outcome: &str) -> Result<(), StoreError> {
        self.add(vec![row(Kind::Event, entry, outcome, 0)]).await.map(|_| ())
    }

    /// A refusal. It is written a moment later: a refused caller must not learn from the time that it takes.
    pub fn denial(&self, entry: &Entry) {
        let who = if entry.actor.is_empty() { &entry.source } else { &entry.actor };
        let of = format!("{who} {} {}", entry.rpc, entry.decision);
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        if !unwritten.pace.may(&of, DENIALS, clock::monotonic())
            || self.denials.try_send(row(Kind::Denial, entry, "denied", 0)).is_err()
        {
            unwritten.shed(of, entry);
        }
    }

    /// Says of intents that a killed controller left that their outcome is not known.
    pub async fn resolve(&self) -> Result<usize, StoreError> {
        let open = self.store.unresolved_intents().await?;
        let count = open.len();
        let unknown = |intent: AuditRow| AuditRow {
            at_ms: clock::unix_ms(),
            kind: Kind::Outcome.as_str().to_owned(),
            outcome: "unknown: the controller ended before it was recorded".to_owned(),
            intent: intent.sequence,
            ..intent
        };
        if count > 0 {
            self.add(open.into_iter().map(unknown).collect()).await?;
        }
        Ok(count)
    }

    pub async fn before(
        &self,
        filter: &AuditFilter,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.store.audit_before(filter, before, limit).await
    }

    pub async fn after(
        &self,
        filter: &AuditFilter,
        after: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.store.audit_after(filter, after, limit).await
    }

    /// Rows, as they are written by this process: a reason to look, not the rows to trust.
    #[must_use]
    pub fn written(&self) -> broadcast::Receiver<AuditRow> {
        self.written.subscribe()
    }

    pub async fn head(&self) -> Result<Head, StoreError> {
        self.store.audit_head().await
    }

    /// Drops rows from before `before_ms`, and puts that on record.
    pub async fn purge(&self, before_ms: i64) -> Result<(), StoreError> {
        let vouch = |anchor: &Head| {
            let entry = Entry {
                actor: "controller".to_owned(),
                rpc: RETENTION.to_owned(),
                detail: dropped(anchor),
                ..Entry::default()
            };
            row(Kind::Event, &entry, "ok", 0)
        };
        self.tell(self.store.purge_audit(before_ms, vouch).await?.into_iter().collect());
        Ok(())
    }

    async fn add(&self, rows: Vec<AuditRow>) -> Result<i64, StoreError> {
        let added = self.store.add_audit(rows).await?;
        let first = added.first().map_or(0, |row| row.sequence);
        self.tell(added);
        Ok(first)
    }

    /// Tells followers of rows that were written.
    fn tell(&self, written: Vec<AuditRow>) {
        for row in written {
            {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if row.sequence > seen.sequence {
                    *seen = Head { sequence: row.sequence, hash: row.hash.clone() };
                }
            }
            // Nobody follows.
            drop(self.written.send(row));
        }
    }
}

impl Unwritten {
    fn shed(&mut self, of: String, entry: &Entry) {
        let many = self.shed.len() >= SHEDDERS && !self.shed.contains_key(&of);
        let of = if many { OTHERS.to_owned() } else { of };
        let (count, last) = self.shed.entry(of).or_default();
        *count += 1;
        last.clone_from(entry);
    }
}

fn row(kind: Kind, entry: &Entry, outcome: &str, intent: i64) -> AuditRow {
    let cut = |text: &str| text.chars().filter(|c| !is_disruptive(*c)).take(MAX_TEXT).collect::<String>();
    AuditRow {
        sequence: 0,
        at_ms: clock::unix_ms(),
        kind: kind.as_str().to_owned(),
        actor: cut(&entry.actor),
        session: cut(&entry.session),
        source: cut(&entry.source),
        rpc: cut(&entry.rpc),
        resource: cut(&entry.resource),
        request_id: cut(&entry.request_id),
        decision: cut(&entry.decision),
        outcome: cut(outcome),
        detail: cut(&entry.detail),
        intent,
        hash: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
