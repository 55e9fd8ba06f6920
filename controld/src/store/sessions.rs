//! Sessions and the hashes of the secrets that stand for them.

use std::collections::HashMap;

use super::{Store, StoreError, doing, places};

/// What a secret is for. Stored as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    Refresh,
    Cookie,
}

impl SecretKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Cookie => "cookie",
        }
    }
}

/// A session as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SessionRow {
    pub id: String,
    /// `user@realm`.
    pub user: String,
    pub created_ms: i64,
    pub expires_ms: i64,
    pub last_used_ms: i64,
    pub source: String,
    pub client: String,
}

/// The hash of a secret, with its end.
#[derive(Clone, Debug)]
pub struct HashedSecret {
    pub hash: [u8; 32],
    pub kind: SecretKind,
    pub expires_ms: i64,
}

/// When a session counts as alive.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub now_ms: i64,
    pub idle_ms: i64,
}

/// What became of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// First use; of this session.
    Session(SessionRow),
    /// Used before: its session was ended.
    Reused {
        session: String,
        user: String,
    },
    Unknown,
}

/// Of one user. Who has more lost most of them: scripts that sign in and never out.
const MAX_SESSIONS: i64 = 100;
const SESSION: &str =
    "SELECT s.id, s.user, s.created_ms, s.expires_ms, s.last_used_ms, s.source, s.client FROM sessions s";
/// A session, its end and its user are good.
const ALIVE: &str = "s.expires_ms > $1 AND s.last_used_ms > $2
     AND EXISTS (SELECT 1 FROM users u WHERE u.id = s.user AND NOT u.disabled)";

impl Store {
    /// Opens a session, if its user is not disabled and what they sign in with is still that of `credentials`; `None` if not.
    /// Beyond [`MAX_SESSIONS`] those of the same user end that were not used for the longest time; returns
    /// their ids.
    pub async fn insert_session(
        &self,
        row: &SessionRow,
        secret: &HashedSecret,
        credentials: i64,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let failed = "open a session";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let opened = sqlx::query(
            "INSERT INTO sessions (id, user, created_ms, expires_ms, last_used_ms, source, client)
             SELECT $1, id, $3, $4, $5, $6, $7 FROM users WHERE id = $2 AND credentials = $8 AND NOT disabled",
        )
        .bind(&row.id)
        .bind(&row.user)
        .bind(row.created_ms)
        .bind(row.expires_ms)
        .bind(row.last_used_ms)
        .bind(&row.source)
        .bind(&row.client)
        .bind(credentials)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        if opened.rows_affected() == 0 {
            return Ok(None);
        }
        insert_secret(&mut tx, &row.id, secret).await?;
        let ended = sqlx::query_scalar(
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE user = $1 AND id <> $2
             ORDER BY last_used_ms DESC, created_ms DESC, id LIMIT -1 OFFSET $3) RETURNING id",
        )
        .bind(&row.user)
        .bind(&row.id)
        .bind(MAX_SESSIONS - 1)
        .fetch_all(&mut *tx)
        .await
        .map_err(doing(failed))?;
        tx.commit().await.map_err(doing(failed))?;
        Ok(Some(ended))
    }

    /// The session behind a cookie, if all is good.
    pub async fn session_by_cookie(&self, hash: &[u8; 32], at: At) -> Result<Option<SessionRow>, StoreError> {
        let query = format!(
            "{SESSION} JOIN session_secrets x ON x.session = s.id
             WHERE {ALIVE} AND x.hash = $3 AND x.kind = 'cookie' AND x.expires_ms > $1"
        );
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(at.now_ms)
            .bind(at.now_ms - at.idle_ms)
            .bind(hash.as_slice())
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a session"))
    }

    /// The session itself, if it and its user are good.
    pub async fn session(&self, id: &str, at: At) -> Result<Option<SessionRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{SESSION} WHERE {ALIVE} AND s.id = $3")))
            .bind(at.now_ms)
            .bind(at.now_ms - at.idle_ms)
            .bind(id)
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a session"))
    }

    /// All live sessions; of one user where `user` is given.
    pub async fn sessions(&self, user: Option<&str>, at: At) -> Result<Vec<SessionRow>, StoreError> {
        let query = format!("{SESSION} WHERE {ALIVE} AND ($3 IS NULL OR s.user = $3) ORDER BY s.created_ms");
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(at.now_ms)
            .bind(at.now_ms - at.idle_ms)
            .bind(user)
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list sessions"))
    }

    /// Those of `ids` that stand, with when they were last used.
    pub async fn standing_sessions(
        &self,
        ids: &[String],
        at: At,
    ) -> Result<HashMap<String, i64>, StoreError> {
        let places = places(3, ids.len());
        let query =
            format!("SELECT s.id, s.last_used_ms FROM sessions s WHERE {ALIVE} AND s.id IN ({places})");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(at.now_ms).bind(at.now_ms - at.idle_ms);
        let query = ids.iter().fold(query, |query, id| query.bind(id));
        let standing: Vec<(String, i64)> =
            query.fetch_all(&self.reader).await.map_err(doing("look up sessions"))?;
        Ok(standing.into_iter().collect())
    }

    pub async fn touch_sessions(&self, ids: &[String], now_ms: i64) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let places = places(2, ids.len());
        let query = format!("UPDATE sessions SET last_used_ms = $1 WHERE id IN ({places})");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(now_ms);
        let query = ids.iter().fold(query, |query, id| query.bind(id));
        query.execute(&self.writer).await.map(|_| ()).map_err(doing("note the use of sessions"))
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

    pub async fn knows_refresh(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM session_secrets WHERE hash = $1 AND kind = 'refresh')",
        )
        .bind(hash.as_slice())
        .fetch_one(&self.reader)
        .await
        .map_err(doing("look up a refresh token"))
    }

    /// Uses up a refresh token and stores its successor, in one transaction. A second use ends the session.
    pub async fn redeem_refresh(
        &self,
        hash: &[u8; 32],
        next: &HashedSecret,
        at: At,
    ) -> Result<Redeemed, StoreError> {
        let failed = "redeem a refresh token";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let query = format!(
            "SELECT s.id, s.user, x.used FROM sessions s JOIN session_secrets x ON x.session = s.id
             WHERE {ALIVE} AND x.hash = $3 AND x.kind = 'refresh' AND x.expires_ms > $1"
        );
        let known: Option<(String, String, bool)> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(at.now_ms)
            .bind(at.now_ms - at.idle_ms)
            .bind(hash.as_slice())
            .fetch_optional(&mut *tx)
            .await
            .map_err(doing(failed))?;
        let outcome = match known {
            None => Redeemed::Unknown,
            Some((session, user, true)) => {
                sqlx::query("DELETE FROM sessions WHERE id = $1")
                    .bind(&session)
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                Redeemed::Reused { session, user }
            }
            Some((session, _, false)) => {
                sqlx::query("UPDATE session_secrets SET used = 1 WHERE hash = $1")
                    .bind(hash.as_slice())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                insert_secret(&mut tx, &session, next).await?;
                sqlx::query("UPDATE sessions SET last_used_ms = $2 WHERE id = $1")
                    .bind(&session)
                    .bind(at.now_ms)
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                let row = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SESSION} WHERE s.id = $1")))
                    .bind(&session)
                    .fetch_one(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
                Redeemed::Session(row)
            }
        };
        tx.commit().await.map_err(doing(failed))?;
        Ok(outcome)
    }

    /// Ends a session; `false` when there is none.
    pub async fn end_session(&self, id: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(&self.writer).await;
        done.map(|done| done.rows_affected() > 0).map_err(doing("end a session"))
    }

    /// Ends all sessions of a user but one.
    pub async fn end_other_sessions(&self, user: &str, kept: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE user = $1 AND id <> $2")
            .bind(user)
            .bind(kept)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("end sessions"))
    }

    /// Forgets sessions that are over.
    pub async fn purge_sessions(&self, at: At) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE expires_ms <= $1 OR last_used_ms <= $2")
            .bind(at.now_ms)
            .bind(at.now_ms - at.idle_ms)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::users::{UserRow, UserUpdate};

    #[tokio::test]
    async fn a_sign_in_that_began_before_a_change_of_credentials_opens_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let alice = UserRow { id: "alice@local".to_owned(), created_ms: 7, ..UserRow::default() };
        store.insert_user(&alice).await.unwrap();
        let id = alice.id.parse().unwrap();
        let now = async || store.user(&id).await.unwrap().unwrap().credentials;
        let opens = async |number: u8, credentials: i64| {
            let row = SessionRow {
                id: number.to_string(),
                user: alice.id.clone(),
                created_ms: 0,
                expires_ms: 1,
                last_used_ms: 0,
                source: String::new(),
                client: String::new(),
            };
            let secret = HashedSecret { hash: [number; 32], kind: SecretKind::Cookie, expires_ms: 1 };
            store.insert_session(&row, &secret, credentials).await.unwrap().is_some()
        };
        let before = now().await;
        assert!(opens(1, before).await);
        store.change_credentials(&id, Some("new")).await.unwrap();
        assert!(!opens(2, before).await, "a new password");
        let before = now().await;
        store.rehash(&id, before - 1, "old, raised").await.unwrap();
        assert_eq!(store.user(&id).await.unwrap().unwrap().password_hash.as_deref(), Some("new"));
        let disabled = |disabled| UserUpdate { disabled: Some(disabled), ..UserUpdate::default() };
        store.update_user(&id, &disabled(true)).await.unwrap();
        assert!(!opens(3, now().await).await, "disabled");
        store.update_user(&id, &disabled(false)).await.unwrap();
        assert!(!opens(4, before).await, "disabled meanwhile");
        let before = now().await;
        store.put_setup_code(&[7; 32], 100).await.unwrap();
        assert!(store.make_administrator(&[7; 32], &alice, "g").await.unwrap());
        assert!(!opens(5, before).await, "recovered by its host");
        let before = now().await;
        store.delete_user(&id).await.unwrap();
        assert!(!opens(6, before).await, "deleted");
        store.insert_user(&UserRow { created_ms: 99, ..alice.clone() }).await.unwrap();
        assert!(!opens(7, before).await, "another of the same name");
        assert!(opens(8, now().await).await);
    }

    #[tokio::test]
    async fn of_too_many_sessions_the_ones_that_lay_unused_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        for user in ["alice@local", "bob@local"] {
            store.insert_user(&UserRow { id: user.to_owned(), ..UserRow::default() }).await.unwrap();
        }
        let open = async |number: i64, user: &str| {
            let row = SessionRow {
                id: format!("{user} {number}"),
                user: user.to_owned(),
                created_ms: 0,
                expires_ms: i64::MAX,
                last_used_ms: number,
                source: String::new(),
                client: String::new(),
            };
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash[8] = user.as_bytes()[0];
            let secret = HashedSecret { hash, kind: SecretKind::Cookie, expires_ms: i64::MAX };
            store.insert_session(&row, &secret, 0).await.unwrap().unwrap()
        };
        for number in 1..=MAX_SESSIONS {
            assert!(open(number, "alice@local").await.is_empty(), "{number}");
            assert!(open(number, "bob@local").await.is_empty(), "{number}");
        }
        store.touch_session("alice@local 1", 1000).await.unwrap();
        // The new one stays, though its clock is behind.
        assert_eq!(open(0, "alice@local").await, ["alice@local 2"]);
        let at = At { now_ms: 1, idle_ms: 10 };
        for (user, first) in [("alice@local", "alice@local 0"), ("bob@local", "bob@local 1")] {
            let mut left = store.sessions(Some(user), at).await.unwrap();
            left.sort_by_key(|row| row.id.clone());
            assert_eq!((left.len(), left[0].id.as_str()), (100, first));
        }
        let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM session_secrets")
            .fetch_one(&store.reader)
            .await
            .unwrap();
        assert_eq!(secrets, 2 * MAX_SESSIONS, "what stood for an ended session is gone");
    }
}
