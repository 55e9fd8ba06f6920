//! Credentials that have streams open. They are looked at together, every few seconds: another controller, or an end that
//! nobody was told of, may have ended one. An open stream is a use of its session, which doesn't idle out under a reader.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Stop;
use tokio::time::MissedTickBehavior;

use super::principal::Via;
use super::sessions::{Ended, Sessions};
use crate::store::StoreError;

/// With what it takes to tell a stream, below the five seconds in which a change counts.
const LOOK: Duration = Duration::from_secs(3);
/// Asked for in one query.
const AT_ONCE: usize = 500;

/// How many streams each credential has open.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    sessions: Open<String>,
    tokens: Open<Box<str>>,
    links: Open<Box<str>>,
}

/// One open stream's mark; taken back when dropped.
#[derive(Debug)]
pub enum Mark {
    Session(OpenMark<String>),
    Token(OpenMark<Box<str>>),
    Link(OpenMark<Box<str>>),
}

#[derive(Debug)]
struct Open<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Open<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Open<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
pub struct OpenMark<K: Eq + Hash> {
    open: Open<K>,
    id: K,
}

impl<K> Open<K> {
    fn all(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Open<K> {
    fn mark(&self, id: K) -> OpenMark<K> {
        *self.all().entry(id.clone()).or_default() += 1;
        OpenMark { open: self.clone(), id }
    }

    fn ids(&self) -> Vec<K> {
        self.all().keys().cloned().collect()
    }
}

impl<K: Eq + Hash> Drop for OpenMark<K> {
    fn drop(&mut self) {
        let mut all = self.open.all();
        if let Some(count) = all.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.id);
            }
        }
    }
}

impl Watched {
    #[must_use]
    pub fn mark(&self, via: &Via) -> Mark {
        match via {
            Via::Session { id, .. } => Mark::Session(self.sessions.mark(id.clone())),
            Via::Token { id } => Mark::Token(self.tokens.mark(id.clone())),
            Via::Link(link) => Mark::Link(self.links.mark(link.id.clone())),
        }
    }
}

impl Sessions {
    /// Looks at the credentials of open streams until it is told to stop.
    pub async fn watch(self, stop: Stop) -> Result<(), Infallible> {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            // A busy store says nothing of them; it is asked again.
            if let Err(error) = self.look(clock::unix_ms()).await {
                tracing::warn!(error = %Chain(&error), "the sessions of open streams were not checked");
            }
        }
    }

    /// Tells the streams whose credential no longer stands.
    async fn look(&self, now_ms: i64) -> Result<(), StoreError> {
        for ids in self.watched.sessions.ids().chunks(AT_ONCE) {
            let standing = self.store.standing_sessions(ids, self.at(now_ms)).await?;
            for id in ids.iter().filter(|id| !standing.contains_key(*id)) {
                self.told(Ended::Session(id.clone()));
            }
            let used = |(id, last): (String, i64)| (now_ms - last > self.touch_ms()).then_some(id);
            let used: Vec<String> = standing.into_iter().filter_map(used).collect();
            self.store.touch_sessions(&used, now_ms).await?;
        }
        for ids in self.watched.tokens.ids().chunks(AT_ONCE) {
            let standing = self.store.standing_tokens(ids, now_ms).await?;
            for id in ids.iter().filter(|id| !standing.contains(&***id)) {
                self.told(Ended::Token(id.clone()));
            }
        }
        for ids in self.watched.links.ids().chunks(AT_ONCE) {
            let standing = self.store.standing_links(ids, now_ms).await?;
            for id in ids.iter().filter(|id| !standing.contains(&***id)) {
                self.told(Ended::Link(id.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::access::challenges::Proven;
    use crate::access::jwt::Signer;
    use crate::access::sessions::{Client, Visitor};
    use crate::store::Store;
    use crate::store::users::UserRow;

    const NOW_MS: i64 = 1_000_000;

    #[tokio::test]
    async fn a_session_with_a_stream_is_in_use_and_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let alice = UserRow { id: "alice@local".to_owned(), ..UserRow::default() };
        assert!(store.insert_user(&alice).await.unwrap());
        let minutes = |count: u64| Duration::from_secs(count * 60);
        let signer = Arc::new(Signer::open(dir.path(), "cluster").unwrap());
        let sessions = Sessions::new(store, signer, minutes(30), minutes(12 * 60));
        let proven = Proven { user: "alice".parse().unwrap(), credentials: 0 };
        let visitor = Visitor {
            client: Client::Browser,
            source: [127, 0, 0, 1].into(),
            agent: String::new(),
            device: None,
        };
        let (row, _) = sessions.open(&proven, &visitor, NOW_MS).await.unwrap();
        let via = Via::Session { id: row.id.clone(), created_ms: NOW_MS, expires_ms: row.expires_ms };
        let (first, second) = (sessions.watched.mark(&via), sessions.watched.mark(&via));
        let mut endings = sessions.endings();

        sessions.look(NOW_MS + 20 * 60 * 1000).await.unwrap();
        sessions.look(NOW_MS + 40 * 60 * 1000).await.unwrap();
        assert_eq!(endings.try_recv(), Err(TryRecvError::Empty), "it didn't idle out");
        sessions.look(row.expires_ms).await.unwrap();
        assert_eq!(endings.try_recv(), Ok(Ended::Session(row.id.clone())));
        drop(first);
        sessions.look(row.expires_ms).await.unwrap();
        assert_eq!(endings.try_recv(), Ok(Ended::Session(row.id)), "the other stream is still open");
        drop(second);
        sessions.look(row.expires_ms).await.unwrap();
        assert_eq!(endings.try_recv(), Err(TryRecvError::Empty));
    }
}
