//! Tickets for consoles. Their secrets are not here: only what they hash to.

use super::{Store, StoreError, doing};

/// A ticket as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct TicketRow {
    pub hash: Vec<u8>,
    /// `user@realm`.
    pub user: String,
    /// A session's id, or `token ID`.
    pub credential: String,
    /// The VM's uuid.
    pub vm: String,
    /// The node's name.
    pub node: String,
    /// When the VM was started, where that is known.
    pub started_ms: Option<i64>,
    pub kind: i32,
    pub mode: i32,
    pub created_ms: i64,
    pub expires_ms: i64,
}

impl Store {
    /// Keeps a ticket, unless its user has `most` that can still be used.
    pub async fn insert_ticket(&self, ticket: &TicketRow, most: i64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO console_tickets
                (hash, user, credential, vm, node, started_ms, kind, mode, created_ms, expires_ms)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
             WHERE (SELECT count(*) FROM console_tickets
                    WHERE user = $2 AND used_ms IS NULL AND expires_ms > $9) < $11",
        )
        .bind(&ticket.hash)
        .bind(&ticket.user)
        .bind(&ticket.credential)
        .bind(&ticket.vm)
        .bind(&ticket.node)
        .bind(ticket.started_ms)
        .bind(ticket.kind)
        .bind(ticket.mode)
        .bind(ticket.created_ms)
        .bind(ticket.expires_ms)
        .bind(most)
        .execute(&self.writer)
        .await
        .map_err(doing("store a console ticket"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Uses a ticket up: whoever comes with it again finds none, whatever becomes of this use.
    pub async fn redeem_ticket(&self, hash: &[u8], now_ms: i64) -> Result<Option<TicketRow>, StoreError> {
        sqlx::query_as(
            "UPDATE console_tickets SET used_ms = $2
             WHERE hash = $1 AND used_ms IS NULL AND expires_ms > $2
             RETURNING hash, user, credential, vm, node, started_ms, kind, mode, created_ms, expires_ms",
        )
        .bind(hash)
        .bind(now_ms)
        .fetch_optional(&self.writer)
        .await
        .map_err(doing("redeem a console ticket"))
    }

    /// Forgets tickets that have expired.
    pub async fn purge_tickets(&self, now_ms: i64) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM console_tickets WHERE expires_ms <= $1").bind(now_ms);
        done.execute(&self.writer).await.map(|_| ()).map_err(doing("forget console tickets"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(hash: u8) -> TicketRow {
        TicketRow {
            hash: vec![hash; 32],
            user: "alice@local".to_owned(),
            credential: "token 1".to_owned(),
            vm: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
            node: "web1".to_owned(),
            started_ms: Some(7),
            kind: 1,
            mode: 2,
            created_ms: 1000,
            expires_ms: 2000,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_hundred_who_come_with_a_ticket_one_has_it_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let kept = ticket(1);
        assert!(store.insert_ticket(&kept, 9).await.unwrap());
        assert_eq!(store.redeem_ticket(&[2; 32], 1500).await.unwrap(), None);
        let coming: Vec<_> = (0..100)
            .map(|_| {
                let store = store.clone();
                #[allow(clippy::disallowed_methods, reason = "a test awaits each")]
                tokio::spawn(async move { store.redeem_ticket(&[1; 32], 1500).await.unwrap() })
            })
            .collect();
        let mut had = Vec::new();
        for one in coming {
            had.extend(one.await.unwrap());
        }
        assert_eq!(had, [kept]);
        drop(store);
        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!(store.redeem_ticket(&[1; 32], 1501).await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_that_expired_is_none_and_nobody_has_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        for (hash, fits) in [(1, true), (2, true), (3, false)] {
            assert_eq!(store.insert_ticket(&ticket(hash), 2).await.unwrap(), fits);
        }
        assert!(store.redeem_ticket(&[1; 32], 1999).await.unwrap().is_some());
        assert!(store.insert_ticket(&ticket(3), 2).await.unwrap(), "one was used");
        assert_eq!(store.redeem_ticket(&[2; 32], 2000).await.unwrap(), None);
        store.purge_tickets(2000).await.unwrap();
        let mut later = ticket(4);
        (later.created_ms, later.expires_ms) = (2000, 3000);
        assert!(store.insert_ticket(&later, 1).await.unwrap());
    }
}
