//! The current state, and who watches it. One task owns the model; everybody else sends it what happened or asks it a
//! question. A reader never holds a lock and a slow one never stalls the writer.
//!
//! A controller has one of all its nodes; an agent has one of its own node, for this host's users. Both compute with the
//! same code what they show.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use horcrux_proto::agent::v1::{self as agent, SampleBatch};
use horcrux_proto::name::NodeName;
use horcrux_proto::v1::EventKind;
use horcrux_transport::clock;
use horcrux_transport::tasks::Stop;
use tokio::sync::{broadcast, mpsc, oneshot};

pub mod derive;
pub mod feed;
pub mod fleet;
pub mod names;
pub mod object;
pub mod page;
pub mod select;
pub mod watch;

use feed::{Filter, Sight, Tick};
use fleet::{Applied, Changes, Enrolled, Fleet, LinkId};

/// Changes are gathered for this long: the price in latency of writing to each watcher at most four times a second.
pub const TICK: Duration = Duration::from_millis(250);
/// Messages waiting for the writer. When it is full, streams of agents wait, and their agents shed and count.
const QUEUE: usize = 4096;
/// Ticks that a watcher may lag behind before it starts over from a snapshot: four seconds.
const RING: usize = 16;

/// Tells the model what happened, and asks it.
#[derive(Clone, Debug)]
pub struct Live<S> {
    to_writer: mpsc::Sender<Message<S>>,
}

type Question = Box<dyn FnOnce(&mut Fleet) + Send>;

enum Message<S> {
    Samples { node: NodeName, link: LinkId, batch: Box<SampleBatch>, reply: oneshot::Sender<Applied> },
    Subscribe { filter: Filter<S>, reply: oneshot::Sender<Subscription> },
    Ask(Question),
}

impl<S> std::fmt::Debug for Message<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Samples { .. } => "Samples",
            Self::Subscribe { .. } => "Subscribe",
            Self::Ask(_) => "Ask",
        })
    }
}

/// A place in a group, and the state at the moment of joining it.
#[derive(Debug)]
pub struct Subscription {
    pub snapshot: Vec<Bytes>,
    pub ticks: broadcast::Receiver<Tick>,
    /// Events that the group was told before.
    pub events: u64,
}

/// The writer has ended.
#[derive(Debug, thiserror::Error)]
#[error("the server is stopping")]
pub struct Stopped;

impl From<Stopped> for tonic::Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

/// The task that owns the model.
#[derive(Debug)]
pub struct Writer<S> {
    fleet: Fleet,
    messages: mpsc::Receiver<Message<S>>,
    groups: HashMap<Filter<S>, Group>,
}

#[derive(Debug)]
struct Group {
    ticks: broadcast::Sender<Tick>,
    events: u64,
}

/// The owner of a model, and its door.
#[must_use]
pub fn new<S: Sight>(fleet: Fleet) -> (Live<S>, Writer<S>) {
    let (to_writer, messages) = mpsc::channel(QUEUE);
    (Live { to_writer }, Writer { fleet, messages, groups: HashMap::new() })
}

impl<S: Sight> Live<S> {
    /// Asks the model something, or tells it.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Fleet) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let ask = Message::Ask(Box::new(move |fleet| {
            // An asker that went away needs no answer.
            drop(reply.send(question(fleet)));
        }));
        self.to_writer.send(ask).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    pub async fn samples(
        &self,
        node: &NodeName,
        link: LinkId,
        batch: Box<SampleBatch>,
    ) -> Result<Applied, Stopped> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Samples { node: node.clone(), link, batch, reply };
        self.to_writer.send(message).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    pub async fn subscribe(&self, filter: Filter<S>) -> Result<Subscription, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.to_writer.send(Message::Subscribe { filter, reply }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    pub async fn attached(&self, node: &NodeName, link: LinkId, hello: agent::Hello) -> Result<(), Stopped> {
        let node = node.clone();
        self.ask(move |fleet| fleet.attached(&node, link, &hello, clock::monotonic(), clock::unix_ms())).await
    }

    pub async fn detached(&self, node: &NodeName, link: LinkId) -> Result<(), Stopped> {
        let node = node.clone();
        self.ask(move |fleet| fleet.detached(&node, link, clock::unix_ms())).await
    }

    pub async fn enrolled(&self, node: Enrolled) -> Result<(), Stopped> {
        self.ask(move |fleet| {
            let now_ms = clock::unix_ms();
            fleet.enrolled(&node, clock::monotonic(), now_ms);
            if let Ok(name) = node.name.parse() {
                fleet.node_event(&name, EventKind::NodeEnrolled, String::new(), now_ms);
            }
        })
        .await
    }

    /// A node is shut out for a reason, or let in again.
    pub async fn locked(&self, node: &NodeName, reason: Option<&str>) -> Result<(), Stopped> {
        let (node, reason) = (node.clone(), reason.map(ToOwned::to_owned));
        self.ask(move |fleet| fleet.locked(&node, reason, clock::unix_ms())).await
    }

    pub async fn deleted(&self, node: &NodeName) -> Result<(), Stopped> {
        let node = node.clone();
        self.ask(move |fleet| fleet.deleted(&node, clock::unix_ms())).await
    }
}

impl<S: Sight> Writer<S> {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: Stop) -> Result<(), std::convert::Infallible> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => self.tick(),
                Some(message) = self.messages.recv() => self.take(message),
            }
        }
    }

    fn take(&mut self, message: Message<S>) {
        match message {
            Message::Samples { node, link, batch, reply } => {
                let applied = self.fleet.samples(&node, link, &batch);
                if applied != Applied::Stale {
                    let (now, now_ms) = (clock::monotonic(), clock::unix_ms());
                    self.fleet.heard(&node, now, now_ms);
                    self.fleet.clock_seen(&node, batch.taken_unix_ms, now, now_ms);
                }
                if reply.send(applied).is_err() {
                    tracing::trace!(%node, "the stream ended before its answer");
                }
            }
            Message::Subscribe { filter, reply } => {
                let snapshot = feed::snapshot(&self.fleet, &filter);
                let group = self
                    .groups
                    .entry(filter)
                    .or_insert_with(|| Group { ticks: broadcast::Sender::new(RING), events: 0 });
                let subscription =
                    Subscription { snapshot, ticks: group.ticks.subscribe(), events: group.events };
                drop(reply.send(subscription));
            }
            Message::Ask(question) => question(&mut self.fleet),
        }
    }

    fn tick(&mut self) {
        let now_ms = clock::unix_ms();
        self.fleet.pass_time(clock::monotonic(), now_ms);
        self.groups.retain(|_, group| group.ticks.receiver_count() > 0);
        let changes: Changes = self.fleet.take_changes();
        for (filter, group) in &mut self.groups {
            let (messages, events) = feed::tick(&self.fleet, &changes, filter, now_ms);
            group.events += events;
            if !messages.is_empty() {
                // Fails only when the last watcher left since the line above.
                drop(group.ticks.send(Tick { messages: Arc::from(messages), events: group.events }));
            }
        }
        self.fleet.settle(&changes);
    }
}
