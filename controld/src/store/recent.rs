//! The last hour of samples, as they came in. A batch is stored once however often it comes (node, epoch, sequence), and
//! is acknowledged after its commit.

use std::path::Path;

use horcrux_proto::agent::v1::{Event, Gap, Inventory, SampleBatch, Series};
use horcrux_proto::v1::RecordedGap;
use horcrux_transport::error::Chain;
use prost::Message as _;
use sqlx::sqlite::SqliteSynchronous;
use sqlx::{SqliteConnection, SqlitePool};

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
    Event {
        node: String,
        epoch: u64,
        event: Box<Event>,
    },
    /// What is stored of it all the same stays.
    Gap {
        node: String,
        epoch: u64,
        gap: Gap,
    },
    Inventory {
        node: String,
        inventory: Box<Inventory>,
    },
}

/// One node's past, in the order in which it was taken, with what its ids stand for.
#[derive(Debug, Default)]
pub struct Past {
    /// By epoch.
    pub series: Vec<(i64, Series)>,
    /// By epoch.
    pub batches: Vec<(i64, SampleBatch)>,
    /// Of one reason and time, oldest first.
    pub gaps: Vec<RecordedGap>,
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
                Record::Event { node, epoch, event } => {
                    sqlx::query(
                        "INSERT INTO events (node, epoch, sequence, at_ms, received_ms, event)
                         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                    )
                    .bind(node)
                    .bind(epoch.cast_signed())
                    .bind(event.sequence.cast_signed())
                    .bind(event.at_unix_ms)
                    .bind(received_ms)
                    .bind(event.encode_to_vec())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                }
                Record::Gap { node, epoch, gap } => {
                    for (first, last) in missing(&mut tx, node, epoch.cast_signed(), gap).await? {
                        sqlx::query(
                            "INSERT INTO gaps (node, epoch, first_sequence, last_sequence, from_ms, until_ms,
                             received_ms, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                        )
                        .bind(node)
                        .bind(epoch.cast_signed())
                        .bind(first)
                        .bind(last)
                        .bind(gap.from_unix_ms)
                        .bind(gap.until_unix_ms)
                        .bind(received_ms)
                        .bind(&gap.reason)
                        .execute(&mut *tx)
                        .await
                        .map_err(doing(failed))?;
                    }
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
        for table in ["batches", "events", "gaps"] {
            sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE received_ms < $1")))
                .bind(now_ms - KEPT_MS)
                .execute(&self.writer)
                .await
                .map_err(doing(failed))?;
        }
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
        for table in ["batches", "declarations", "events", "gaps", "inventories"] {
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
            "SELECT epoch, batch FROM batches WHERE node = $1 AND taken_ms >= $2 ORDER BY epoch, sequence",
        )
        .bind(node)
        .bind(from_ms)
        .fetch_all(&self.reader)
        .await
        .map_err(doing(failed))?;
        let earliest = batches.first().map_or(i64::MAX, |(epoch, _)| *epoch);
        let declared: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT epoch, batch FROM declarations WHERE node = $1 AND epoch >= $2 ORDER BY epoch, stream, sequence",
        )
        .bind(node)
        .bind(earliest)
        .fetch_all(&self.reader)
        .await
        .map_err(doing(failed))?;
        let gaps: Vec<(i64, i64, i64, String)> = sqlx::query_as(
            "SELECT from_ms, until_ms, sum(last_sequence - first_sequence + 1), reason FROM gaps
             WHERE node = $1 AND until_ms >= $2 GROUP BY from_ms, until_ms, reason ORDER BY from_ms, until_ms",
        )
        .bind(node)
        .bind(from_ms)
        .fetch_all(&self.reader)
        .await
        .map_err(doing(failed))?;
        // What we can't decode, we didn't write: an older version's rows age out within the hour.
        let decode =
            |(epoch, bytes): (i64, Vec<u8>)| Some((epoch, SampleBatch::decode(bytes.as_slice()).ok()?));
        let declared = declared.into_iter().filter_map(decode);
        Ok(Past {
            series: declared
                .flat_map(|(epoch, batch)| batch.declared.into_iter().map(move |series| (epoch, series)))
                .collect(),
            batches: batches.into_iter().filter_map(decode).collect(),
            gaps: gaps.into_iter().map(recorded).collect(),
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

fn recorded((from_unix_ms, until_unix_ms, records, reason): (i64, i64, i64, String)) -> RecordedGap {
    RecordedGap { from_unix_ms, until_unix_ms, records: records.unsigned_abs(), reason }
}

/// The sequences of a gap that are not stored, and in no other gap: a node that began again may not know what was.
async fn missing(
    tx: &mut SqliteConnection,
    node: &str,
    epoch: i64,
    gap: &Gap,
) -> Result<Vec<(i64, i64)>, StoreError> {
    let (first, last) = (gap.first_sequence.cast_signed(), gap.last_sequence.cast_signed());
    let there: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT sequence, sequence FROM batches WHERE node = $1 AND epoch = $2 AND sequence BETWEEN $3 AND $4
         UNION ALL
         SELECT sequence, sequence FROM events WHERE node = $1 AND epoch = $2 AND sequence BETWEEN $3 AND $4
         UNION ALL
         SELECT first_sequence, last_sequence FROM gaps
         WHERE node = $1 AND epoch = $2 AND first_sequence <= $4 AND last_sequence >= $3
         ORDER BY 1",
    )
    .bind(node)
    .bind(epoch)
    .bind(first)
    .bind(last)
    .fetch_all(tx)
    .await
    .map_err(doing("look for what a gap leaves"))?;
    Ok(between(first, last, &there))
}

/// What `there`, in order, leaves of a range.
fn between(first: i64, last: i64, there: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let (mut left, mut next) = (Vec::new(), first);
    for &(from, until) in there {
        if from > next {
            left.push((next, from - 1));
        }
        next = next.max(until.saturating_add(1));
    }
    if next <= last {
        left.push((next, last));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_is_stored_nowhere() {
        assert_eq!(between(1, 9, &[]), [(1, 9)]);
        assert_eq!(between(1, 9, &[(1, 1), (3, 3), (3, 5), (9, 9)]), [(2, 2), (6, 8)]);
        assert_eq!(between(4, 6, &[(1, 4), (5, 8)]), []);
    }

    #[tokio::test]
    async fn what_comes_again_is_stored_once_and_a_gap_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let recent = Recent::open(dir.path()).await.unwrap();
        let batch = |sequence| Record::Batch {
            node: "web1".to_owned(),
            stream: 1,
            epoch: 7,
            declared: Vec::new(),
            batch: Box::new(SampleBatch { sequence, taken_unix_ms: 5, ..SampleBatch::default() }),
        };
        let event = |sequence| Record::Event {
            node: "web1".to_owned(),
            epoch: 7,
            event: Box::new(Event { sequence, ..Event::default() }),
        };
        let gap = |first_sequence, last_sequence| Record::Gap {
            node: "web1".to_owned(),
            epoch: 7,
            gap: Gap { first_sequence, last_sequence, ..Gap::default() },
        };
        let all = [batch(1), event(2), batch(3), batch(3), event(2), gap(1, 9), gap(4, 12), batch(1)];
        recent.store(&all, 5).await.unwrap();
        let count = async |query: &'static str| -> i64 {
            sqlx::query_scalar(query).fetch_one(&recent.reader).await.unwrap()
        };
        assert_eq!(count("SELECT count(*) FROM batches").await, 2);
        assert_eq!(count("SELECT count(*) FROM events").await, 1);
        assert_eq!(count("SELECT sum(last_sequence - first_sequence + 1) FROM gaps").await, 9);
    }
}
