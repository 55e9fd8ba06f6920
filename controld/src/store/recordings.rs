//! Which consoles are recorded, and what is known of the recordings. Their bytes are files.

use super::{Store, StoreError, doing};

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PolicyRow {
    /// `vms/{uuid}`, `pools/{pool}` or `roles/{role}`.
    pub subject: String,
    pub scope: i32,
    pub keeps_input: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct RecordingRow {
    pub id: String,
    /// The VM's uuid.
    pub vm: String,
    pub display_name: String,
    /// The node's name.
    pub node: String,
    /// `user@realm`.
    pub user: String,
    pub kind: i32,
    pub keeps_input: bool,
    pub began_ms: i64,
    pub ended_ms: Option<i64>,
    pub size: i64,
    pub shed: i64,
    pub last_link: Option<Vec<u8>>,
}

/// One that has ended.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Oldest {
    pub id: String,
    pub vm: String,
    pub size: i64,
    pub ended_ms: i64,
}

impl Store {
    pub async fn recording_policies(&self) -> Result<Vec<PolicyRow>, StoreError> {
        let all = "SELECT subject, scope, keeps_input FROM recording_policies ORDER BY subject";
        sqlx::query_as(all).fetch_all(&self.reader).await.map_err(doing("read recording policies"))
    }

    pub async fn put_recording_policy(&self, policy: &PolicyRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO recording_policies (subject, scope, keeps_input) VALUES ($1, $2, $3)
             ON CONFLICT (subject) DO UPDATE SET scope = $2, keeps_input = $3",
        )
        .bind(&policy.subject)
        .bind(policy.scope)
        .bind(policy.keeps_input)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("store a recording policy"))
    }

    pub async fn delete_recording_policy(&self, subject: &str) -> Result<(), StoreError> {
        let gone = sqlx::query("DELETE FROM recording_policies WHERE subject = $1").bind(subject);
        gone.execute(&self.writer).await.map(|_| ()).map_err(doing("delete a recording policy"))
    }

    pub async fn begin_recording(&self, row: &RecordingRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO recordings (id, vm, display_name, node, user, kind, keeps_input, began_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&row.id)
        .bind(&row.vm)
        .bind(&row.display_name)
        .bind(&row.node)
        .bind(&row.user)
        .bind(row.kind)
        .bind(row.keeps_input)
        .bind(row.began_ms)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("store a recording"))
    }

    /// What became of it. No last link: the controller ended first.
    pub async fn end_recording(
        &self,
        id: &str,
        ended_ms: i64,
        (size, shed): (u64, u64),
        last_link: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
        let end = "UPDATE recordings SET ended_ms = $2, size = $3, shed = $4, last_link = $5 WHERE id = $1";
        sqlx::query(end)
            .bind(id)
            .bind(ended_ms)
            .bind(number(size))
            .bind(number(shed))
            .bind(last_link)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("store a recording's end"))
    }

    /// At most `most` that began before (`before_ms`, `before_id`), the newest first; of one VM, or of all.
    pub async fn recordings(
        &self,
        vm: &str,
        (before_ms, before_id): (i64, &str),
        most: i64,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        sqlx::query_as(
            "SELECT * FROM recordings WHERE ($1 = '' OR vm = $1) AND (began_ms, id) < ($2, $3)
             ORDER BY began_ms DESC, id DESC LIMIT $4",
        )
        .bind(vm)
        .bind(before_ms)
        .bind(before_id)
        .bind(most)
        .fetch_all(&self.reader)
        .await
        .map_err(doing("list recordings"))
    }

    pub async fn recording(&self, id: &str) -> Result<Option<RecordingRow>, StoreError> {
        let one = "SELECT * FROM recordings WHERE id = $1";
        sqlx::query_as(one).bind(id).fetch_optional(&self.reader).await.map_err(doing("look a recording up"))
    }

    /// Those that no end is known of.
    pub async fn open_recordings(&self) -> Result<Vec<RecordingRow>, StoreError> {
        let open = "SELECT * FROM recordings WHERE ended_ms IS NULL";
        sqlx::query_as(open).fetch_all(&self.reader).await.map_err(doing("list open recordings"))
    }

    /// The one that ended first, of those of one VM or of all.
    pub async fn oldest_recording(&self, vm: Option<&str>) -> Result<Option<Oldest>, StoreError> {
        sqlx::query_as(
            "SELECT id, vm, size, ended_ms FROM recordings WHERE ended_ms IS NOT NULL AND ($1 IS NULL OR vm = $1)
             ORDER BY ended_ms, id LIMIT 1",
        )
        .bind(vm)
        .fetch_optional(&self.writer)
        .await
        .map_err(doing("find the oldest recording"))
    }

    pub async fn delete_recording(&self, id: &str) -> Result<(), StoreError> {
        let gone = sqlx::query("DELETE FROM recordings WHERE id = $1").bind(id);
        gone.execute(&self.writer).await.map(|_| ()).map_err(doing("forget a recording"))
    }

    /// Bytes of those that have ended, by VM.
    pub async fn recorded_bytes(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let sums = "SELECT vm, sum(size) FROM recordings WHERE ended_ms IS NOT NULL GROUP BY vm";
        let sums: Vec<(String, i64)> =
            sqlx::query_as(sums).fetch_all(&self.reader).await.map_err(doing("sum recordings up"))?;
        Ok(sums.into_iter().map(|(vm, bytes)| (vm, u64::try_from(bytes).unwrap_or_default())).collect())
    }
}
