//! API tokens and second factors: what programs and people show beside a password.

use std::collections::HashSet;

use super::policy::insert_grant;
use super::{Store, StoreError, doing, places};
use crate::access::name::UserId;
use crate::access::policy::Grant;

/// An API token as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct TokenRow {
    pub id: String,
    /// `user@realm`.
    pub owner: String,
    pub comment: String,
    pub hash: Vec<u8>,
    pub full_scope: bool,
    /// CIDRs, with commas in between.
    pub networks: String,
    pub created_ms: i64,
    pub expires_ms: i64,
    pub last_used_ms: Option<i64>,
    pub last_used_from: Option<String>,
}

/// A TOTP secret as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct FactorRow {
    pub sealed: Vec<u8>,
    pub confirmed: bool,
    pub last_step: i64,
    pub failures: i64,
}

const TOKEN: &str =
    "SELECT id, owner, comment, hash, full_scope, networks, created_ms, expires_ms, last_used_ms,
     last_used_from FROM api_tokens";

impl Store {
    /// All tokens; of one owner where one is given.
    pub async fn tokens(&self, owner: Option<&UserId>) -> Result<Vec<TokenRow>, StoreError> {
        let query = format!("{TOKEN} WHERE $1 IS NULL OR owner = $1 ORDER BY created_ms, id");
        sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(owner.map(UserId::as_str))
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list API tokens"))
    }

    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{TOKEN} WHERE id = $1")))
            .bind(id)
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up an API token"))
    }

    /// Those of `ids` that are there and have not expired.
    pub async fn standing_tokens(
        &self,
        ids: &[Box<str>],
        now_ms: i64,
    ) -> Result<HashSet<String>, StoreError> {
        let places = places(2, ids.len());
        let query = format!("SELECT id FROM api_tokens WHERE expires_ms > $1 AND id IN ({places})");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(now_ms);
        let query = ids.iter().fold(query, |query, id| query.bind(&**id));
        let standing: Vec<String> =
            query.fetch_all(&self.reader).await.map_err(doing("look up API tokens"))?;
        Ok(standing.into_iter().collect())
    }

    pub async fn insert_token(&self, token: &TokenRow, grants: &[Grant]) -> Result<(), StoreError> {
        let failed = "store an API token";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        sqlx::query(
            "INSERT INTO api_tokens (id, owner, comment, hash, full_scope, networks, created_ms, expires_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&token.id)
        .bind(&token.owner)
        .bind(&token.comment)
        .bind(&token.hash)
        .bind(token.full_scope)
        .bind(&token.networks)
        .bind(token.created_ms)
        .bind(token.expires_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        for grant in grants {
            insert_grant(&mut tx, grant).await?;
        }
        tx.commit().await.map_err(doing(failed))
    }

    /// Forgets tokens and their grants: one by its id, or with `None` those that have ended.
    pub async fn delete_tokens(&self, id: Option<&str>, now_ms: i64) -> Result<bool, StoreError> {
        let failed = "revoke API tokens";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let which = "SELECT id FROM api_tokens WHERE id = $1 OR ($1 IS NULL AND expires_ms <= $2)";
        let mut gone = 0;
        for forget in [
            format!("DELETE FROM grants WHERE subject_kind = 'token' AND subject IN ({which})"),
            format!("DELETE FROM api_tokens WHERE id IN ({which})"),
        ] {
            let done = sqlx::query(sqlx::AssertSqlSafe(forget)).bind(id).bind(now_ms).execute(&mut *tx).await;
            gone = done.map_err(doing(failed))?.rows_affected();
        }
        tx.commit().await.map_err(doing(failed))?;
        Ok(gone > 0)
    }

    pub async fn touch_token(&self, id: &str, from: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE api_tokens SET last_used_ms = $2, last_used_from = $3 WHERE id = $1")
            .bind(id)
            .bind(now_ms)
            .bind(from)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("note the use of an API token"))
    }

    pub async fn factor(&self, user: &UserId) -> Result<Option<FactorRow>, StoreError> {
        sqlx::query_as("SELECT sealed, confirmed, last_step, failures FROM second_factors WHERE user = $1")
            .bind(user.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a second factor"))
    }

    /// Users with a confirmed second factor, and their failures.
    pub async fn factors(&self) -> Result<Vec<(String, i64)>, StoreError> {
        sqlx::query_as("SELECT user, failures FROM second_factors WHERE confirmed")
            .fetch_all(&self.reader)
            .await
            .map_err(doing("list second factors"))
    }

    /// Keeps a secret that is not confirmed yet. `false` when the user has one that is.
    pub async fn put_factor(&self, user: &UserId, sealed: &[u8]) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO second_factors (user, sealed) VALUES ($1, $2)
             ON CONFLICT (user) DO UPDATE SET sealed = excluded.sealed, failures = 0 WHERE NOT confirmed",
        )
        .bind(user.as_str())
        .bind(sealed)
        .execute(&self.writer)
        .await;
        done.map(|done| done.rows_affected() == 1).map_err(doing("keep a second factor"))
    }

    /// Takes the code of a step, once: `false` when that step or a later one was taken before, or the secret is another now. A first code confirms the
    /// factor and brings its recovery codes.
    pub async fn take_step(
        &self,
        user: &UserId,
        step: i64,
        sealed: &[u8],
        recovery: &[[u8; 32]],
    ) -> Result<bool, StoreError> {
        let failed = "take a second factor's code";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let done = sqlx::query(
            "UPDATE second_factors SET last_step = $2, failures = 0, confirmed = 1
             WHERE user = $1 AND last_step < $2 AND sealed = $3",
        )
        .bind(user.as_str())
        .bind(step)
        .bind(sealed)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        for hash in recovery {
            sqlx::query("INSERT INTO recovery_codes (hash, user) VALUES ($1, $2)")
                .bind(hash.as_slice())
                .bind(user.as_str())
                .execute(&mut *tx)
                .await
                .map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))?;
        Ok(true)
    }

    /// Uses a recovery code up; it also unlocks the factor.
    pub async fn take_recovery_code(&self, user: &UserId, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let failed = "take a recovery code";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let done = sqlx::query("DELETE FROM recovery_codes WHERE hash = $1 AND user = $2")
            .bind(hash.as_slice())
            .bind(user.as_str())
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("UPDATE second_factors SET failures = 0 WHERE user = $1")
            .bind(user.as_str())
            .execute(&mut *tx)
            .await
            .map_err(doing(failed))?;
        tx.commit().await.map_err(doing(failed))?;
        Ok(true)
    }

    /// Counts an attempt before it is checked, so that no number of attempts at once gets past `most`. `false`: it may not be
    /// made.
    pub async fn attempt_factor(&self, user: &UserId, most: i64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE second_factors SET failures = failures + 1 WHERE user = $1 AND failures < $2",
        )
        .bind(user.as_str())
        .bind(most)
        .execute(&self.writer)
        .await;
        done.map(|done| done.rows_affected() == 1).map_err(doing("count an attempt at a second factor"))
    }

    pub async fn delete_factor(&self, user: &UserId) -> Result<(), StoreError> {
        let failed = "remove a second factor";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        for forget in
            ["DELETE FROM second_factors WHERE user = $1", "DELETE FROM recovery_codes WHERE user = $1"]
        {
            sqlx::query(forget).bind(user.as_str()).execute(&mut *tx).await.map_err(doing(failed))?;
        }
        tx.commit().await.map_err(doing(failed))
    }
}
