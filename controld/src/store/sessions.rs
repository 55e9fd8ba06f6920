//! Sessions and the hashes of the secrets that stand for them.

use super::{Store, StoreError, doing};

/// What a secret is for. Stored as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    Access,
    Refresh,
    Cookie,
}

impl SecretKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Refresh => "refresh",
            Self::Cookie => "cookie",
        }
    }
}

/// A live session with what is needed to decide about its user.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct SessionRow {
    pub id: String,
    pub user: String,
    pub role: Option<String>,
    pub created_ms: i64,
    pub expires_ms: i64,
    pub last_used_ms: i64,
}

/// The hash of a secret, with its end.
#[derive(Clone, Debug)]
pub struct HashedSecret {
    pub hash: [u8; 32],
    pub kind: SecretKind,
    pub expires_ms: i64,
}

/// What became of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// First use; of this session.
    Session(String),
    /// Used before: its session was ended.
    Reused,
    Unknown,
}

impl Store {
    pub async fn insert_session(&self, row: &SessionRow, secrets: &[HashedSecret]) -> Result<(), StoreError> {
        let failed = "open a session";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        sqlx::query(
            "INSERT INTO sessions (id, user, created_ms, expires_ms, last_used_ms) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&row.id)
        .bind(&row.user)
        .bind(row.created_ms)
        .bind(row.expires_ms)
        .bind(row.last_used_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        for secret in secrets {
            insert_secret(&mut tx, &row.id, secret).await?;
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// The session behind an access token or cookie, if it, its secret and its user are good at `now_ms`.
    pub async fn session_by_secret(
        &self,
        hash: &[u8; 32],
        kind: SecretKind,
        now_ms: i64,
        idle_ms: i64,
    ) -> Result<Option<SessionRow>, StoreError> {
        sqlx::query_as(
            "SELECT s.id, s.user, u.role, s.created_ms, s.expires_ms, s.last_used_ms
             FROM session_secrets x JOIN sessions s ON s.id = x.session JOIN users u ON u.name = s.user
             WHERE x.hash = $1 AND x.kind = $2 AND x.expires_ms > $3 AND s.expires_ms > $3
               AND s.last_used_ms > $4 AND NOT u.disabled",
        )
        .bind(hash.as_slice())
        .bind(kind.as_str())
        .bind(now_ms)
        .bind(now_ms - idle_ms)
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("look up a session"))
    }

    /// The session itself, if it and its user are good at `now_ms`: for streams that outlive their access token.
    pub async fn session(&self, id: &str, now_ms: i64) -> Result<Option<SessionRow>, StoreError> {
        sqlx::query_as(
            "SELECT s.id, s.user, u.role, s.created_ms, s.expires_ms, s.last_used_ms
             FROM sessions s JOIN users u ON u.name = s.user
             WHERE s.id = $1 AND s.expires_ms > $2 AND NOT u.disabled",
        )
        .bind(id)
        .bind(now_ms)
        .fetch_optional(&self.reader)
        .await
        .map_err(doing("look up a session"))
    }

    pub async fn touch_session(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE sessions SET last_used_ms = $2 WHERE id = $1")
            .bind(id)
            .bind(now_ms)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("note the use of a session"))
    }

    /// Uses up a refresh token and stores its successors, in one transaction. A second use ends the session.
    pub async fn redeem_refresh(
        &self,
        hash: &[u8; 32],
        next: &[HashedSecret],
        now_ms: i64,
        idle_ms: i64,
    ) -> Result<Redeemed, StoreError> {
        let failed = "redeem a refresh token";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let known: Option<(String, bool)> = sqlx::query_as(
            "SELECT x.session, x.used FROM session_secrets x JOIN sessions s ON s.id = x.session
             JOIN users u ON u.name = s.user
             WHERE x.hash = $1 AND x.kind = 'refresh' AND x.expires_ms > $2 AND s.expires_ms > $2
               AND s.last_used_ms > $3 AND NOT u.disabled",
        )
        .bind(hash.as_slice())
        .bind(now_ms)
        .bind(now_ms - idle_ms)
        .fetch_optional(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let outcome = match known {
            None => Redeemed::Unknown,
            Some((session, true)) => {
                delete_session(&mut tx, &session).await?;
                Redeemed::Reused
            }
            Some((session, false)) => {
                sqlx::query("UPDATE session_secrets SET used = 1 WHERE hash = $1")
                    .bind(hash.as_slice())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                sqlx::query("DELETE FROM session_secrets WHERE session = $1 AND kind = 'access'")
                    .bind(&session)
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                for secret in next {
                    insert_secret(&mut tx, &session, secret).await?;
                }
                sqlx::query("UPDATE sessions SET last_used_ms = $2 WHERE id = $1")
                    .bind(&session)
                    .bind(now_ms)
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                Redeemed::Session(session)
            }
        };
        tx.commit().await.map_err(doing(failed))?;
        Ok(outcome)
    }

    pub async fn end_session(&self, id: &str) -> Result<(), StoreError> {
        let mut tx = self.writer.begin().await.map_err(doing("end a session"))?;
        delete_session(&mut tx, id).await?;
        tx.commit().await.map_err(doing("end a session"))
    }

    /// Forgets sessions that are over.
    pub async fn purge_sessions(&self, now_ms: i64, idle_ms: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE expires_ms <= $1 OR last_used_ms <= $2")
            .bind(now_ms)
            .bind(now_ms - idle_ms)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("forget old sessions"))
    }
}

async fn insert_secret(
    tx: &mut sqlx::SqliteConnection,
    session: &str,
    secret: &HashedSecret,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO session_secrets (hash, session, kind, expires_ms) VALUES ($1, $2, $3, $4)")
        .bind(secret.hash.as_slice())
        .bind(session)
        .bind(secret.kind.as_str())
        .bind(secret.expires_ms)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(doing("store a session's secret"))
}

async fn delete_session(tx: &mut sqlx::SqliteConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sessions WHERE id = $1")
        .bind(id)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(doing("end a session"))
}
