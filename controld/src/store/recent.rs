//! The last hour of samples, as they came in. A batch is stored once however often it comes (node, epoch, sequence), and
//! is acknowledged after its commit.

use std::path::Path;

use horcrux_proto::agent::v1::{Inventory, SampleBatch, Series};
use horcrux_transport::error::Chain;
use prost::Message as _;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteSynchronous;

use super::{StoreError, doing, pools};

/// How far back samples are kept.
pub const KEPT_MS: i64 = 3_600_000;

#[derive(Clone, Debug)]
pub struct Recent {
    writer: SqlitePool,
    reader: SqlitePool,
}

/// Something to keep.
#[derive(Clone, Debug)]
pub enum Record {
    /// What a batch declared is kept apart from it, for as long as samples of its stream.
    Batch {
        node: String,
        /// When the stream began; later ones have greater numbers.
        stream: i64,
        epoch: u64,
        declared: Vec<Series>,
        batch: Box<SampleBatch>,
    },
    Inventory {
        node: String,
        inventory: Box<Inventory>,
    },
}

/// One node's past, in the order in which it came, with what its ids stand for.
#[derive(Debug, Default)]
pub struct Past {
    /// By stream.
    pub series: Vec<(i64, Series)>,
    /// By stream.
    pub batches: Vec<(i64, SampleBatch)>,
}

impl Recent {
    /// Opens or makes `recent.db` in `dir`. It holds one hour: where it can't be used, it is begun anew.
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("recent.db");
        match Self::open_file(&path).await {
            Ok(recent) => Ok(recent),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the last hour of samples can't be read: begun anew");
                for ending in ["", "-wal", "-shm"] {
                    let part = dir.join(format!("recent.db{ending}"));
                    match std::fs::remove_file(&part) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            tracing::warn!(file = %part.display(), %error, "not removed");
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
                Self::open_file(&path).await
            }
        }
    }

    async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let (writer, reader) = pools(path, SqliteSynchronous::Normal).await?;
        let migrated = sqlx::migrate!("migrations/recent").run(&writer).await;
        migrated.map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        Ok(Self { writer, reader })
    }

    /// Stores records in one transaction.
    pub async fn store(&self, records: &[Record], received_ms: i64) -> Result<(), StoreError> {
        let failed = "store samples";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        for record in records {
            match record {
                Record::Batch { node, stream, epoch, declared, batch } => {
                    let epoch = epoch.cast_signed();
                    if !declared.is_empty() {
                        let only = SampleBatch { declared: declared.clone(), ..SampleBatch::default() };
                        sqlx::query(
                            "INSERT INTO declarations (node, stream, epoch, sequence, received_ms, batch)
                             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                        )
                        .bind(node)
                        .bind(stream)
                        .bind(epoch)
                        .bind(batch.sequence.cast_signed())
                        .bind(received_ms)
                        .bind(only.encode_to_vec())
                        .execute(&mut *tx)
                        .await
                        .map_err(doing(failed))?;
                    }
                    sqlx::query(
                        "INSERT INTO batches (node, epoch, sequence, taken_ms, received_ms, stream, batch)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)
                         ON CONFLICT DO NOTHING",
                    )
                    .bind(node)
                    .bind(epoch)
                    .bind(batch.sequence.cast_signed())
                    .bind(batch.taken_unix_ms)
                    .bind(received_ms)
                    .bind(stream)
                    .bind(batch.encode_to_vec())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                }
                Record::Inventory { node, inventory } => {
                    sqlx::query(
                        "INSERT INTO inventories (node, inventory) VALUES ($1, $2)
                         ON CONFLICT (node) DO UPDATE SET inventory = excluded.inventory",
                    )
                    .bind(node)
                    .bind(inventory.encode_to_vec())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                }
            }
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Drops what is older than [`KEPT_MS`], and what streams declared that have no sample left.
    pub async fn purge(&self, now_ms: i64) -> Result<(), StoreError> {
        let failed = "drop old samples";
        sqlx::query("DELETE FROM batches WHERE received_ms < $1")
            .bind(now_ms - KEPT_MS)
            .execute(&self.writer)
            .await
            .map_err(doing(failed))?;
        // Once a stream has been followed by another for as long, none of its samples are left.
        sqlx::query(
            "DELETE FROM declarations WHERE EXISTS (SELECT 1 FROM declarations d
             WHERE d.node = declarations.node AND d.stream > declarations.stream AND d.received_ms < $1)",
        )
        .bind(now_ms - KEPT_MS)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing(failed))
    }

    /// Forgets a node.
    pub async fn forget(&self, node: &str) -> Result<(), StoreError> {
        for table in ["batches", "declarations", "inventories"] {
            sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE node = $1")))
                .bind(node)
                .execute(&self.writer)
                .await
                .map_err(doing("forget a node's samples"))?;
        }
        Ok(())
    }

    /// What a node reported since `from_ms`.
    pub async fn past(&self, node: &str, from_ms: i64) -> Result<Past, StoreError> {
        let failed = "read recent samples";
        let batches: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT stream, batch FROM batches WHERE node = $1 AND taken_ms >= $2 ORDER BY received_ms, epoch, sequence",
        )
        .bind(node)
        .bind(from_ms)
        .fetch_all(&self.reader)
        .await
        .map_err(doing(failed))?;
        let earliest = batches.iter().map(|(stream, _)| *stream).min().unwrap_or(i64::MAX);
        let declared: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT stream, batch FROM declarations WHERE node = $1 AND stream >= $2 ORDER BY stream, epoch, sequence",
        )
        .bind(node)
        .bind(earliest)
        .fetch_all(&self.reader)
        .await
        .map_err(doing(failed))?;
        // What we can't decode, we didn't write: an older version's rows age out within the hour.
        let decode =
            |(stream, bytes): (i64, Vec<u8>)| Some((stream, SampleBatch::decode(bytes.as_slice()).ok()?));
        let declared = declared.into_iter().filter_map(decode);
        Ok(Past {
            series: declared
                .flat_map(|(stream, batch)| batch.declared.into_iter().map(move |series| (stream, series)))
                .collect(),
            batches: batches.into_iter().filter_map(decode).collect(),
        })
    }

    /// The newest complete inventory of each node.
    pub async fn inventories(&self) -> Result<Vec<(String, Inventory)>, StoreError> {
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT node, inventory FROM inventories")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("read inventories"))?;
        let decode =
            |(node, bytes): (String, Vec<u8>)| Some((node, Inventory::decode(bytes.as_slice()).ok()?));
        Ok(rows.into_iter().filter_map(decode).collect())
    }
}
