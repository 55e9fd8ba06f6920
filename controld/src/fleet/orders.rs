//! Orders to nodes: each is signed for one node and one minute, goes over that node's stream, and is carried out or refused
//! there. What comes back is what the node says.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use horcrux_envelope::Signer;
use horcrux_envelope::v1::Envelope;
pub use horcrux_envelope::v1::envelope::Operation;
use horcrux_proto::agent::v1::{Command, OrderStatus, attach_response, command};
use horcrux_transport::clock;
use prost::Message as _;
use tokio::sync::mpsc;

use super::streams::{NotSaid, Streams};
use crate::access::keys::random_hex;

/// What an order lives: the agent has so long to hand it to horcrux-privd.
const LIFE_MS: i64 = 30_000;
/// How long the node may take to say that it has it, and then to carry it out.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(10);
const DONE_WITHIN: Duration = Duration::from_secs(20);
/// Of one order: that it was accepted, and how it ended.
const ANSWERS: usize = 4;
/// Consoles that a node is ordered to open in a minute. Each is ordered closed once, and 64 are open at most: that is fewer
/// orders than the 300 of which its horcrux-privd takes no more, so that closing is never refused.
const OPENS: usize = 110;
const MINUTE: Duration = Duration::from_secs(60);

/// Why it was not done, or may not have been. The words are the node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    NotSaid(#[from] NotSaid),
    #[error("its horcrux-privd is not reached: {0}")]
    Unreached(String),
    #[error("it doesn't take this controller's orders: {0}")]
    Refused(String),
    /// The node's own policy, which no controller changes.
    #[error("its policy forbids it: {0}")]
    Forbidden(String),
    #[error("{0}")]
    Failed(String),
    /// Nobody knows whether it was done.
    #[error("it is not known whether it was done: {0}")]
    Unknown(String),
    #[error("too many orders in a minute")]
    TooMany,
    #[error("no randomness")]
    Random,
}

impl OrderError {
    /// It is certain that nothing was done.
    #[must_use]
    pub fn is_not_done(&self) -> bool {
        match self {
            Self::NotSaid(_)
            | Self::Unreached(_)
            | Self::Refused(_)
            | Self::Forbidden(_)
            | Self::TooMany
            | Self::Random => true,
            Self::Failed(_) | Self::Unknown(_) => false,
        }
    }
}

/// Sends orders, and hears how they ended.
#[derive(Clone, Debug)]
pub struct Orders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    signer: Signer,
    cluster: String,
    streams: Arc<Streams>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the last order to each node, by its id.
    sequences: HashMap<String, u64>,
    /// When each node was ordered to open something, within the last minute.
    opens: HashMap<String, VecDeque<Instant>>,
    /// By command id: whose answer is awaited, and by whom.
    awaited: HashMap<String, (String, mpsc::Sender<Answer>)>,
}

type Answer = (OrderStatus, String);

impl Orders {
    #[must_use]
    pub(super) fn new(signer: Signer, cluster: &str, streams: Arc<Streams>) -> Self {
        Self(Arc::new(Inner { signer, cluster: cluster.to_owned(), streams, state: Mutex::default() }))
    }

    /// What nodes know this controller's orders by.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        *self.0.signer.public_key().as_bytes()
    }

    /// Has a node carry something out for `actor`, and waits until it says how that went.
    pub async fn carry_out(
        &self,
        node_id: &str,
        actor: &str,
        operation: Operation,
    ) -> Result<(), OrderError> {
        let command_id = random_hex().map_err(|_| OrderError::Random)?;
        let (tell, mut answers) = mpsc::channel(ANSWERS);
        self.state().awaited.insert(command_id.clone(), (node_id.to_owned(), tell));
        let awaited = Awaited { orders: self, command_id: &command_id };
        self.send(node_id, actor, &command_id, operation)?;
        let mut within = ACCEPTED_WITHIN;
        let ended = loop {
            match tokio::time::timeout(within, answers.recv()).await {
                Ok(Some((OrderStatus::Accepted, _))) => within = DONE_WITHIN,
                Ok(Some(answer)) => break ended(answer),
                Ok(None) => break Err(OrderError::Unknown("the node's stream ended".to_owned())),
                Err(_) => break Err(OrderError::Unknown(format!("no answer for {} s", within.as_secs()))),
            }
        };
        drop(awaited);
        ended
    }

    /// Signs and sends, both at once: a node takes orders by their sequence, which must be that of the stream.
    fn send(
        &self,
        node_id: &str,
        actor: &str,
        command_id: &str,
        operation: Operation,
    ) -> Result<(), OrderError> {
        let mut state = self.state();
        if matches!(operation, Operation::ConsoleOpen(_)) {
            let opens = state.opens.entry(node_id.to_owned()).or_default();
            may_open(opens, clock::monotonic())?;
        }
        let now_ms = clock::unix_ms();
        let sequence = state.sequences.entry(node_id.to_owned()).or_default();
        // By the clock, so that it grows over restarts without being kept.
        *sequence = u64::try_from(now_ms).unwrap_or_default().saturating_mul(1000).max(*sequence + 1);
        let envelope = Envelope {
            cluster: self.0.cluster.clone(),
            node_id: node_id.to_owned(),
            command_id: command_id.to_owned(),
            sequence: *sequence,
            issued_unix_ms: now_ms,
            expires_unix_ms: now_ms + LIFE_MS,
            actor: actor.to_owned(),
            operation: Some(operation),
        };
        let order = self.0.signer.sign(&envelope).encode_to_vec().into();
        let command =
            Command { command_id: command_id.to_owned(), action: Some(command::Action::Order(order)) };
        Ok(self.0.streams.say(node_id, attach_response::Message::Command(command))?)
    }

    /// A node said how an order stands. What nobody waits for any more is left.
    pub(super) fn answered(&self, node_id: &str, command_id: &str, answer: Answer) {
        let state = self.state();
        match state.awaited.get(command_id) {
            // Another node's word on it is none.
            Some((of, tell)) if of == node_id => {
                if tell.try_send(answer).is_err() {
                    tracing::debug!(node_id, command_id, "an order was answered more often than it can be");
                }
            }
            Some(_) | None => tracing::debug!(node_id, command_id, "an answer to no order of this node"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An order whose answer is awaited, until this is dropped.
struct Awaited<'a> {
    orders: &'a Orders,
    command_id: &'a str,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.orders.state().awaited.remove(self.command_id);
    }
}

/// Counts one more, unless there were too many.
fn may_open(opens: &mut VecDeque<Instant>, now: Instant) -> Result<(), OrderError> {
    while opens.front().is_some_and(|at| now.saturating_duration_since(*at) >= MINUTE) {
        opens.pop_front();
    }
    if opens.len() >= OPENS {
        return Err(OrderError::TooMany);
    }
    opens.push_back(now);
    Ok(())
}

fn ended((status, why): Answer) -> Result<(), OrderError> {
    Err(match status {
        OrderStatus::Done => return Ok(()),
        OrderStatus::Refused => OrderError::Refused(why),
        OrderStatus::Forbidden => OrderError::Forbidden(why),
        OrderStatus::Unreached => OrderError::Unreached(why),
        OrderStatus::Failed => OrderError::Failed(why),
        OrderStatus::Unknown | OrderStatus::Unspecified | OrderStatus::Accepted => OrderError::Unknown(why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ordered_to_open_no_more_in_any_minute_than_it_takes() {
        let (mut opens, began) = (VecDeque::new(), clock::monotonic());
        let after = |seconds| began + Duration::from_secs(seconds);
        (0..OPENS - 1).for_each(|_| may_open(&mut opens, after(50)).unwrap());
        may_open(&mut opens, after(55)).unwrap();
        assert_eq!(may_open(&mut opens, after(109)), Err(OrderError::TooMany));
        (0..OPENS - 1).for_each(|_| may_open(&mut opens, after(110)).unwrap());
        assert_eq!(may_open(&mut opens, after(114)), Err(OrderError::TooMany));
        may_open(&mut opens, after(115)).unwrap();
    }
}
