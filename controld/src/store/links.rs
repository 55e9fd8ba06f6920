//! Guest links. Their secrets are not here: only what they hash to.

use std::collections::HashSet;

use super::{Store, StoreError, doing, places};

/// A link as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LinkRow {
    pub id: String,
    pub hash: Vec<u8>,
    /// `user@realm`.
    pub maker: String,
    /// The id of the API token that made it, where one did.
    pub token: Option<String>,
    /// The VM's uuid.
    pub vm: String,
    pub kind: i32,
    pub mode: i32,
    pub comment: String,
    pub created_ms: i64,
    pub expires_ms: i64,
    pub opened_ms: Option<i64>,
    pub opened_from: Option<String>,
}

impl Store {
    /// Keeps a link, unless its maker has `most` that have not ended.
    pub async fn insert_link(&self, link: &LinkRow, most: i64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO guest_links (id, hash, maker, token, vm, kind, mode, comment, created_ms, expires_ms)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
             WHERE (SELECT count(*) FROM guest_links WHERE maker = $3 AND expires_ms > $9) < $11",
        )
        .bind(&link.id)
        .bind(&link.hash)
        .bind(&link.maker)
        .bind(&link.token)
        .bind(&link.vm)
        .bind(link.kind)
        .bind(link.mode)
        .bind(&link.comment)
        .bind(link.created_ms)
        .bind(link.expires_ms)
        .bind(most)
        .execute(&self.writer)
        .await
        .map_err(doing("store a guest link"))?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn link_by_hash(&self, hash: &[u8], now_ms: i64) -> Result<Option<LinkRow>, StoreError> {
        sqlx::query_as("SELECT * FROM guest_links WHERE hash = $1 AND expires_ms > $2")
            .bind(hash)
            .bind(now_ms)
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a guest link"))
    }

    pub async fn link(&self, id: &str, now_ms: i64) -> Result<Option<LinkRow>, StoreError> {
        sqlx::query_as("SELECT * FROM guest_links WHERE id = $1 AND expires_ms > $2")
            .bind(id)
            .bind(now_ms)
            .fetch_optional(&self.reader)
            .await
            .map_err(doing("look up a guest link"))
    }

    /// Those that have not ended; of one VM, or of all.
    pub async fn links(&self, vm: &str, now_ms: i64) -> Result<Vec<LinkRow>, StoreError> {
        sqlx::query_as(
            "SELECT * FROM guest_links WHERE ($1 = '' OR vm = $1) AND expires_ms > $2 ORDER BY created_ms, id",
        )
        .bind(vm)
        .bind(now_ms)
        .fetch_all(&self.reader)
        .await
        .map_err(doing("list guest links"))
    }

    /// Those of `ids` that are there and have not expired.
    pub async fn standing_links(&self, ids: &[Box<str>], now_ms: i64) -> Result<HashSet<String>, StoreError> {
        let places = places(2, ids.len());
        let query = format!("SELECT id FROM guest_links WHERE expires_ms > $1 AND id IN ({places})");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(now_ms);
        let query = ids.iter().fold(query, |query, id| query.bind(&**id));
        let standing: Vec<String> =
            query.fetch_all(&self.reader).await.map_err(doing("look up guest links"))?;
        Ok(standing.into_iter().collect())
    }

    /// Notes that a guest came with it.
    pub async fn touch_link(&self, id: &str, from: &str, now_ms: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE guest_links SET opened_ms = $2, opened_from = $3 WHERE id = $1")
            .bind(id)
            .bind(now_ms)
            .bind(from)
            .execute(&self.writer)
            .await
            .map(|_| ())
            .map_err(doing("note the use of a guest link"))
    }

    pub async fn delete_link(&self, id: &str) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM guest_links WHERE id = $1").bind(id).execute(&self.writer).await;
        done.map(|_| ()).map_err(doing("revoke a guest link"))
    }

    /// Forgets links that have expired.
    pub async fn purge_links(&self, now_ms: i64) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM guest_links WHERE expires_ms <= $1").bind(now_ms);
        done.execute(&self.writer).await.map(|_| ()).map_err(doing("forget guest links"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::name::UserId;
    use crate::store::users::UserRow;

    fn link(number: u8) -> LinkRow {
        LinkRow {
            id: number.to_string(),
            hash: vec![number; 32],
            maker: "alice@local".to_owned(),
            token: None,
            vm: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
            kind: 2,
            mode: 1,
            comment: "the vendor".to_owned(),
            created_ms: 1000,
            expires_ms: 2000,
            opened_ms: None,
            opened_from: None,
        }
    }

    async fn store(dir: &std::path::Path) -> Store {
        let store = Store::open(dir).await.unwrap();
        let alice = UserRow { id: "alice@local".to_owned(), ..UserRow::default() };
        store.insert_user(&alice).await.unwrap();
        store
    }

    #[tokio::test]
    async fn a_link_is_found_until_it_ends_and_nobody_has_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        for (number, fits) in [(1, true), (2, true), (3, false)] {
            assert_eq!(store.insert_link(&link(number), 2).await.unwrap(), fits);
        }
        assert_eq!(store.link_by_hash(&[1; 32], 1999).await.unwrap(), Some(link(1)));
        assert_eq!(store.link_by_hash(&[3; 32], 1999).await.unwrap(), None);
        assert_eq!(
            (store.link("1", 1999).await.unwrap(), store.link("1", 2000).await.unwrap()),
            (Some(link(1)), None)
        );
        assert_eq!(store.links("", 1999).await.unwrap(), [link(1), link(2)]);
        assert_eq!(store.links("another", 1999).await.unwrap(), []);
        let ids: Vec<Box<str>> = ["1", "2", "3"].map(Into::into).to_vec();
        assert_eq!(store.standing_links(&ids, 1999).await.unwrap().len(), 2);
        assert_eq!(store.standing_links(&ids, 2000).await.unwrap().len(), 0);
        store.delete_link("1").await.unwrap();
        assert_eq!(store.link_by_hash(&[1; 32], 1999).await.unwrap(), None);
        store.purge_links(2000).await.unwrap();
        assert_eq!(store.links("", 0).await.unwrap(), []);
    }

    #[tokio::test]
    async fn links_go_with_their_maker_so_that_another_of_that_name_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        assert!(store.insert_link(&link(1), 9).await.unwrap());
        let alice: UserId = "alice@local".parse().unwrap();
        store.delete_user(&alice).await.unwrap();
        assert_eq!(store.links("", 0).await.unwrap(), []);
    }
}
