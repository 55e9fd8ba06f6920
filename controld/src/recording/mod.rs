//! Recordings of consoles: which are made, by what, and for how long they are kept.
//!
//! A recording is one viewer's console, in a file of the state directory, with a row in the store. Where a policy demands one
//! and it can't begin, the console isn't opened. Once it has begun, the console never waits for it: [`writer`] says what
//! becomes of what the disk can't take. What is on disk is chained ([`chain`]), and checked when it is read ([`check`]).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_proto::name::Resource;
use horcrux_proto::v1::{ConsoleKind, RecordingScope};
use horcrux_transport::{clock, files};
use tokio_util::task::TaskTracker;

use self::space::{Space, file};
use self::tape::{Tape, Title};
use self::writer::{Course, Writer};
use crate::access::policy::Grant;
use crate::access::rights::Labels;
use crate::app::Counts;
use crate::store::recordings::{PolicyRow, RecordingRow};
use crate::store::{Store, StoreError};

mod chain;
mod check;
pub mod reading;
mod space;
mod tape;
pub mod writer;

use self::writer::Recorder;

/// In the state directory.
const DIRECTORY: &str = "recordings";

/// All recordings.
#[derive(Clone, Debug)]
pub struct Recordings {
    dir: PathBuf,
    store: Store,
    space: Space,
    tasks: TaskTracker,
    open: Arc<Mutex<HashMap<String, Arc<Course>>>>,
}

/// A recording that a policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub keeps_input: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("make {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("recordings take all the room they may have")]
    Full,
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("keep the list of recordings")]
    Store(#[source] StoreError),
}

impl Recordings {
    /// Takes over what is there. Those that went on when the controller ended are ended here.
    pub async fn open(
        state_dir: &Path,
        store: Store,
        counts: Counts,
        quota: u64,
        tasks: TaskTracker,
    ) -> Result<Self, RecordingError> {
        let dir = state_dir.join(DIRECTORY);
        files::private_dir(&dir).map_err(|source| RecordingError::Directory { path: dir.clone(), source })?;
        for row in store.open_recordings().await.map_err(RecordingError::Store)? {
            cut_short(&dir, &store, &row).await.map_err(RecordingError::Store)?;
        }
        let taken = store.recorded_bytes().await.map_err(RecordingError::Store)?;
        let space = Space::new(dir.clone(), store.clone(), counts, quota, &taken);
        Ok(Self { dir, store, space, tasks, open: Arc::default() })
    }

    /// Begins one; without it the console mustn't be opened.
    pub async fn begin(&self, row: RecordingRow, kind: ConsoleKind) -> Result<Recorder, RecordingError> {
        let path = file(&self.dir, &row.id);
        let title = Title {
            kind,
            began_ms: row.began_ms,
            vm: row.vm.clone(),
            display_name: row.display_name.clone(),
        };
        let (tape, header) = Tape::begin(&title);
        let length = u64::try_from(header.len()).unwrap_or(u64::MAX);
        let share = self.space.of(&row.vm);
        if !share.begin(length).await {
            return Err(RecordingError::Full);
        }
        // Before the file: one that nothing knows of would stay for good.
        if let Err(error) = self.store.begin_recording(&row).await {
            share.give(length);
            return Err(RecordingError::Store(error));
        }
        let made = {
            let (path, header) = (path.clone(), header.clone());
            tokio::task::spawn_blocking(move || -> io::Result<File> {
                files::create_private(&path, &header)?;
                File::options().write(true).open(&path)
            })
        };
        let made = made.await.unwrap_or_else(|_| Err(io::Error::other("the writer ended")));
        let file = match made {
            Ok(file) => file,
            Err(source) => {
                share.give(length);
                self.store.delete_recording(&row.id).await.map_err(RecordingError::Store)?;
                return Err(RecordingError::Write { path, source });
            }
        };
        let (mut recorder, course, pieces) = Recorder::new(row.keeps_input);
        let writer = Writer::new(row.id.clone(), file, share, &recorder, (tape, &header));
        self.opened().insert(row.id.clone(), Arc::clone(&course));
        let (all, id) = (self.clone(), row.id);
        let task = self.tasks.spawn(async move {
            let written = writer.run(pieces).await;
            let (size, now_ms) = (course.size.load(Ordering::Relaxed), clock::unix_ms());
            let ended = all.store.end_recording(&id, now_ms, (size, written.shed), Some(&written.link)).await;
            if let Err(error) = ended {
                let error = horcrux_transport::error::Chain(&error);
                tracing::error!(recording = id, %error, "a recording's end is not on record");
            }
            all.opened().remove(&id);
            all.space.has_ended();
            written
        });
        recorder.is_written_by(task);
        Ok(recorder)
    }

    /// At most `most` before a place in the list, the newest first, as they stand now.
    pub async fn list(
        &self,
        vm: &str,
        before: (i64, &str),
        most: i64,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let mut rows = self.store.recordings(vm, before, most).await?;
        let open = self.opened();
        rows.iter_mut().filter(|row| row.ended_ms.is_none()).for_each(|row| as_it_stands(&open, row));
        Ok(rows)
    }

    /// Drops those that have ended longer ago than `kept`.
    pub async fn purge(&self, now_ms: i64, kept: Duration) {
        let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        self.space.drop_before(now_ms.saturating_sub(kept_ms)).await;
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<String, Arc<Course>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_it_stands(open: &HashMap<String, Arc<Course>>, row: &mut RecordingRow) {
    if let Some(course) = open.get(&row.id) {
        let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
        row.size = number(course.size.load(Ordering::Relaxed));
        row.shed = number(course.shed.load(Ordering::Relaxed));
    }
}

async fn cut_short(dir: &Path, store: &Store, row: &RecordingRow) -> Result<(), StoreError> {
    let Ok(found) = std::fs::metadata(file(dir, &row.id)) else {
        tracing::warn!(recording = row.id, "a recording that had begun isn't there");
        return store.delete_recording(&row.id).await;
    };
    let since_epoch = found.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let ended_ms = since_epoch.and_then(|at| i64::try_from(at.as_millis()).ok()).unwrap_or(row.began_ms);
    tracing::warn!(recording = row.id, "a recording went on when the controller ended");
    store.end_recording(&row.id, ended_ms, (found.len(), 0), None).await
}

/// What the policies say of a console of this VM, which these grants let be opened: the strongest counts.
#[must_use]
pub fn demanded<'a>(
    policies: &[PolicyRow],
    kind: ConsoleKind,
    vm: &Resource,
    labels: &Labels,
    by: impl Iterator<Item = &'a Grant>,
) -> Option<Demand> {
    let mut subjects = vec![vm.to_string()];
    subjects.extend(labels.pools.get(vm).into_iter().flatten().map(|pool| format!("pools/{pool}")));
    subjects.extend(by.map(|grant| format!("roles/{}", grant.role)));
    let records = |policy: &&PolicyRow| match RecordingScope::try_from(policy.scope) {
        Ok(RecordingScope::All) => true,
        Ok(RecordingScope::Serial) => kind == ConsoleKind::Serial,
        Ok(RecordingScope::Never | RecordingScope::Unspecified) => false,
        // Of a newer controller: rather too much than too little.
        Err(_) => true,
    };
    let that = policies.iter().filter(|policy| subjects.contains(&policy.subject)).filter(records);
    that.map(|policy| policy.keeps_input).reduce(|a, b| a || b).map(|keeps_input| Demand { keeps_input })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
