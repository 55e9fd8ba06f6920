//! A stream's caller over time: whether its credential still stands, and what it may do as that changes.

use std::sync::Arc;
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::Status;

use super::call::Call;
use crate::access::policy::Policy;
use crate::access::principal::{Principal, Via};
use crate::access::sessions::Ended;
use crate::app::App;

/// The credential is looked at again this often, whatever was heard: another controller may have ended it.
const LOOK: Duration = Duration::from_secs(3);

/// The caller of a stream.
#[derive(Debug)]
pub(super) struct Standing {
    principal: Principal,
    endings: broadcast::Receiver<Ended>,
    policies: watch::Receiver<Arc<Policy>>,
    look: tokio::time::Interval,
    /// The rights changed while something was sent.
    moved: bool,
}

impl Standing {
    pub(super) fn of(app: &App, call: &Call) -> Result<Self, Status> {
        let principal = call.principal()?.clone();
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut policies = app.registry.changes();
        // What changed between the gate and here counts as changed.
        policies.mark_changed();
        Ok(Self { principal, endings: app.sessions.endings(), policies, look, moved: false })
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Waits until the caller's rights may have changed; refuses once its credential has ended. Can be dropped while it
    /// waits, and asked again.
    pub(super) async fn changed(&mut self, app: &App) -> Result<(), Status> {
        if !std::mem::take(&mut self.moved) {
            self.heard(app).await?;
        }
        Ok(())
    }

    /// Sends a message, unless the credential ends first: a reader that doesn't read for a while must not find what came
    /// after that. Rights that change meanwhile are told by [`Standing::changed`].
    pub(super) async fn send<T>(
        &mut self,
        app: &App,
        outgoing: &mpsc::Sender<Result<T, Status>>,
        message: T,
    ) -> Result<(), Status> {
        loop {
            tokio::select! {
                biased;
                heard = self.heard(app) => {
                    heard?;
                    self.moved = true;
                }
                room = outgoing.reserve() => {
                    room.map_err(|_| Status::cancelled("the reader left"))?.send(Ok(message));
                    return Ok(());
                }
            }
        }
    }

    async fn heard(&mut self, app: &App) -> Result<(), Status> {
        loop {
            tokio::select! {
                ended = self.endings.recv() => {
                    if ended.is_ok_and(|ended| self.is_of(&ended)) {
                        return Err(over());
                    }
                }
                _ = self.look.tick() => self.look(app).await?,
                changed = self.policies.changed() => {
                    changed.map_err(|_| Status::unavailable("the controller is stopping"))?;
                    let policy = Arc::clone(&self.policies.borrow_and_update());
                    let is_known = match &self.principal.via {
                        Via::Session { .. } => true,
                        Via::Token { id } => policy.facts().tokens.contains_key(id),
                    };
                    if !is_known || !policy.facts().users.contains(&self.principal.user) {
                        return Err(over());
                    }
                    let Principal { user, via, source, .. } = &self.principal;
                    self.principal = Principal::new(user.clone(), via.clone(), *source, policy, clock::unix_ms());
                    return Ok(());
                }
            }
        }
    }

    fn is_of(&self, ended: &Ended) -> bool {
        match (&self.principal.via, ended) {
            (Via::Session { id, .. }, Ended::Session(ended)) => id == ended,
            (Via::Session { id, .. }, Ended::AllOf { user, but }) => {
                *user == self.principal.user && but.as_ref() != Some(id)
            }
            (Via::Token { id }, Ended::Token(ended)) => id == ended,
            (Via::Token { .. }, Ended::Session(_) | Ended::AllOf { .. })
            | (Via::Session { .. }, Ended::Token(_)) => false,
        }
    }

    async fn look(&self, app: &App) -> Result<(), Status> {
        let now_ms = clock::unix_ms();
        let stands = match &self.principal.via {
            Via::Session { id, .. } => match app.sessions.standing(id, now_ms).await {
                Ok(row) => row.is_some(),
                // A busy store says nothing of the session; it is asked again.
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "session not checked");
                    true
                }
            },
            Via::Token { id } => match app.store.token(id).await {
                Ok(row) => row.is_some_and(|row| now_ms < row.expires_ms),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "API token not checked");
                    true
                }
            },
        };
        stands.then_some(()).ok_or_else(over)
    }
}

fn over() -> Status {
    Status::unauthenticated("the session is over: sign in again")
}
