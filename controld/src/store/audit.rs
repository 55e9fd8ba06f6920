//! The audit log's rows. Each is chained to the one before it in the transaction that adds it, so that two processes can
//! write to it.

use aws_lc_rs::digest::{Context, SHA256};

use super::{Store, StoreError, doing};

/// A row as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct AuditRow {
    pub sequence: i64,
    pub at_ms: i64,
    pub kind: String,
    pub actor: String,
    pub session: String,
    pub source: String,
    pub rpc: String,
    pub resource: String,
    pub request_id: String,
    pub decision: String,
    pub outcome: String,
    pub detail: String,
    pub intent: i64,
    pub hash: Vec<u8>,
}

/// A place in the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub sequence: i64,
    /// Empty before the first row.
    pub hash: Vec<u8>,
}

/// Which rows.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor: String,
    /// A resource, or its beginning up to a `/`; what is on record by its path (`/vms/…`) is found too.
    pub resource: String,
    pub since_ms: i64,
    pub until_ms: i64,
}

const ROW: &str =
    "SELECT sequence, at_ms, kind, actor, session, source, rpc, resource, request_id, decision, outcome,
     detail, intent, hash FROM audit";
// No LIKE: `_` is part of many names, and would stand for any character.
const MATCHES: &str = "($1 = '' OR actor = $1)
     AND ($2 = '' OR ltrim(resource, '/') = $2 OR substr(ltrim(resource, '/'), 1, length($2) + 1) = $2 || '/')
     AND at_ms >= $3 AND ($4 = 0 OR at_ms < $4)";

impl AuditRow {
    /// What its hash must be: SHA-256 over the hash before it and all fields, each with its length.
    #[must_use]
    pub fn chained_to(&self, before: &[u8]) -> Vec<u8> {
        let mut context = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        add(before);
        for number in [self.sequence, self.at_ms, self.intent] {
            add(&number.to_be_bytes());
        }
        for text in [
            &self.kind,
            &self.actor,
            &self.session,
            &self.source,
            &self.rpc,
            &self.resource,
            &self.request_id,
            &self.decision,
            &self.outcome,
            &self.detail,
        ] {
            add(text.as_bytes());
        }
        context.finish().as_ref().to_vec()
    }
}

impl Store {
    /// Adds rows in one transaction; returns them with their sequence and hash.
    pub async fn add_audit(&self, rows: Vec<AuditRow>) -> Result<Vec<AuditRow>, StoreError> {
        let failed = "write the audit log";
        // Immediately: the head that is read must be the one that is written after.
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(doing(failed))?;
        let added = append(&mut tx, rows).await?;
        tx.commit().await.map_err(doing(failed))?;
        Ok(added)
    }

    /// The last row's place, or the anchor's where no row is left.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        let mut reader = self.reader.acquire().await.map_err(doing("read the audit log"))?;
        head(&mut reader).await
    }

    /// Whether the log holds this row as it is here, or held it until retention dropped it.
    pub async fn holds_audit(&self, row: &Head) -> Result<bool, StoreError> {
        if row.sequence <= self.audit_anchor().await?.sequence {
            return Ok(true);
        }
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM audit WHERE sequence = $1 AND hash = $2)")
            .bind(row.sequence)
            .bind(&row.hash)
            .fetch_one(&self.reader)
            .await
            .map_err(doing("read the audit log"))
    }

    /// What the chain begins after.
    pub async fn audit_anchor(&self) -> Result<Head, StoreError> {
        let mut reader = self.reader.acquire().await.map_err(doing("read the audit log"))?;
        anchor(&mut reader).await
    }

    /// The newest rows that match, before `before` where that is not 0.
    pub async fn audit_before(
        &self,
        filter: &AuditFilter,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let page = "($5 = 0 OR sequence < $5) ORDER BY sequence DESC LIMIT $6";
        self.audit_rows(format!("{ROW} WHERE {MATCHES} AND {page}"), filter, before, limit).await
    }

    /// The oldest rows that match, after `after`.
    pub async fn audit_after(
        &self,
        filter: &AuditFilter,
        after: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let page = "sequence > $5 ORDER BY sequence LIMIT $6";
        self.audit_rows(format!("{ROW} WHERE {MATCHES} AND {page}"), filter, after, limit).await
    }

    async fn audit_rows(
        &self,
        query: String,
        filter: &AuditFilter,
        place: i64,
        limit: i64,
    ) -> Result<Vec<AuditRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(&filter.actor)
            .bind(filter.resource.trim_matches('/'))
            .bind(filter.since_ms)
            .bind(filter.until_ms)
            .bind(place)
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(doing("read the audit log"))
    }

    /// Intents whose outcome is not on record.
    pub async fn unresolved_intents(&self) -> Result<Vec<AuditRow>, StoreError> {
        let query = format!(
            "{ROW} a WHERE a.kind = 'intent'
             AND NOT EXISTS (SELECT 1 FROM audit o WHERE o.intent = a.sequence) ORDER BY sequence"
        );
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("read the audit log"))
    }

    /// Drops rows from before `before_ms`, from the oldest on, moves the anchor, and adds the row by which `vouch` says so: all
    /// of it or nothing. Returns that row.
    pub async fn purge_audit(
        &self,
        before_ms: i64,
        vouch: impl FnOnce(&Head) -> AuditRow + Send,
    ) -> Result<Option<AuditRow>, StoreError> {
        let failed = "drop old audit rows";
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(doing(failed))?;
        // Up to the first row that is kept: clocks may have gone backwards.
        let kept: Option<i64> = sqlx::query_scalar("SELECT min(sequence) FROM audit WHERE at_ms >= $1")
            .bind(before_ms)
            .fetch_one(&mut *tx)
            .await
            .map_err(doing(failed))?;
        let last: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT sequence, hash FROM audit WHERE $1 IS NOT NULL AND sequence < $1 ORDER BY sequence DESC LIMIT 1",
        )
        .bind(kept)
        .fetch_optional(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let Some((sequence, hash)) = last else { return Ok(None) };
        sqlx::query("DELETE FROM audit WHERE sequence <= $1")
            .bind(sequence)
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        sqlx::query(
            "INSERT INTO audit_anchor (one, sequence, hash) VALUES (1, $1, $2)
             ON CONFLICT (one) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash",
        )
        .bind(sequence)
        .bind(&hash)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let vouched = append(&mut tx, vec![vouch(&Head { sequence, hash })]).await?;
        tx.commit().await.map_err(doing(failed))?;
        Ok(vouched.into_iter().next())
    }
}

/// Adds rows at the end of the chain.
async fn append(
    connection: &mut sqlx::SqliteConnection,
    rows: Vec<AuditRow>,
) -> Result<Vec<AuditRow>, StoreError> {
    let failed = "write the audit log";
    let mut head = head(connection).await?;
    let mut added = Vec::with_capacity(rows.len());
    for mut row in rows {
        row.sequence = head.sequence + 1;
        row.hash = row.chained_to(&head.hash);
        sqlx::query(
            "INSERT INTO audit (sequence, at_ms, kind, actor, session, source, rpc, resource, request_id,
             decision, outcome, detail, intent, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(row.sequence)
        .bind(row.at_ms)
        .bind(&row.kind)
        .bind(&row.actor)
        .bind(&row.session)
        .bind(&row.source)
        .bind(&row.rpc)
        .bind(&row.resource)
        .bind(&row.request_id)
        .bind(&row.decision)
        .bind(&row.outcome)
        .bind(&row.detail)
        .bind(row.intent)
        .bind(&row.hash)
        .execute(&mut *connection)
        .await
        .map_err(doing(failed))?;
        head = Head { sequence: row.sequence, hash: row.hash.clone() };
        added.push(row);
    }
    Ok(added)
}

async fn head(connection: &mut sqlx::SqliteConnection) -> Result<Head, StoreError> {
    let last: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await
            .map_err(doing("read the audit log"))?;
    match last {
        Some((sequence, hash)) => Ok(Head { sequence, hash }),
        None => anchor(connection).await,
    }
}

async fn anchor(connection: &mut sqlx::SqliteConnection) -> Result<Head, StoreError> {
    let anchor: Option<(i64, Vec<u8>)> = sqlx::query_as("SELECT sequence, hash FROM audit_anchor")
        .fetch_optional(connection)
        .await
        .map_err(doing("read the audit log"))?;
    Ok(anchor.map(|(sequence, hash)| Head { sequence, hash }).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_resource_is_found_by_itself_and_by_its_beginning_and_by_nothing_that_looks_like_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let of = |resource: &str| AuditRow {
            kind: "event".to_owned(),
            resource: resource.to_owned(),
            ..AuditRow::default()
        };
        let resources = ["containers/n1/a_b", "/containers/n1/axb", "pools/a%", "pools/abc", "users/é"];
        store.add_audit(resources.map(of).to_vec()).await.unwrap();
        let found = async |resource: &str| {
            let filter = AuditFilter { resource: resource.to_owned(), ..AuditFilter::default() };
            let rows = store.audit_after(&filter, 0, 10).await.unwrap();
            rows.into_iter().map(|row| row.resource).collect::<Vec<_>>()
        };
        assert_eq!(found("containers/n1/a_b").await, ["containers/n1/a_b"]);
        assert_eq!(found("containers/n1").await, ["containers/n1/a_b", "/containers/n1/axb"]);
        assert_eq!(found("/pools/").await, ["pools/a%", "pools/abc"]);
        assert_eq!(found("users").await, ["users/é"]);
        for pattern in ["container_", "%", "_____", "containers/n_", "Pools"] {
            assert_eq!(found(pattern).await, Vec::<String>::new(), "{pattern}");
        }
    }
}
