//! What goes on by itself: denials are written, and heads are noted where a cut log is found by them.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::files;
use horcrux_transport::tasks::Stop;
use tokio::sync::mpsc;

use super::{Audit, Entry, Kind, OTHERS, WAITING, row};
use crate::store::StoreError;
use crate::store::audit::{AuditRow, Head};

const CHECKPOINT: Duration = Duration::from_secs(60);

/// The task that does it.
#[derive(Debug)]
pub struct Scribe {
    pub(super) audit: Audit,
    pub(super) denials: mpsc::Receiver<AuditRow>,
}

impl Audit {
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
}

impl Scribe {
    /// Runs until `stop`, and writes what waits then.
    pub async fn run(mut self, stop: Stop) -> Result<(), Infallible> {
        let mut every = tokio::time::interval(CHECKPOINT);
        let mut noted = Head::default();
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                _ = every.tick() => {
                    self.write(&mut self.shed()).await;
                    self.checkpoint(&mut noted).await;
                }
                _ = self.denials.recv_many(&mut waiting, WAITING) => self.write(&mut waiting).await,
                () = stop.cancelled() => break,
            }
        }
        while let Ok(row) = self.denials.try_recv() {
            waiting.push(row);
        }
        waiting.extend(self.shed());
        self.write(&mut waiting).await;
        self.checkpoint(&mut noted).await;
        Ok(())
    }

    /// Says of denials that were not written how many there were.
    fn shed(&self) -> Vec<AuditRow> {
        let mut unwritten = self.audit.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let told = std::mem::take(&mut unwritten.shed).into_iter().map(|(of, (count, last))| {
            let more = format!("{count} more denials came too fast to be written one by one");
            let entry = if of == OTHERS {
                Entry { actor: of, detail: more, ..Entry::default() }
            } else {
                Entry { detail: format!("{more}: this was the last"), ..last }
            };
            row(Kind::Denial, &entry, "denied", 0)
        });
        told.collect()
    }

    async fn write(&self, waiting: &mut Vec<AuditRow>) {
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

fn append(file: &Path, line: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}
