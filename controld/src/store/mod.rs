//! What outlives a restart. Two SQLite files: `control.db` for what must never be lost (`synchronous=FULL`), `recent.db`
//! for the last hour of samples (`synchronous=NORMAL`: after a power cut its last moments may be gone, never its
//! integrity).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub mod audit;
pub mod consoles;
pub mod links;
pub mod nodes;
pub mod policy;
pub mod recent;
pub mod recordings;
pub mod requests;
pub mod sessions;
pub mod tokens;
pub mod users;

/// The control plane's record.
#[derive(Clone, Debug)]
pub struct Store {
    /// One connection: SQLite has one writer, and queueing here is cheaper than being told "busy".
    pub(crate) writer: SqlitePool,
    reader: SqlitePool,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error("bring the schema of {} up to date", path.display())]
    Migrate {
        path: PathBuf,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    #[error("{doing}")]
    Query {
        doing: &'static str,
        #[source]
        source: sqlx::Error,
    },
}

const FILE: &str = "control.db";
/// How long a query waits for a connection or a lock before it fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// Concurrent reads; each is short.
const READERS: u32 = 4;

impl Store {
    /// Whether a controller keeps its record in `dir`.
    pub fn exists(dir: &Path) -> io::Result<bool> {
        dir.join(FILE).try_exists()
    }

    /// Opens or makes `control.db` in `dir`.
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let (writer, reader) = pools(&path, SqliteSynchronous::Full).await?;
        let migrated = sqlx::migrate!("migrations/control").run(&writer).await;
        migrated.map_err(|source| StoreError::Migrate { path, source })?;
        Ok(Self { writer, reader })
    }

    /// Changes when another process or controller wrote.
    pub async fn version(&self) -> Result<i64, StoreError> {
        // Of the one connection that writes: what it writes itself doesn't count.
        let version = sqlx::query_scalar("PRAGMA data_version").fetch_one(&self.writer).await;
        version.map_err(doing("look for changes"))
    }

    /// Reads something small: the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let one = sqlx::query_scalar::<_, i64>("SELECT 1").fetch_one(&self.reader).await;
        one.map(|_| ()).map_err(doing("reach the database"))
    }
}

async fn pools(file: &Path, synchronous: SqliteSynchronous) -> Result<(SqlitePool, SqlitePool), StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(PATIENCE);
    let failed = |source| StoreError::Open { path: file.to_owned(), source };
    let pool = |size| SqlitePoolOptions::new().max_connections(size).acquire_timeout(PATIENCE);
    let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
    let reader = pool(READERS).connect_with(options).await.map_err(failed)?;
    Ok((writer, reader))
}

/// `$first, $first+1, …`, for a list of values.
fn places(first: usize, count: usize) -> String {
    let all: Vec<String> = (first..first + count).map(|place| format!("${place}")).collect();
    all.join(", ")
}

fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { doing, source }
}
