//! Local users.

use super::{Store, StoreError, doing};

/// A user as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct User {
    pub name: String,
    pub password_hash: String,
    /// The built-in role held on `/`, by name.
    pub role: Option<String>,
    pub disabled: bool,
}

impl Store {
    pub async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        sqlx::query_as("SELECT name, password_hash, role, disabled FROM users WHERE name = $1")
            .bind(name)
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

    /// Makes the first user; `false` when there is one already.
    pub async fn insert_first_user(&self, user: &User, now_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO users (name, password_hash, role, disabled, created_ms)
             SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM users)",
        )
        .bind(&user.name)
        .bind(&user.password_hash)
        .bind(&user.role)
        .bind(user.disabled)
        .bind(now_ms)
        .execute(&self.writer)
        .await
        .map_err(doing("make the first user"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Makes or replaces a user.
    pub async fn put_user(&self, user: &User, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO users (name, password_hash, role, disabled, created_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO UPDATE SET
                password_hash = excluded.password_hash, role = excluded.role, disabled = excluded.disabled",
        )
        .bind(&user.name)
        .bind(&user.password_hash)
        .bind(&user.role)
        .bind(user.disabled)
        .bind(now_ms)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("store a user"))
    }
}
