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
}

/// A join token as stored: its secret hashed.
#[derive(Clone, Debug)]
pub struct JoinTokenRow {
    pub id: String,
    pub hash: [u8; 32],
    pub node_name: Option<String>,
    pub created_ms: i64,
    pub expires_ms: i64,
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
    /// Its name where the token gives none; `None` when its host name won't do.
    pub own_name: Option<&'a str>,
    /// The id that it gets if it is new.
    pub new_id: &'a str,
}

/// What became of a claim. `C` is the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined<C> {
    /// Enrolled, or answered again to the key that redeemed the token before.
    Node {
        id: String,
        name: String,
        certificate: C,
    },
    NameTaken(String),
    /// Neither the token nor the node gives a usable name.
    NoName,
    /// Unknown, used, expired or wrong: one answer for all.
    Refused,
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError<E> {
    #[error("record an enrollment")]
    Store(#[source] StoreError),
    #[error("sign a certificate")]
    Issue(#[source] E),
}

const NODE: &str = "SELECT id, name, enrolled_ms, serial, expires_ms, last_seen_ms, agent_version FROM nodes";
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
            "INSERT INTO join_tokens (id, hash, node_name, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&token.id)
        .bind(token.hash.as_slice())
        .bind(&token.node_name)
        .bind(token.created_ms)
        .bind(token.expires_ms)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("store a join token"))
    }

    /// Whether a node of this name is enrolled.
    pub async fn has_node(&self, name: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM nodes WHERE name = $1)")
            .bind(name)
            .fetch_one(&self.reader)
            .await
            .map_err(doing("look up a node"))
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
        type Row = (Option<String>, i64, Option<i64>, Option<Vec<u8>>, Option<String>);
        let row: Option<Row> = sqlx::query_as(
            "SELECT node_name, expires_ms, used_ms, used_key, node_id FROM join_tokens WHERE id = $1 AND hash = $2",
        )
        .bind(claim.token_id)
        .bind(claim.token_hash.as_slice())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed())?;
        let Some((token_name, expires_ms, used_ms, used_key, node_id)) = row else {
            return Ok(Joined::Refused);
        };
        if let Some(used_ms) = used_ms {
            let same = used_key.as_deref() == Some(claim.key.as_slice()) && now_ms - used_ms < RETRY_MS;
            let (true, Some(id)) = (same, node_id) else { return Ok(Joined::Refused) };
            let (certificate, issued) = issue(&id).map_err(JoinError::Issue)?;
            let name: String = sqlx::query_scalar(
                "UPDATE nodes SET serial = $2, expires_ms = $3 WHERE id = $1 RETURNING name",
            )
            .bind(&id)
            .bind(&issued.serial)
            .bind(issued.expires_ms)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed())?;
            tx.commit().await.map_err(failed())?;
            return Ok(Joined::Node { id, name, certificate });
        }
        if expires_ms <= now_ms {
            return Ok(Joined::Refused);
        }
        let Some(name) = token_name.or_else(|| claim.own_name.map(str::to_owned)) else {
            return Ok(Joined::NoName);
        };
        let (certificate, issued) = issue(claim.new_id).map_err(JoinError::Issue)?;
        let inserted = sqlx::query(
            "INSERT INTO nodes (id, name, enrolled_ms, serial, expires_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(claim.new_id)
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
        sqlx::query("UPDATE join_tokens SET used_ms = $2, used_key = $3, node_id = $4 WHERE id = $1")
            .bind(claim.token_id)
            .bind(now_ms)
            .bind(claim.key.as_slice())
            .bind(claim.new_id)
            .execute(&mut *tx)
            .await
            .map_err(failed())?;
        tx.commit().await.map_err(failed())?;
        Ok(Joined::Node { id: claim.new_id.to_owned(), name, certificate })
    }

    /// The node that this certificate stands for. The first use of a renewed certificate retires the one before it.
    pub async fn admit(&self, id: &str, serial: &str) -> Result<Option<NodeRow>, StoreError> {
        sqlx::query(
            "UPDATE nodes SET serial = next_serial, expires_ms = next_expires_ms, next_serial = NULL,
             next_expires_ms = NULL WHERE id = $1 AND next_serial = $2",
        )
        .bind(id)
        .bind(serial)
        .execute(&self.writer)
        .await
        .map_err(doing("admit a node"))?;
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{NODE} WHERE id = $1 AND serial = $2")))
            .bind(id)
            .bind(serial)
            .fetch_optional(&self.writer)
            .await
            .map_err(doing("admit a node"))
    }

    /// Keeps a renewed certificate's serial until it is first used.
    pub async fn renew(&self, id: &str, issued: &Issued) -> Result<(), StoreError> {
        sqlx::query("UPDATE nodes SET next_serial = $2, next_expires_ms = $3 WHERE id = $1")
            .bind(id)
            .bind(&issued.serial)
            .bind(issued.expires_ms)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("renew a certificate"))
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

    /// Forgets a node; `false` when there is none of this name. `request` makes a repetition succeed.
    pub async fn delete_node(&self, name: &str, request: &str, now_ms: i64) -> Result<bool, StoreError> {
        let failed = "delete a node";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let what = format!("delete nodes/{name}");
        let done: Option<String> =
            sqlx::query_scalar("SELECT what FROM requests WHERE id = $1 AND what = $2")
                .bind(request)
                .bind(&what)
                .fetch_optional(&mut *tx)
                .await
                .map_err(doing(failed))?;
        if !request.is_empty() && done.is_some() {
            return Ok(true);
        }
        let deleted = sqlx::query("DELETE FROM nodes WHERE name = $1")
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        if deleted.rows_affected() == 0 {
            return Ok(false);
        }
        if !request.is_empty() {
            sqlx::query("INSERT INTO requests (id, what, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(request)
                .bind(&what)
                .bind(now_ms)
                .execute(&mut *tx)
                .await
                .map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))?;
        Ok(true)
    }
}
