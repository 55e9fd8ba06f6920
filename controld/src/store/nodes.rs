//! Enrolled nodes and join tokens.

use super::{Store, StoreError, doing};

/// An enrolled node as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct NodeRow {
    pub id: String,
    pub name: String,
    pub enrolled_ms: i64,
    pub serial: String,
    pub expires_ms: i64,
    pub last_seen_ms: Option<i64>,
    pub agent_version: Option<String>,
    /// How often its certificate was renewed, and 1.
    pub generation: i64,
    /// Since when it is shut out.
    pub locked_ms: Option<i64>,
    pub locked_reason: String,
}

/// What a certificate that we signed stands for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    Node(NodeRow),
    Locked(NodeRow),
    /// A newer one has replaced it: whoever shows it has a copy, or is the one that was copied from.
    Retired(NodeRow),
    Unknown,
}

/// A join token as stored: its secret hashed.
#[derive(Clone, Debug)]
pub struct JoinTokenRow {
    pub id: String,
    pub hash: [u8; 32],
    pub node_name: String,
    pub created_ms: i64,
    pub expires_ms: i64,
    /// The id of the node that it brings back.
    pub reenrolls: Option<String>,
}

/// A certificate that is about to be handed out.
#[derive(Clone, Debug)]
pub struct Issued {
    pub serial: String,
    pub expires_ms: i64,
}

/// What a node shows to join.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub token_id: &'a str,
    pub token_hash: &'a [u8; 32],
    /// SHA-256 of its public key.
    pub key: &'a [u8; 32],
    /// The id that it gets if it is new.
    pub new_id: &'a str,
    /// The id of the node that the host is already.
    pub enrolled_as: Option<&'a str>,
}

/// What became of a claim. `C` is the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined<C> {
    /// Enrolled, or answered again to the key that redeemed the token before.
    Node {
        id: String,
        name: String,
        generation: i64,
        certificate: C,
    },
    NameTaken(String),
    /// After the token was made.
    Locked,
    /// The host is the node of this name, and the token is for another.
    Another(String),
    /// Unknown, used, expired or wrong: one answer for all.
    Refused,
}

#[derive(sqlx::FromRow)]
struct RedeemedRow {
    node_name: Option<String>,
    created_ms: i64,
    expires_ms: i64,
    used_ms: Option<i64>,
    used_key: Option<Vec<u8>>,
    node_id: Option<String>,
    reenrolls: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError<E> {
    #[error("record an enrollment")]
    Store(#[source] StoreError),
    #[error("sign a certificate")]
    Issue(#[source] E),
}

const NODE: &str =
    "SELECT id, name, enrolled_ms, serial, expires_ms, last_seen_ms, agent_version, generation,
     locked_ms, locked_reason FROM nodes";
/// A lost answer is given again to the same key for this long.
const RETRY_MS: i64 = 10 * 60 * 1000;

impl Store {
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{NODE} ORDER BY name")))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list nodes"))
    }

    pub async fn insert_join_token(&self, token: &JoinTokenRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO join_tokens (id, hash, node_name, created_ms, expires_ms, reenrolls)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&token.id)
        .bind(token.hash.as_slice())
        .bind(&token.node_name)
        .bind(token.created_ms)
        .bind(token.expires_ms)
        .bind(&token.reenrolls)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("store a join token"))
    }

    /// The node of this name.
    pub async fn node(&self, name: &str) -> Result<Option<NodeRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{NODE} WHERE name = $1")))
            .bind(name)
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a node"))
    }

    pub async fn knows_join_token(&self, id: &str, hash: &[u8; 32], now_ms: i64) -> Result<bool, StoreError> {
        let known = "SELECT EXISTS (SELECT 1 FROM join_tokens
                     WHERE id = $1 AND hash = $2 AND used_ms IS NULL AND expires_ms > $3)";
        sqlx::query_scalar(known)
            .bind(id)
            .bind(hash.as_slice())
            .bind(now_ms)
            .fetch_one(&self.reader)
            .await
            .map_err(doing("look up a join token"))
    }

    /// Redeems a join token and enrolls its node, in one transaction: of a hundred that try at once, one does. `issue`
    /// signs the certificate for a node id.
    pub async fn join<C, E>(
        &self,
        claim: Claim<'_>,
        issue: impl Fn(&str) -> Result<(C, Issued), E> + Send,
        now_ms: i64,
    ) -> Result<Joined<C>, JoinError<E>> {
        let failed = || |source| JoinError::Store(doing("redeem a join token")(source));
        let mut tx = self.writer.begin().await.map_err(failed())?;
        let token: Option<RedeemedRow> = sqlx::query_as(
            "SELECT node_name, created_ms, expires_ms, used_ms, used_key, node_id, reenrolls FROM join_tokens
             WHERE id = $1 AND hash = $2",
        )
        .bind(claim.token_id)
        .bind(claim.token_hash.as_slice())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed())?;
        let Some(token) = token else { return Ok(Joined::Refused) };
        let id = match (token.used_ms, &token.reenrolls) {
            // A lost answer is given again, to the same key.
            (Some(used_ms), _) => {
                let same = token.used_key.as_deref() == Some(claim.key.as_slice());
                let (true, Some(id)) = (same && now_ms - used_ms < RETRY_MS, token.node_id) else {
                    return Ok(Joined::Refused);
                };
                id
            }
            (None, _) if token.expires_ms <= now_ms => return Ok(Joined::Refused),
            (None, Some(id)) => id.clone(),
            (None, None) => claim.new_id.to_owned(),
        };
        let Some(name) = token.node_name else { return Ok(Joined::Refused) };
        if let Some(other) = claim.enrolled_as.filter(|other| *other != id) {
            let other: Option<String> = sqlx::query_scalar("SELECT name FROM nodes WHERE id = $1")
                .bind(other)
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed())?;
            if let Some(other) = other {
                return Ok(Joined::Another(other));
            }
        }
        let (certificate, issued) = issue(&id).map_err(JoinError::Issue)?;
        let is_new = token.used_ms.is_none() && token.reenrolls.is_none();
        let generation = if is_new {
            let inserted = sqlx::query(
                "INSERT INTO nodes (id, name, enrolled_ms, serial, expires_ms) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(&id)
            .bind(&name)
            .bind(now_ms)
            .bind(&issued.serial)
            .bind(issued.expires_ms)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
            if inserted.rows_affected() == 0 {
                return Ok(Joined::NameTaken(name));
            }
            1
        } else {
            let locked_ms: Option<Option<i64>> =
                sqlx::query_scalar("SELECT locked_ms FROM nodes WHERE id = $1")
                    .bind(&id)
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(failed())?;
            // A token that was made since says that the host is to come back; one from before may be in wrong hands.
            if locked_ms.flatten().is_some_and(|locked_ms| token.created_ms <= locked_ms) {
                return Ok(Joined::Locked);
            }
            let generation: Option<i64> = sqlx::query_scalar(
                "UPDATE nodes SET serial = $2, expires_ms = $3, next_serial = NULL, next_expires_ms = NULL,
                 locked_ms = NULL, locked_reason = '' WHERE id = $1 RETURNING generation",
            )
            .bind(&id)
            .bind(&issued.serial)
            .bind(issued.expires_ms)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed())?;
            // What the administrator replaces on purpose is unknown from then on, and locks nobody out.
            sqlx::query("DELETE FROM retired_serials WHERE node = $1")
                .bind(&id)
                .execute(&mut *tx)
                .await
                .map_err(failed())?;
            let Some(generation) = generation else { return Ok(Joined::Refused) };
            // The one that was made to bring it back has: what older ones, spent or not, could still be used for is over.
            sqlx::query("DELETE FROM join_tokens WHERE id <> $1 AND (node_id = $2 OR reenrolls = $2)")
                .bind(claim.token_id)
                .bind(&id)
                .execute(&mut *tx)
                .await
                .map_err(failed())?;
            generation
        };
        sqlx::query(
            "UPDATE join_tokens SET used_ms = coalesce(used_ms, $2), used_key = $3, node_id = $4 WHERE id = $1",
        )
        .bind(claim.token_id)
        .bind(now_ms)
        .bind(claim.key.as_slice())
        .bind(&id)
        .execute(&mut *tx)
        .await
        .map_err(failed())?;
        tx.commit().await.map_err(failed())?;
        Ok(Joined::Node { id, name, generation, certificate })
    }

    /// What this certificate stands for. The first use of a renewed certificate retires the one before it.
    pub async fn admit(&self, id: &str, serial: &str) -> Result<Admitted, StoreError> {
        let failed = "admit a node";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let row: Option<NodeRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{NODE} WHERE id = $1")))
            .bind(id)
            .fetch_optional(&mut *tx)
            .await
            .map_err(doing(failed))?;
        let Some(mut row) = row else { return Ok(Admitted::Unknown) };
        if row.serial != serial {
            let next: Option<i64> =
                sqlx::query_scalar("SELECT next_expires_ms FROM nodes WHERE id = $1 AND next_serial = $2")
                    .bind(id)
                    .bind(serial)
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
            let Some(expires_ms) = next else {
                let retired: bool = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM retired_serials WHERE node = $1 AND serial = $2)",
                )
                .bind(id)
                .bind(serial)
                .fetch_one(&mut *tx)
                .await
                .map_err(doing(failed))?;
                return Ok(if retired { Admitted::Retired(row) } else { Admitted::Unknown });
            };
            for query in [
                "INSERT INTO retired_serials (serial, node, expires_ms)
                 SELECT serial, id, expires_ms FROM nodes WHERE id = $1 AND next_serial = $2",
                "UPDATE nodes SET serial = next_serial, expires_ms = next_expires_ms, next_serial = NULL,
                 next_expires_ms = NULL, generation = generation + 1 WHERE id = $1 AND next_serial = $2",
            ] {
                sqlx::query(query).bind(id).bind(serial).execute(&mut *tx).await.map_err(doing(failed))?;
            }
            tx.commit().await.map_err(doing(failed))?;
            row = NodeRow { serial: serial.to_owned(), expires_ms, generation: row.generation + 1, ..row };
        }
        Ok(if row.locked_ms.is_some() { Admitted::Locked(row) } else { Admitted::Node(row) })
    }

    /// Keeps a renewed certificate's serial until it is first used; `false` where the one that asks, `serial`, is no longer
    /// the node's, or the node is locked.
    pub async fn renew(&self, id: &str, serial: &str, issued: &Issued) -> Result<bool, StoreError> {
        let renewed = sqlx::query(
            "UPDATE nodes SET next_serial = $3, next_expires_ms = $4
             WHERE id = $1 AND serial = $2 AND locked_ms IS NULL",
        )
        .bind(id)
        .bind(serial)
        .bind(&issued.serial)
        .bind(issued.expires_ms)
        .execute(&self.writer)
        .await
        .map_err(doing("renew a certificate"))?;
        Ok(renewed.rows_affected() > 0)
    }

    /// Forgets join tokens that ended a day ago.
    pub async fn purge_join_tokens(&self, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM join_tokens WHERE expires_ms < $1")
            .bind(now_ms - 24 * 3600 * 1000)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("forget old join tokens"))
    }

    /// Forgets certificates that would have ended by now in any case.
    pub async fn purge_retired(&self, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM retired_serials WHERE expires_ms <= $1")
            .bind(now_ms)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("forget old certificates"))
    }

    pub async fn node_seen(&self, id: &str, version: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE nodes SET last_seen_ms = $2, agent_version = $3 WHERE id = $1")
            .bind(id)
            .bind(now_ms)
            .bind(version)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("note that a node was seen"))
    }

    /// Forgets a node, and what was granted on it and on its containers; `false` when there is none of this name.
    pub async fn delete_node(&self, name: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query("DELETE FROM nodes WHERE name = $1").bind(name).execute(&self.writer).await;
        Ok(deleted.map_err(doing("delete a node"))?.rows_affected() > 0)
    }

    /// Shuts a node out, unless it is out already or has another certificate than `serial` by now.
    pub async fn lock_node_of(
        &self,
        id: &str,
        serial: &str,
        reason: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let locked = sqlx::query(
            "UPDATE nodes SET locked_ms = $3, locked_reason = $4
             WHERE id = $1 AND serial = $2 AND locked_ms IS NULL",
        )
        .bind(id)
        .bind(serial)
        .bind(now_ms)
        .bind(reason)
        .execute(&self.writer)
        .await
        .map_err(doing("lock a node"))?;
        Ok(locked.rows_affected() > 0)
    }

    /// Shuts a node out, with a reason, or lets it in again.
    pub async fn lock_node(&self, id: &str, locked: Option<(&str, i64)>) -> Result<(), StoreError> {
        sqlx::query("UPDATE nodes SET locked_ms = $2, locked_reason = $3 WHERE id = $1")
            .bind(id)
            .bind(locked.map(|(_, now_ms)| now_ms))
            .bind(locked.map_or("", |(reason, _)| reason))
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("lock a node"))
    }
}
