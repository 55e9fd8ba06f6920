//! Requests by the id that their caller gave: a repetition is answered and not repeated, nor carried out twice at once.

use super::{Store, StoreError, doing};

/// Ids are remembered for so long.
const KEPT_MS: i64 = 24 * 3600 * 1000;

/// How a request id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's now, to be settled.
    New,
    /// The same request is being carried out.
    Running,
    /// The same request was carried out.
    Done,
    /// The id stands for another request.
    Other,
}

impl Store {
    /// Takes an id for the request of this mark, if nobody has it.
    pub async fn claim_request(
        &self,
        actor: &str,
        id: &str,
        mark: &[u8; 32],
        now_ms: i64,
    ) -> Result<Claim, StoreError> {
        let failed = "claim a request id";
        let mut tx = self.writer.begin().await.map_err(doing(failed))?;
        let claimed = sqlx::query(
            "INSERT INTO requests (actor, id, mark, done, at_ms) VALUES ($1, $2, $3, 0, $4) ON CONFLICT DO NOTHING",
        )
        .bind(actor)
        .bind(id)
        .bind(mark.as_slice())
        .bind(now_ms)
        .execute(&mut *tx)
        .await
        .map_err(doing(failed))?;
        let claim = if claimed.rows_affected() > 0 {
            Claim::New
        } else {
            let before: (Vec<u8>, bool) =
                sqlx::query_as("SELECT mark, done FROM requests WHERE actor = $1 AND id = $2")
                    .bind(actor)
                    .bind(id)
                    .fetch_one(&mut *tx)
                    .await
                    .map_err(doing(failed))?;
            match before {
                (before, _) if before != mark => Claim::Other,
                (_, true) => Claim::Done,
                (_, false) => Claim::Running,
            }
        };
        tx.commit().await.map_err(doing(failed))?;
        Ok(claim)
    }

    /// Ends a claim: what was carried out is remembered, and what failed may be asked again.
    pub async fn settle_request(&self, actor: &str, id: &str, done: bool) -> Result<(), StoreError> {
        let query = if done {
            "UPDATE requests SET done = 1 WHERE actor = $1 AND id = $2"
        } else {
            "DELETE FROM requests WHERE actor = $1 AND id = $2 AND done = 0"
        };
        sqlx::query(query)
            .bind(actor)
            .bind(id)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("settle a request id"))
    }

    /// Whether this id stands for the request of this mark already.
    pub async fn knows_request(&self, actor: &str, id: &str, mark: &[u8; 32]) -> Result<bool, StoreError> {
        let known = "SELECT EXISTS (SELECT 1 FROM requests WHERE actor = $1 AND id = $2 AND mark = $3)";
        sqlx::query_scalar(known)
            .bind(actor)
            .bind(id)
            .bind(mark.as_slice())
            .fetch_one(&self.reader)
            .await
            .map_err(doing("look up a request id"))
    }

    /// At the start: what was being carried out when the controller ended may be asked again.
    pub async fn drop_claims(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM requests WHERE done = 0")
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("drop claims of request ids"))
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

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: [u8; 32] = [1; 32];

    #[tokio::test]
    async fn an_id_stands_for_one_request_and_is_free_again_when_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let claim = |actor: &'static str, mark| {
            let store = store.clone();
            async move { store.claim_request(actor, "r", &mark, 0).await.unwrap() }
        };
        assert_eq!(claim("alice", MARK).await, Claim::New);
        assert_eq!(claim("alice", MARK).await, Claim::Running);
        assert_eq!(claim("alice", [2; 32]).await, Claim::Other);
        assert_eq!(claim("bob", [2; 32]).await, Claim::New);
        store.settle_request("alice", "r", false).await.unwrap();
        assert_eq!(claim("alice", MARK).await, Claim::New);
        store.settle_request("alice", "r", true).await.unwrap();
        assert_eq!(claim("alice", MARK).await, Claim::Done);
        store.drop_claims().await.unwrap();
        assert_eq!(claim("alice", [2; 32]).await, Claim::Other, "what was done is remembered");
        let knows = async |mark| store.knows_request("alice", "r", &mark).await.unwrap();
        assert_eq!((knows(MARK).await, knows([2; 32]).await), (true, false));
        assert_eq!(claim("bob", MARK).await, Claim::New, "what was cut off is not");
    }
}
