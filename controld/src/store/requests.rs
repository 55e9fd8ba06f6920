//! Requests that were carried out, by the id that their caller gave: a repetition is answered and not repeated.

use super::{Store, StoreError, doing};

/// Ids are remembered for so long.
const KEPT_MS: i64 = 24 * 3600 * 1000;

/// How a request id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    New,
    /// The same request was carried out.
    Done,
    /// The id stood for another request.
    Other,
}

impl Store {
    pub async fn seen_request(&self, actor: &str, id: &str, what: &str) -> Result<Seen, StoreError> {
        let before: Option<String> =
            sqlx::query_scalar("SELECT what FROM requests WHERE actor = $1 AND id = $2")
                .bind(actor)
                .bind(id)
                .fetch_optional(&self.writer)
                .await
                .map_err(doing("look up a request"))?;
        Ok(match before {
            None => Seen::New,
            Some(before) if before == what => Seen::Done,
            Some(_) => Seen::Other,
        })
    }

    pub async fn note_request(
        &self,
        actor: &str,
        id: &str,
        what: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO requests (actor, id, what, at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(actor)
        .bind(id)
        .bind(what)
        .bind(now_ms)
        .execute(&self.writer)
        .await
        .map(|_| ())
        .map_err(doing("remember a request"))
    }

    pub async fn purge_requests(&self, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM requests WHERE at_ms < $1")
            .bind(now_ms - KEPT_MS)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("forget old requests"))
    }
}
