//! The record of who may do what, as it is kept: changed one change at a time, and told to everybody who decides by it.

use std::sync::Arc;
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Stop;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::change::{Escalation, check_covers, check_handed_out};
use super::policy::{Facts, Policy, Who};
use crate::store::{Store, StoreError};

/// How often the store is looked at for what others changed: another process on this host, another controller.
const LOOK: Duration = Duration::from_secs(2);

/// Publishes the policy, and lets one change at a time be made.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Store,
    policy: watch::Sender<Arc<Policy>>,
    changing: Arc<Mutex<()>>,
    /// One reads at a time: what was read first must not be published last.
    reading: Arc<Mutex<()>>,
}

/// A change that may be made: nobody else makes one until it is published or dropped.
#[derive(Debug)]
pub struct Plan {
    registry: Registry,
    pub before: Arc<Policy>,
    pub after: Policy,
    _changing: OwnedMutexGuard<()>,
}

impl Registry {
    pub async fn open(store: Store) -> Result<Self, StoreError> {
        let policy = Arc::new(Policy::new(store.facts().await?));
        Ok(Self {
            store,
            policy: watch::Sender::new(policy),
            changing: Arc::default(),
            reading: Arc::default(),
        })
    }

    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Changes when somebody's rights may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    /// Prepares a change by `author`; refused where it gives anyone a privilege that `author` lacks there.
    pub async fn plan<E>(
        &self,
        author: &Who,
        alter: impl FnOnce(&mut Facts) -> Result<(), E>,
    ) -> Result<Plan, E>
    where
        E: From<Escalation>,
    {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        let before = self.policy();
        let mut facts = before.facts().clone();
        alter(&mut facts)?;
        let after = Policy::new(facts);
        check_handed_out(&before, &after, author, clock::unix_ms())?;
        Ok(Plan { registry: self.clone(), before, after, _changing: changing })
    }

    /// Refuses where `author` would get hold of more than it has, by getting hold of `who`.
    pub fn covers(&self, author: &Who, who: &Who) -> Result<(), Escalation> {
        check_covers(&self.policy(), author, who, clock::unix_ms())
    }

    /// Reads what is on record, and publishes it where it is new.
    pub async fn reload(&self) -> Result<(), StoreError> {
        let _reading = self.reading.lock().await;
        let facts = self.store.facts().await?;
        self.policy.send_if_modified(|policy| {
            let is_new = *policy.facts() != facts;
            if is_new {
                *policy = Arc::new(Policy::new(facts));
            }
            is_new
        });
        Ok(())
    }

    /// Keeps the policy up to date until `stop`: with the store, and with grants that end.
    pub async fn run(self, stop: Stop) -> Result<(), std::convert::Infallible> {
        let mut look = tokio::time::interval(LOOK);
        let mut version = None;
        let mut looked_ms = clock::unix_ms();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            let now_ms = clock::unix_ms();
            // Also of a grant that was made after the last look.
            if self.policy().next_end(looked_ms).is_some_and(|end| end <= now_ms) {
                // The facts are the same, and mean something else now.
                self.policy.send_modify(|policy| *policy = Arc::new(Policy::new(policy.facts().clone())));
            }
            looked_ms = now_ms;
            let looked = match self.store.version().await {
                Ok(now) if Some(now) == version => Ok(()),
                Ok(now) => {
                    version = Some(now);
                    self.reload().await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                tracing::warn!(error = %Chain(&error), "who may do what could not be read again");
            }
        }
    }
}

impl Plan {
    /// Publishes what was written to the store. Open streams follow.
    pub async fn publish(self) -> Result<(), StoreError> {
        self.registry.reload().await
    }
}
