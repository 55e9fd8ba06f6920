//! Lists that come in pages.

use std::future::Future;

use crate::failure::Failure;

/// A server that never ends its pages is not followed for ever: this is ten million objects.
const MAX_PAGES: usize = 10_000;

/// All pages, in order.
pub(crate) async fn all<T, F>(page: impl Fn(String) -> F) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<(Vec<T>, String), Failure>>,
{
    first(usize::MAX, page).await
}

/// The first `limit` objects, in order.
pub(crate) async fn first<T, F>(limit: usize, page: impl Fn(String) -> F) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<(Vec<T>, String), Failure>>,
{
    let mut all = Vec::new();
    let mut token = String::new();
    for _ in 0..MAX_PAGES {
        let (objects, next) = page(token).await?;
        all.extend(objects);
        if next.is_empty() || all.len() >= limit {
            all.truncate(limit);
            return Ok(all);
        }
        token = next;
    }
    Err(Failure::Refused("the controller's list does not end".to_owned()))
}
