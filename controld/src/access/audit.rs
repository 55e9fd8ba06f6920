//! The audit log: what was done and refused, on a chain that can't be quietly edited.
//!
//! A change is on record before it is made (intent) and after (outcome). An intent that can't be written refuses the
//! change. A controller that was killed in between finds the intent at its next start, and says that the outcome is not
//! known. The chain shows an edited, removed or reordered row by itself; a truncated end only against a head that was
//! noted elsewhere, which is why the head goes to the journal every minute.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::files;
use horcrux_transport::tasks::Stop;
use tokio::sync::{broadcast, mpsc};

use crate::store::audit::{AuditFilter, AuditRow, Head};
use crate::store::{Store, StoreError};

/// Denials that wait to be written. One that doesn't fit is counted, and told in the next row.
const WAITING: usize = 1024;
/// Rows that a follower may lag behind before it reads them from the store.
const FOLLOWED: usize = 256;
const CHECKPOINT: Duration = Duration::from_secs(60);
/// Rows that are read at a time.
const PAGE: i64 = 1000;
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

/// Writes the log, and reads it.
#[derive(Clone, Debug)]
pub struct Audit {
    store: Store,
    written: broadcast::Sender<AuditRow>,
    denials: mpsc::Sender<AuditRow>,
    shed: Arc<std::sync::atomic::AtomicU64>,
    /// The last row that this process knows of: a log that doesn't hold it any more was cut.
    seen: Arc<Mutex<Head>>,
    head_file: PathBuf,
    /// Noted here too, one line for each head: somewhere that others can't write.
    checkpoint_file: Option<PathBuf>,
}

/// What goes on by itself: denials are written, heads noted.
#[derive(Debug)]
pub struct Scribe {
    audit: Audit,
    denials: mpsc::Receiver<AuditRow>,
}

/// What a check of the whole log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub rows: u64,
    pub head: Head,
    /// The first row that doesn't fit, and in what way.
    pub broken: Option<(i64, String)>,
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
            shed: Arc::default(),
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
        if self.denials.try_send(row(Kind::Denial, entry, "denied", 0)).is_err() {
            self.shed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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

    /// Reads the whole log. It must hold the heads in `noted`, beside what this process saw and noted itself; and where it
    /// doesn't begin with row 1, a row of its own must say that retention made it begin there.
    pub async fn verify(&self, noted: Vec<Head>) -> Result<Verdict, StoreError> {
        let anchor = self.store.audit_anchor().await?;
        let mut verdict = Verdict { head: anchor.clone(), ..Verdict::default() };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(problem) = anchor.contradicts(&seen, &noted) {
            verdict.broken = Some((anchor.sequence + 1, problem));
            return Ok(verdict);
        }
        let all = noted.into_iter().chain([seen]).chain(self.noted());
        let mut wanted: HashMap<i64, Vec<Vec<u8>>> = HashMap::new();
        for head in all.filter(|head| head.sequence > anchor.sequence) {
            wanted.entry(head.sequence).or_default().push(head.hash);
        }
        let mut vouched = anchor.sequence == 0;
        loop {
            let page = self.store.audit_after(&AuditFilter::default(), verdict.head.sequence, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for row in page {
                let problem = check(&row, &verdict.head, wanted.remove(&row.sequence));
                if let Some(problem) = problem {
                    verdict.broken = Some((row.sequence, problem));
                    return Ok(verdict);
                }
                vouched |= row.rpc == RETENTION && row.detail == dropped(&anchor);
                verdict.rows += 1;
                verdict.head = Head { sequence: row.sequence, hash: row.hash };
            }
        }
        let last = verdict.head.sequence;
        if let Some(&missing) = wanted.keys().min() {
            let problem = format!("the log ends at row {last}, and row {missing} was on it before");
            verdict.broken = Some((last + 1, problem));
        } else if !vouched {
            let problem = "the log begins after this row, and nothing on it says that retention dropped what was before";
            verdict.broken = Some((anchor.sequence, problem.to_owned()));
        }
        Ok(verdict)
    }

    /// The head in [`HEAD_FILE`].
    fn noted(&self) -> Option<Head> {
        Head::parse(std::fs::read_to_string(&self.head_file).ok()?.trim())
    }

    /// Notes the head in [`HEAD_FILE`], unless the log no longer holds the one that is noted there: that one proves it.
    async fn note(&self, head: &Head) -> Result<(), StoreError> {
        if let Some(noted) = self.noted()
            && !self.store.holds_audit(&noted).await?
        {
            tracing::error!(
                file = %self.head_file.display(), %noted, %head,
                "the audit log was cut off or replaced: `horcruxctl audit verify` says where. Remove the file if that \
                 was on purpose"
            );
            return Ok(());
        }
        if let Err(error) = files::write_private(&self.head_file, format!("{head}\n").as_bytes()) {
            tracing::warn!(%error, "head of the audit log not noted");
        }
        Ok(())
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

impl Scribe {
    /// Runs until `stop`, and writes what waits then.
    pub async fn run(mut self, stop: Stop) -> Result<(), std::convert::Infallible> {
        let mut every = tokio::time::interval(CHECKPOINT);
        let mut noted = Head::default();
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                _ = every.tick() => self.checkpoint(&mut noted).await,
                _ = self.denials.recv_many(&mut waiting, WAITING) => self.write(&mut waiting).await,
                () = stop.cancelled() => break,
            }
        }
        while let Ok(row) = self.denials.try_recv() {
            waiting.push(row);
        }
        self.write(&mut waiting).await;
        self.checkpoint(&mut noted).await;
        Ok(())
    }

    async fn write(&self, waiting: &mut Vec<AuditRow>) {
        let shed = self.audit.shed.swap(0, std::sync::atomic::Ordering::Relaxed);
        if shed > 0 {
            let entry = Entry {
                actor: "controller".to_owned(),
                detail: format!("{shed} more denials came too fast to be written one by one"),
                ..Entry::default()
            };
            waiting.push(row(Kind::Denial, &entry, "denied", 0));
        }
        let rows = std::mem::take(waiting);
        let count = rows.len();
        if count > 0
            && let Err(error) = self.audit.add(rows).await
        {
            tracing::error!(error = %Chain(&error), denials = count, "denials not written to the audit log");
        }
    }

    async fn checkpoint(&self, noted: &mut Head) {
        match self.audit.head().await {
            Ok(head) if head != *noted && head.sequence > 0 => {
                tracing::info!(%head, "audit log");
                if let Err(error) = self.audit.note(&head).await {
                    tracing::warn!(error = %Chain(&error), "head of the audit log not noted");
                }
                if let Some(file) = &self.audit.checkpoint_file
                    && let Err(error) = append(file, &format!("{} {head}\n", clock::unix_ms()))
                {
                    tracing::warn!(file = %file.display(), %error, "head of the audit log not noted");
                }
                *noted = head;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "head of the audit log not read"),
        }
    }
}

fn append(file: &std::path::Path, line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

fn check(row: &AuditRow, before: &Head, noted: Option<Vec<Vec<u8>>>) -> Option<String> {
    if row.sequence != before.sequence + 1 {
        let last = before.sequence;
        return Some(format!("row {} follows row {last}: what was in between is gone", row.sequence));
    }
    if row.chained_to(&before.hash) != row.hash {
        return Some("its hash does not fit what it says and the row before it".to_owned());
    }
    let other = noted.is_some_and(|hashes| hashes.iter().any(|hash| *hash != row.hash));
    other.then(|| "its hash was another when it was noted".to_owned())
}

fn row(kind: Kind, entry: &Entry, outcome: &str, intent: i64) -> AuditRow {
    let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect::<String>();
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

/// How a row vouches for where the log begins.
fn dropped(anchor: &Head) -> String {
    format!("rows up to {anchor} were dropped")
}

impl Head {
    /// Why the log can't rightly begin after this row; `seen` by this process, `noted` elsewhere.
    fn contradicts(&self, seen: &Self, noted: &[Self]) -> Option<String> {
        let newest = noted.iter().max_by_key(|head| head.sequence);
        let same = |head: &&Self| head.sequence == self.sequence && head.hash != self.hash;
        if seen.sequence < self.sequence {
            Some(format!(
                "the log begins after row {}, and the last that was written is {}",
                self.sequence, seen.sequence
            ))
        } else if noted.iter().find(same).is_some() {
            Some("the row that it begins after had another hash when it was noted".to_owned())
        } else {
            let below = newest.filter(|head| head.sequence < self.sequence)?;
            Some(format!(
                "the log begins after row {}, so that the newest row that was noted, {}, can't be looked for",
                self.sequence, below.sequence
            ))
        }
    }

    /// `SEQUENCE:HASH`, the hash in hex.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sequence, hash) = text.split_once(':')?;
        let digit = |c: u8| char::from(c).to_digit(16);
        let byte = |pair: &[u8]| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok();
        let hash: Option<Vec<u8>> = hash.as_bytes().chunks_exact(2).map(byte).collect();
        hash.filter(|hash| hash.len() == 32)
            .and_then(|hash| Some(Self { sequence: sequence.parse().ok()?, hash }))
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, hex(&self.hash))
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        audit: Audit,
        store: Store,
        _dir: tempfile::TempDir,
    }

    async fn with_rows(count: usize) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let (audit, _scribe) = Audit::open(store.clone(), dir.path(), None).await.unwrap();
        for number in 0..count {
            let entry = Entry { detail: format!("row {number}"), ..Entry::default() };
            audit.event(&entry, "ok").await.unwrap();
        }
        Fixture { audit, store, _dir: dir }
    }

    async fn broken_by(sql: &'static str) -> Option<(i64, String)> {
        let Fixture { audit, store, _dir } = with_rows(5).await;
        assert_eq!(audit.verify(Vec::new()).await.unwrap().broken, None);
        sqlx::raw_sql(sql).execute(&store.writer).await.unwrap();
        audit.verify(Vec::new()).await.unwrap().broken
    }

    #[tokio::test]
    async fn an_edited_removed_reordered_or_truncated_row_is_found() {
        let at = async |sql| broken_by(sql).await.map(|(row, _)| row);
        assert_eq!(at("UPDATE audit SET detail = 'x' WHERE sequence = 3").await, Some(3));
        assert_eq!(at("UPDATE audit SET actor = 'row 2', detail = '' WHERE sequence = 3").await, Some(3));
        assert_eq!(at("DELETE FROM audit WHERE sequence = 2").await, Some(3));
        assert_eq!(at("DELETE FROM audit WHERE sequence = 1").await, Some(2));
        let swap = "UPDATE audit SET sequence = -1 WHERE sequence = 2;
                    UPDATE audit SET sequence = 2 WHERE sequence = 3;
                    UPDATE audit SET sequence = 3 WHERE sequence = -1";
        assert_eq!(at(swap).await, Some(2));
        assert_eq!(at("DELETE FROM audit WHERE sequence > 3").await, Some(4));
        assert_eq!(at("DELETE FROM audit").await, Some(1));
    }

    #[tokio::test]
    async fn a_log_that_was_cut_while_the_controller_was_away_is_found_by_a_noted_head() {
        let Fixture { audit, store, _dir } = with_rows(5).await;
        let noted = audit.head().await.unwrap();
        assert_eq!(Head::parse(&noted.to_string()), Some(noted.clone()));
        sqlx::raw_sql("DELETE FROM audit WHERE sequence > 3").execute(&store.writer).await.unwrap();
        let (again, _scribe) = Audit::open(store, _dir.path(), None).await.unwrap();
        assert_eq!(again.verify(Vec::new()).await.unwrap().broken, None, "the chain alone can't know");
        let verdict = again.verify(vec![noted]).await.unwrap();
        assert_eq!(verdict.broken.map(|(row, _)| row), Some(4));
    }

    #[tokio::test]
    async fn retention_moves_what_the_chain_begins_after() {
        let Fixture { audit, store, _dir } = with_rows(5).await;
        sqlx::raw_sql("UPDATE audit SET at_ms = at_ms + 1000000 WHERE sequence > 3")
            .execute(&store.writer)
            .await
            .unwrap();
        audit.purge(clock::unix_ms() + 500_000).await.unwrap();
        // Rows 4 and 5 were edited above, and that shows; what was dropped doesn't.
        assert_eq!(audit.verify(Vec::new()).await.unwrap().broken.map(|(row, _)| row), Some(4));
        assert_eq!(audit.store.audit_anchor().await.unwrap().sequence, 3);
    }

    #[tokio::test]
    async fn where_the_log_begins_must_be_vouched_for_by_the_log() {
        let Fixture { audit, store, _dir } = with_rows(5).await;
        let noted = audit.head().await.unwrap();
        audit.purge(i64::MAX).await.unwrap();
        assert_eq!(
            audit.store.audit_anchor().await.unwrap().sequence,
            0,
            "the last row stays, and with it all"
        );
        let cut = "INSERT INTO audit_anchor SELECT 1, sequence, hash FROM audit WHERE sequence = 5; DELETE FROM audit";
        sqlx::raw_sql(cut).execute(&store.writer).await.unwrap();
        assert!(
            audit.verify(vec![noted.clone()]).await.unwrap().broken.is_some(),
            "a noted head is where it begins"
        );
        audit.event(&Entry::default(), "ok").await.unwrap();
        assert!(audit.verify(Vec::new()).await.unwrap().broken.is_some(), "nothing vouches for it");
        sqlx::raw_sql("UPDATE audit_anchor SET sequence = 1000").execute(&store.writer).await.unwrap();
        assert!(audit.verify(Vec::new()).await.unwrap().broken.is_some(), "beyond what was ever written");
    }

    #[tokio::test]
    async fn what_retention_dropped_is_vouched_for() {
        let Fixture { audit, _dir, .. } = with_rows(3).await;
        let last = audit.before(&AuditFilter::default(), 0, 1).await.unwrap()[0].at_ms;
        while clock::unix_ms() <= last {
            tokio::task::yield_now().await;
        }
        let kept_from = clock::unix_ms();
        audit.event(&Entry::default(), "ok").await.unwrap();
        audit.purge(kept_from).await.unwrap();
        let verdict = audit.verify(Vec::new()).await.unwrap();
        assert_eq!((verdict.broken, verdict.rows), (None, 2), "the kept row, and the one that vouches");
        let noted = audit.head().await.unwrap();
        assert_eq!(audit.verify(vec![noted]).await.unwrap().broken, None);
    }

    #[tokio::test]
    async fn an_intent_without_an_outcome_is_resolved_once() {
        let Fixture { audit, _dir, .. } = with_rows(0).await;
        let intent = audit.intent(&Entry::default()).await.unwrap();
        assert_eq!(audit.resolve().await.unwrap(), 1);
        assert_eq!(audit.resolve().await.unwrap(), 0);
        let rows = audit.before(&AuditFilter::default(), 0, 10).await.unwrap();
        assert_eq!((rows[0].kind.as_str(), rows[0].intent), ("outcome", intent));
        assert!(rows[0].outcome.starts_with("unknown"));
    }
}
