//! A stream's caller over time: whether its credential still stands, and what it may do as that changes.

use std::sync::Arc;
use std::time::Duration;

use horcrux_transport::clock;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::Status;

use super::call::Call;
use crate::access::link::Link;
use crate::access::policy::Policy;
use crate::access::principal::{Principal, Via};
use crate::access::sessions::Ended;
use crate::access::watched::Mark;
use crate::app::{App, StreamPlace};

/// The caller of a stream.
#[derive(Debug)]
pub(super) struct Standing {
    principal: Principal,
    endings: broadcast::Receiver<Ended>,
    policies: watch::Receiver<Arc<Policy>>,
    _watched: Mark,
    _place: StreamPlace,
    /// The rights changed while something was sent.
    moved: bool,
}

impl Standing {
    pub(super) fn of(app: &App, call: &Call) -> Result<Self, Status> {
        let principal = call.principal()?.clone();
        let place = app.streams.enter(&principal.name());
        let place = place.ok_or_else(|| Status::resource_exhausted("you have too many streams open"))?;
        let watched = app.sessions.watched.mark(&principal.via);
        let mut policies = app.registry.changes();
        // What changed between the gate and here counts as changed.
        policies.mark_changed();
        Ok(Self {
            principal,
            endings: app.sessions.endings(),
            policies,
            _watched: watched,
            _place: place,
            moved: false,
        })
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Waits until the caller's rights may have changed; refuses once its credential has ended. Can be dropped while it
    /// waits, and asked again.
    pub(super) async fn changed(&mut self) -> Result<(), Status> {
        if !std::mem::take(&mut self.moved) {
            self.heard().await?;
        }
        Ok(())
    }

    /// Sends a message, unless the credential ends first: a reader that doesn't read for a while must not find what came
    /// after that. Rights that change meanwhile are told by [`Standing::changed`].
    pub(super) async fn send<T>(
        &mut self,
        outgoing: &mpsc::Sender<Result<T, Status>>,
        message: T,
    ) -> Result<(), Status> {
        loop {
            tokio::select! {
                biased;
                heard = self.heard() => {
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

    async fn heard(&mut self) -> Result<(), Status> {
        loop {
            tokio::select! {
                ended = self.endings.recv() => {
                    if ended.is_ok_and(|ended| self.is_of(&ended)) {
                        return Err(self.over());
                    }
                }
                () = expiry(self.principal.link()) => return Err(self.over()),
                changed = self.policies.changed() => {
                    changed.map_err(|_| Status::unavailable("the controller is stopping"))?;
                    let policy = Arc::clone(&self.policies.borrow_and_update());
                    let is_known = match &self.principal.via {
                        Via::Session { .. } => true,
                        Via::Token { id } => policy.facts().tokens.contains_key(id),
                        // Its token's rights are its own: without the token it has none.
                        Via::Link(_) => true,
                    };
                    if !is_known || !policy.facts().users.contains(&self.principal.user) {
                        return Err(self.over());
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
            (Via::Link(link), Ended::Link(ended)) => link.id == *ended,
            (Via::Token { .. }, Ended::Session(_) | Ended::AllOf { .. } | Ended::Link(_))
            | (Via::Session { .. }, Ended::Token(_) | Ended::Link(_))
            | (Via::Link(_), Ended::Session(_) | Ended::AllOf { .. } | Ended::Token(_)) => false,
        }
    }

    fn over(&self) -> Status {
        Status::unauthenticated(match self.principal.link() {
            None => "the session is over: sign in again",
            Some(link) if clock::unix_ms() >= link.expires_ms => "the guest link has expired",
            Some(_) if !self.policies.borrow().facts().users.contains(&self.principal.user) => {
                "the guest link ended with the account of whoever made it"
            }
            Some(_) => "the guest link was taken back",
        })
    }
}

/// Returns when a guest's link ends by itself; never for others, whose end is told.
async fn expiry(link: Option<&Link>) {
    let Some(link) = link else { return std::future::pending().await };
    let left = link.expires_ms.saturating_sub(clock::unix_ms());
    tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or_default())).await;
}
