//! People.

use super::{Store, StoreError, doing};
use crate::access::name::UserId;

/// A user as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct UserRow {
    /// `user@realm`.
    pub id: String,
    pub display_name: String,
    /// Who it is in a realm that is not local.
    pub subject: Option<String>,
    pub password_hash: Option<String>,
    pub disabled: bool,
    /// Raised by each change of what they sign in with.
    pub credentials: i64,
    pub created_ms: i64,
    pub last_sign_in_ms: Option<i64>,
}

/// What an update changes; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct UserUpdate {
    pub display_name: Option<String>,
    pub password_hash: Option<String>,
    pub disabled: Option<bool>,
    /// A new second factor is to be set up.
    pub forget_factor: bool,
}

impl UserUpdate {
    /// What a session was opened with is worth nothing any more.
    #[must_use]
    pub fn ends_sessions(&self) -> bool {
        self.password_hash.is_some() || self.disabled == Some(true) || self.forget_factor
    }
}

const USER: &str = "SELECT id, display_name, subject, password_hash, disabled, credentials, created_ms, last_sign_in_ms FROM users";
impl Store {
    pub async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{USER} ORDER BY id")))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list users"))
    }

    pub async fn user(&self, id: &UserId) -> Result<Option<UserRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{USER} WHERE id = $1")))
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a user"))
    }

    /// The user who is `subject` in their realm.
    pub async fn user_by_subject(&self, subject: &str) -> Result<Option<UserRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{USER} WHERE subject = $1")))
            .bind(subject)
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a user"))
    }

    /// Whether the first administrator is still to be made.
    pub async fn has_users(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users)")
            .fetch_one(&self.reader)
            .await
            .map_err(doing("count users"))
    }

    /// Makes a user; `false` when there is one of this name. What a name signs in with that comes again is another.
    pub async fn insert_user(&self, user: &UserRow) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO users (id, display_name, subject, password_hash, disabled, created_ms, credentials)
             VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING",
        )
        .bind(&user.id)
        .bind(&user.display_name)
        .bind(&user.subject)
        .bind(&user.password_hash)
        .bind(user.disabled)
        .bind(user.created_ms)
        .execute(&self.writer)
        .await
        .map_err(doing("make a user"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Says who a user is in their realm, where nobody has yet; `false` where somebody has, or the user is disabled.
    pub async fn bind_subject(&self, id: &UserId, subject: &str) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE users SET subject = $2 WHERE id = $1 AND subject IS NULL AND NOT disabled")
                .bind(id.as_str())
                .bind(subject)
                .execute(&self.writer)
                .await;
        done.map(|done| done.rows_affected() == 1).map_err(doing("note who a user is"))
    }

    /// Changes a user. With a new password, without their second factor, or disabled, they have no session any more.
    pub async fn update_user(&self, id: &UserId, update: &UserUpdate) -> Result<(), StoreError> {
        let failed = "change a user";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        sqlx::query(
            "UPDATE users SET display_name = coalesce($2, display_name),
             password_hash = coalesce($3, password_hash), disabled = coalesce($4, disabled),
             credentials = credentials + $5 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(&update.display_name)
        .bind(&update.password_hash)
        .bind(update.disabled)
        .bind(i64::from(update.ends_sessions() || update.disabled.is_some()))
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        if update.ends_sessions() {
            sqlx::query("DELETE FROM sessions WHERE user = $1")
                .bind(id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(doing(failed))?;
        }
        if update.forget_factor {
            for forget in
                ["DELETE FROM second_factors WHERE user = $1", "DELETE FROM recovery_codes WHERE user = $1"]
            {
                sqlx::query(forget).bind(id.as_str()).execute(&mut *tx).await.map_err(doing(failed))?;
            }
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Raises a hash to the parameters of today, where the password is still the one of `credentials`; sessions stay.
    pub async fn rehash(&self, id: &UserId, credentials: i64, password_hash: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE users SET password_hash = $3 WHERE id = $1 AND credentials = $2")
            .bind(id.as_str())
            .bind(credentials)
            .bind(password_hash)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("raise a password's hash"))
    }

    /// What they sign in with is another now: another password where one is given, or a factor. Sessions are ended apart.
    pub async fn change_credentials(
        &self,
        id: &UserId,
        password_hash: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE users SET password_hash = coalesce($2, password_hash), credentials = credentials + 1
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(password_hash)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("change what a user signs in with"))
    }

    /// Forgets a user with their sessions, tokens, memberships and grants.
    pub async fn delete_user(&self, id: &UserId) -> Result<(), StoreError> {
        let failed = "delete a user";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        for forget in [
            "DELETE FROM grants WHERE subject_kind = 'token'
             AND subject IN (SELECT id FROM api_tokens WHERE owner = $1)",
            "DELETE FROM grants WHERE subject_kind = 'user' AND subject = $1",
            "DELETE FROM users WHERE id = $1",
        ] {
            sqlx::query(forget).bind(id.as_str()).execute(&mut *tx).await.map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Notes a sign-in.
    pub async fn signed_in(&self, id: &UserId, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE users SET last_sign_in_ms = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(now_ms)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("note a sign-in"))
    }

    /// Keeps the hash of a code with which an administrator can be made, in place of those before.
    pub async fn put_setup_code(&self, hash: &[u8; 32], expires_ms: i64) -> Result<(), StoreError> {
        let failed = "keep a setup code";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        sqlx::query("DELETE FROM setup_codes").execute(&mut *tx).await.map_err(doing(failed))?;
        sqlx::query("INSERT INTO setup_codes (hash, expires_ms) VALUES ($1, $2)")
            .bind(hash.as_slice())
            .bind(expires_ms)
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        tx.commit().await.map_err(doing(failed))
    }

    /// Whether there is a setup code.
    pub async fn has_setup_code(&self, now_ms: i64) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM setup_codes WHERE expires_ms > $1)")
            .bind(now_ms)
            .fetch_one(&self.reader)
            .await
            .map_err(doing("look for a setup code"))
    }

    /// Whether a setup code is good. It is used up by [`Store::make_administrator`].
    pub async fn fits_setup_code(&self, hash: &[u8; 32], now_ms: i64) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM setup_codes WHERE hash = $1 AND expires_ms > $2)")
            .bind(hash.as_slice())
            .bind(now_ms)
            .fetch_one(&self.reader)
            .await
            .map_err(doing("look up a setup code"))
    }

    /// Uses a setup code up and makes its user an administrator, new or not: enabled, with this password, without a second
    /// factor, holding Administrator on `/` and nothing else: a token may be a thief's, and a group may be denied what is
    /// needed. `false` when the code is not good (any more).
    pub async fn make_administrator(
        &self,
        code: &[u8; 32],
        user: &UserRow,
        grant_id: &str,
    ) -> Result<bool, StoreError> {
        let failed = "make an administrator";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let used = sqlx::query("DELETE FROM setup_codes WHERE hash = $1 AND expires_ms > $2")
            .bind(code.as_slice())
            .bind(user.created_ms)
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        if used.rows_affected() == 0 {
            return Ok(false);
        }
        for forget in [
            "DELETE FROM sessions WHERE user = $1",
            "DELETE FROM second_factors WHERE user = $1",
            "DELETE FROM recovery_codes WHERE user = $1",
            "DELETE FROM group_members WHERE user = $1",
            "DELETE FROM grants WHERE subject_kind = 'token'
             AND subject IN (SELECT id FROM api_tokens WHERE owner = $1)",
            "DELETE FROM api_tokens WHERE owner = $1",
            "DELETE FROM grants WHERE subject_kind = 'user' AND subject = $1",
        ] {
            sqlx::query(forget).bind(&user.id).execute(&mut *tx).await.map_err(doing(failed))?;
        }
        sqlx::query(
            "INSERT INTO users (id, password_hash, created_ms, credentials) VALUES ($1, $2, $3, $3)
             ON CONFLICT (id) DO UPDATE SET password_hash = excluded.password_hash, disabled = 0,
             credentials = credentials + 1",
        )
        .bind(&user.id)
        .bind(&user.password_hash)
        .bind(user.created_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        sqlx::query(
            "INSERT INTO grants (id, subject_kind, subject, role, path, propagate, created_ms, created_by)
             VALUES ($1, 'user', $2, 'Administrator', '/', 1, $3, 'controller')",
        )
        .bind(grant_id)
        .bind(&user.id)
        .bind(user.created_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        tx.commit().await.map_err(doing(failed))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_made_an_administrator_by_a_code_has_nothing_from_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let had = "INSERT INTO users (id, password_hash, disabled, created_ms) VALUES ('a@local', 'old', 1, 0);
             INSERT INTO second_factors (user, sealed, confirmed, failures) VALUES ('a@local', x'00', 1, 8);
             INSERT INTO recovery_codes (hash, user) VALUES (x'01', 'a@local');
             INSERT INTO groups (name, created_ms) VALUES ('dark', 0);
             INSERT INTO group_members (group_name, user) VALUES ('dark', 'a@local');
             INSERT INTO api_tokens (id, owner, comment, hash, full_scope, networks, created_ms, expires_ms)
             VALUES ('t1', 'a@local', '', x'02', 0, '', 0, 1);
             INSERT INTO grants (id, subject_kind, subject, role, path, propagate, created_ms, created_by) VALUES
             ('g1', 'token', 't1', 'Auditor', '/', 1, 0, ''), ('g2', 'user', 'a@local', 'NoAccess', '/', 1, 0, ''),
             ('g3', 'group', 'dark', 'NoAccess', '/access', 1, 0, '')";
        sqlx::raw_sql(had).execute(&store.writer).await.unwrap();
        store.put_setup_code(&[7; 32], 100).await.unwrap();
        let row = UserRow {
            id: "a@local".to_owned(),
            password_hash: Some("new".to_owned()),
            created_ms: 1,
            ..UserRow::default()
        };
        assert!(store.make_administrator(&[7; 32], &row, "g4").await.unwrap());
        let user: UserId = "a@local".parse().unwrap();
        let there = store.user(&user).await.unwrap().unwrap();
        assert_eq!((there.password_hash.as_deref(), there.disabled), (Some("new"), false));
        assert_eq!(store.factor(&user).await.unwrap(), None);
        assert_eq!(store.tokens(None).await.unwrap(), []);
        let facts = store.facts().await.unwrap();
        assert!(facts.members.values().all(std::collections::BTreeSet::is_empty));
        let grants: Vec<&str> = facts.grants.iter().map(|grant| grant.id.as_str()).collect();
        assert_eq!(grants, ["g3", "g4"], "a group keeps its own");
        assert!(!store.make_administrator(&[7; 32], &row, "g5").await.unwrap(), "a code works once");
    }
}
