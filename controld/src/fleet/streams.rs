//! Which stream is each node's, why it is ended from here, and whether two agents take turns at being one node.
//!
//! An agent's epoch is the time of its start, and grows with each: a hello with an older one than the hello before it comes
//! from another agent with the same identity, or from one whose state was put back. Either mixes two histories under one
//! name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{AttachResponse, attach_response};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::live::fleet::LinkId;

/// Two agents throw each other out every second or so: that is told once in so long.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// By node id.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<String, Known>>);

/// What is known of a node's streams; no more than one record for each enrolled node.
#[derive(Debug, Default)]
struct Known {
    current: Option<Current>,
    /// Of the newest hello.
    epoch: u64,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Current {
    link: LinkId,
    ending: oneshot::Sender<Ending>,
    replies: Replies,
}

/// What goes to one agent.
pub type Replies = mpsc::Sender<Result<AttachResponse, Status>>;

/// A node has no stream, or one that doesn't take anything at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSaid {
    #[error("the node is not connected")]
    NotConnected,
    #[error("the node takes nothing at the moment")]
    Full,
}

/// Why a node's stream is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Replaced,
    Locked,
    Removed,
    EnrolledAgain,
    Stopping,
}

/// Whose hello it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// As far as can be told the agent that spoke before, started again or not.
    Same,
    /// Another one, and it is time to say so.
    Another,
    /// Another one, as was said a moment ago.
    AnotherAgain,
}

impl Streams {
    /// A node's stream begins; the one before it is replaced. Learns when this one is to end.
    pub fn begin(&self, node_id: &str, link: LinkId, replies: Replies) -> oneshot::Receiver<Ending> {
        let (sender, ending) = oneshot::channel();
        let new = Current { link, ending: sender, replies };
        let older = self.known(|all| all.entry(node_id.to_owned()).or_default().current.replace(new));
        tell(older, Ending::Replaced);
        ending
    }

    /// Whose hello came with `epoch`.
    pub fn hello(&self, node_id: &str, epoch: u64, now: Instant) -> Speaker {
        self.known(|all| {
            let Some(known) = all.get_mut(node_id) else { return Speaker::Same };
            let before = std::mem::replace(&mut known.epoch, epoch);
            if epoch >= before {
                return Speaker::Same;
            }
            if known.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY) {
                return Speaker::AnotherAgain;
            }
            known.told = Some(now);
            Speaker::Another
        })
    }

    /// A node's stream has ended; nothing where another took its place.
    pub fn ended(&self, node_id: &str, link: LinkId) {
        self.known(|all| {
            if let Some(known) = all.get_mut(node_id)
                && known.current.as_ref().is_some_and(|current| current.link == link)
            {
                known.current = None;
            }
        });
    }

    /// Ends a node's stream.
    pub fn end(&self, node_id: &str, why: Ending) {
        let current = self.known(|all| match why {
            Ending::Replaced | Ending::Locked | Ending::Stopping => {
                all.get_mut(node_id).and_then(|known| known.current.take())
            }
            // Who comes next begins anew.
            Ending::Removed | Ending::EnrolledAgain => all.remove(node_id).and_then(|known| known.current),
        });
        tell(current, why);
    }

    /// Says something to a node, in the order in which this is called.
    pub fn say(&self, node_id: &str, message: attach_response::Message) -> Result<(), NotSaid> {
        let response = AttachResponse { message: Some(message) };
        self.known(|all| {
            let current = all.get(node_id).and_then(|known| known.current.as_ref());
            current.ok_or(NotSaid::NotConnected)?.replies.try_send(Ok(response)).map_err(
                |error| match error {
                    mpsc::error::TrySendError::Full(_) => NotSaid::Full,
                    mpsc::error::TrySendError::Closed(_) => NotSaid::NotConnected,
                },
            )
        })
    }

    /// How many nodes have a stream.
    pub fn count(&self) -> usize {
        self.known(|all| all.values().filter(|known| known.current.is_some()).count())
    }

    fn known<T>(&self, with: impl FnOnce(&mut HashMap<String, Known>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream that has ended by itself needs no reason.
fn tell(stream: Option<Current>, why: Ending) {
    if let Some(current) = stream {
        current.ending.send(why).ok();
    }
}

impl From<Ending> for Status {
    /// What the agent is told, and the log. It tries again after all of these: what shuts it out is said at the door.
    fn from(why: Ending) -> Self {
        Self::aborted(match why {
            Ending::Replaced => "another stream of this node took this one's place",
            Ending::Locked => "this node was locked",
            Ending::Removed => "this node was removed",
            Ending::EnrolledAgain => "this node was enrolled again",
            Ending::Stopping => "the controller is stopping",
        })
    }
}

#[cfg(test)]
mod tests {
    use horcrux_transport::clock;

    use super::*;

    #[test]
    fn a_stream_learns_why_it_is_ended() {
        let streams = Streams::default();
        let mut first = streams.begin("a", LinkId(1), mpsc::channel(1).0);
        let mut second = streams.begin("a", LinkId(2), mpsc::channel(1).0);
        assert_eq!(first.try_recv(), Ok(Ending::Replaced));
        streams.ended("a", LinkId(1));
        assert_eq!(streams.count(), 1, "the one that took its place goes on");
        streams.end("a", Ending::Locked);
        assert_eq!(second.try_recv(), Ok(Ending::Locked));
        let mut third = streams.begin("a", LinkId(3), mpsc::channel(1).0);
        streams.end("a", Ending::Removed);
        assert_eq!(third.try_recv(), Ok(Ending::Removed));
        assert_eq!(streams.count(), 0);
        let texts =
            [Ending::Replaced, Ending::Locked, Ending::Removed, Ending::EnrolledAgain, Ending::Stopping]
                .map(|why| Status::from(why).message().to_owned());
        assert!(texts.iter().all(|text| !text.contains(" or ")), "each has its own: {texts:?}");
    }

    #[test]
    fn an_epoch_that_goes_back_is_of_another_agent_and_is_told_once_a_minute() {
        let streams = Streams::default();
        let now = clock::monotonic();
        let hello = |node: &str, epoch, second| {
            drop(streams.begin(node, LinkId(epoch), mpsc::channel(1).0));
            streams.hello(node, epoch, now + Duration::from_secs(second))
        };
        assert_eq!(hello("a", 100, 0), Speaker::Same);
        assert_eq!(hello("a", 100, 1), Speaker::Same, "it dialed again");
        assert_eq!(hello("a", 200, 2), Speaker::Same, "it was started again, for all that can be told");
        assert_eq!(hello("b", 50, 2), Speaker::Same, "another node");
        assert_eq!(hello("a", 100, 3), Speaker::Another);
        assert_eq!(hello("a", 200, 4), Speaker::Same);
        assert_eq!(hello("a", 100, 5), Speaker::AnotherAgain);
        assert_eq!(hello("a", 200, 62), Speaker::Same);
        assert_eq!(hello("a", 100, 63), Speaker::Another);
        streams.end("a", Ending::EnrolledAgain);
        assert_eq!(hello("a", 1, 64), Speaker::Same, "an identity of its own");
    }
}
