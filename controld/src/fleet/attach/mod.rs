//! One agent's stream, from its first message to its end. What a node may say is in [`said`](super::said), how fast it is
//! listened to in [`pace`](super::pace).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use horcrux_envelope::Signer;
use horcrux_proto::agent::v1::{
    Ack, AttachRequest, AttachResponse, Command, Configure, Hello, Inventory, OrderStatus, Resync, Welcome,
    attach_request, attach_response, command,
};
use horcrux_proto::name::NodeName;
use horcrux_proto::packed::Last;
use horcrux_proto::v1::EventKind;
use horcrux_transport::backoff::draw;
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Stop;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::orders::Orders;
use super::pace::{self, PER_STREAM, Pace};
use super::resync::{ASK_AGAIN, Asking, Due};
use super::said::{Malformed, Pieces, bounded, checked_event, checked_inventory, merge};
use super::streams::{Ending, Speaker, Streams};
use crate::config::Cadence;
use crate::live::Live;
use crate::live::fleet::LinkId;
use crate::store::Store;
use crate::store::nodes::{Admitted, NodeRow};
use crate::store::recent::Record;

mod taken;

use taken::Refused;

/// Acks and commands waiting to go to one agent. Acks may be skipped: the next one covers them.
pub const REPLIES: usize = 64;
/// All is declared anew so often, so that what a stream declared long ago, of guests that came and went, can go.
const RENEW_IDS: Duration = Duration::from_secs(3600);
const RENEW_SPREAD: Duration = Duration::from_secs(600);
/// Agents that dial a controller that is back, in a second; a few all the same don't come in the same moment.
const RETURN_PER_SECOND: u32 = 50;
const SPREAD_MS: u32 = 5000;
/// A stream that doesn't say hello isn't an agent.
const HELLO: Duration = Duration::from_secs(10);

/// Serves agents' streams.
#[derive(Clone, Debug)]
pub struct Attachments {
    live: Live,
    store: Store,
    recorder: Recorder,
    cadence: Cadence,
    next_link: Arc<AtomicU64>,
    pace: Arc<Pace>,
    streams: Arc<Streams>,
    orders: Orders,
}

/// One stream, from its hello to its end.
struct Attached<'a> {
    row: &'a NodeRow,
    name: &'a NodeName,
    replies: &'a mpsc::Sender<Result<AttachResponse, Status>>,
    /// Changes when everything is declared again.
    link: LinkId,
    of: Origin,
    /// To declare again.
    asking: Asking,
    /// What it said of each series last.
    last: Last,
    /// Back-fill that was refused since that was in the log.
    refused: Refused,
    /// Something that it brought was not stored.
    owes: Arc<AtomicBool>,
}

impl Attached<'_> {
    fn ack(&self, ack: Ack) -> AckTo {
        AckTo { replies: self.replies.clone(), ack, owes: Arc::clone(&self.owes) }
    }
}

/// Where a batch comes from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    /// When the stream began, or last declared everything again, by the controller's clock.
    stream: i64,
    epoch: u64,
}

/// Keeps samples; a full queue makes the stream wait.
#[derive(Clone, Debug)]
pub struct Recorder(pub mpsc::Sender<(Record, Option<AckTo>)>);

/// Whom to tell when a record is committed.
#[derive(Clone, Debug)]
pub struct AckTo {
    pub replies: mpsc::Sender<Result<AttachResponse, Status>>,
    pub ack: Ack,
    /// A record of the same stream was not: an ack would cover it.
    pub owes: Arc<AtomicBool>,
}

impl Attachments {
    #[must_use]
    pub fn new(
        live: Live,
        store: Store,
        recorder: Recorder,
        cadence: Cadence,
        (signer, cluster): (Signer, &str),
    ) -> Self {
        let next_link = Arc::new(AtomicU64::new(1));
        let streams = Arc::new(Streams::default());
        let orders = Orders::new(signer, cluster, Arc::clone(&streams));
        Self { live, store, recorder, cadence, next_link, pace: Arc::default(), streams, orders }
    }

    /// To have something carried out on a node.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Ends a node's stream.
    pub fn end(&self, node_id: &str, why: Ending) {
        self.pace.forget(node_id);
        self.streams.end(node_id, why);
    }

    /// Serves one stream of the node that `row` says its certificate is for.
    pub async fn serve(
        self,
        row: NodeRow,
        mut incoming: Streaming<AttachRequest>,
        replies: mpsc::Sender<Result<AttachResponse, Status>>,
        stop: Stop,
    ) {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let ending = self.streams.begin(&row.id, link, replies.clone());
        let Ok(name) = row.name.parse::<NodeName>() else { return };
        // Asked after this stream can be ended: a lock or another enrollment from before that is seen here.
        match self.store.admit(&row.id, &row.serial).await {
            Ok(Admitted::Node(_)) => {}
            Ok(Admitted::Locked(_) | Admitted::Retired(_) | Admitted::Unknown) => {
                drop(
                    replies
                        .try_send(Err(Status::permission_denied("this node was locked or enrolled again"))),
                );
                return;
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "node not looked up");
                drop(replies.try_send(Err(Status::unavailable("nodes can't be looked up now"))));
                return;
            }
        }
        let of = Origin { stream: clock::unix_ms(), epoch: 0 };
        let mut stream = Attached {
            row: &row,
            name: &name,
            replies: &replies,
            link,
            of,
            asking: Asking::default(),
            last: Last::default(),
            refused: Refused::default(),
            owes: Arc::default(),
        };
        let ended = tokio::select! {
            ended = self.run(&mut stream, &mut incoming) => ended,
            Ok(why) = ending => Err(why.into()),
            () = stop.cancelled() => Err(Ending::Stopping.into()),
        };
        self.streams.ended(&row.id, link);
        match &ended {
            Ok(()) => tracing::info!(node = %name, "agent closed its stream"),
            Err(status) => tracing::info!(node = %name, reason = status.message(), "agent's stream ended"),
        }
        if let Err(status) = ended {
            // Nobody is there to read it when the connection broke.
            drop(replies.try_send(Err(status)));
        }
        if self.live.detached(&name, stream.link).await.is_err() {
            tracing::debug!("controller is stopping");
        }
    }

    async fn run(
        &self,
        stream: &mut Attached<'_>,
        incoming: &mut Streaming<AttachRequest>,
    ) -> Result<(), Status> {
        let Attached { row, name, replies, link, .. } = *stream;
        let hello = match tokio::time::timeout(HELLO, incoming.message()).await {
            Ok(Ok(Some(AttachRequest { message: Some(attach_request::Message::Hello(hello)) }))) => hello,
            Ok(Ok(_)) => return Err(Status::invalid_argument("the first message must be hello")),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Err(Status::deadline_exceeded("no hello came")),
        };
        let hello = Hello { agent_version: bounded(hello.agent_version), ..hello };
        self.wait(row, PER_STREAM).await;
        tracing::info!(node = %name, version = hello.agent_version, "agent attached");
        let now_ms = clock::unix_ms();
        if let Err(error) = self.store.node_seen(&row.id, &hello.agent_version, now_ms).await {
            tracing::warn!(error = %Chain(&error), "sighting of a node not stored");
        }
        stream.of.epoch = hello.epoch;
        self.check_speaker(row, name, hello.epoch, now_ms).await?;
        self.live.attached(name, link, hello).await?;
        let welcome = Welcome {
            node: format!("nodes/{name}"),
            controller_version: env!("CARGO_PKG_VERSION").to_owned(),
            controller_unix_ms: now_ms,
            reconnect_spread_ms: self.spread_ms(),
        };
        send(replies, attach_response::Message::Welcome(welcome)).await?;
        if let Some(configure) = configure(self.cadence) {
            send(replies, attach_response::Message::Configure(configure)).await?;
        }
        let mut pieces = Pieces::default();
        let mut whole: Option<Inventory> = None;
        // Not all nodes of a restarted controller in the same moment.
        let first = RENEW_IDS + RENEW_SPREAD.mul_f64(draw());
        let mut renew_ids = tokio::time::interval_at(tokio::time::Instant::now() + first, RENEW_IDS);
        let mut look = tokio::time::interval(ASK_AGAIN);
        loop {
            let request = tokio::select! {
                request = incoming.message() => request?,
                _ = renew_ids.tick() => {
                    self.ask_again(stream).await?;
                    continue;
                }
                _ = look.tick() => {
                    if stream.asking.is_awaited() {
                        self.ask_again(stream).await?;
                    }
                    continue;
                }
            };
            let Some(request) = request else { return Ok(()) };
            self.wait(row, pace::cost(request.encoded_len())).await;
            match request.message {
                Some(attach_request::Message::Inventory(inventory)) => {
                    let inventory = checked_inventory(inventory).map_err(refuse)?;
                    let Some(inventory) = pieces.add(inventory).map_err(refuse)? else { continue };
                    let whole = merge(&mut whole, &inventory).map_err(refuse)?;
                    // However little came, the whole is kept.
                    self.wait(row, pace::cost(whole.encoded_len())).await;
                    let record =
                        Record::Inventory { node: name.to_string(), inventory: Box::new(whole.clone()) };
                    self.record(record, None).await?;
                    let node = name.clone();
                    let told = self.live.ask(move |fleet| {
                        fleet.inventory(&node, &inventory);
                        fleet.heard(&node, clock::monotonic(), clock::unix_ms());
                    });
                    told.await?;
                }
                Some(attach_request::Message::Samples(batch)) => {
                    self.samples(stream, batch).await?;
                }
                Some(attach_request::Message::Event(event)) => {
                    let node = name.clone();
                    let event = Box::new(checked_event(event).map_err(refuse)?);
                    let ack = Ack { epoch: stream.of.epoch, sequence: event.sequence, backfill: false };
                    let kept = event.clone();
                    let told = self.live.ask(move |fleet| fleet.event(&node, ack.epoch, &event));
                    told.await?;
                    let record = Record::Event { node: name.to_string(), epoch: ack.epoch, event: kept };
                    self.record(record, Some(stream.ack(ack))).await?;
                }
                Some(attach_request::Message::Backfill(backfill)) => {
                    self.backfill(stream, backfill).await?;
                }
                Some(attach_request::Message::Result(result))
                    if result.order_status() != OrderStatus::Unspecified =>
                {
                    let status = result.order_status();
                    self.orders.answered(&row.id, &result.command_id, (status, bounded(result.error)));
                }
                Some(attach_request::Message::Result(result)) if result.error.is_empty() => {
                    tracing::debug!(node = %name, command = bounded(result.command_id.clone()), "command done");
                    if stream.asking.is_answered(&result.command_id) {
                        self.declares_again(stream).await?;
                    }
                }
                Some(attach_request::Message::Result(result)) => {
                    tracing::warn!(node = %name, command = bounded(result.command_id), error = bounded(result.error), "command failed");
                }
                Some(attach_request::Message::Hello(_)) => {
                    return Err(Status::invalid_argument("hello comes once"));
                }
                // A message of a later version: nothing here needs it.
                None => {}
            }
        }
    }

    /// Says where two agents take turns at being this node: each is thrown out by the other, and what they tell mixes.
    async fn check_speaker(
        &self,
        row: &NodeRow,
        name: &NodeName,
        epoch: u64,
        now_ms: i64,
    ) -> Result<(), Status> {
        match self.streams.hello(&row.id, epoch, clock::monotonic()) {
            Speaker::Same | Speaker::AnotherAgain => return Ok(()),
            Speaker::Another => {}
        }
        tracing::warn!(node = %name, epoch, "two agents use this node's identity, or its agent's state was put back");
        let name = name.clone();
        let told = self.live.ask(move |fleet| {
            let detail = "two agents use it, or its state was put back: remove the copy, or enroll one of the two anew";
            fleet.node_event(&name, EventKind::NodeIdentityShared, detail.to_owned(), now_ms);
        });
        Ok(told.await?)
    }

    /// Within which time agents come back when this controller has gone: fifty in a second at most, on average.
    fn spread_ms(&self) -> u32 {
        u32::try_from(self.streams.count())
            .unwrap_or(u32::MAX)
            .saturating_mul(1000 / RETURN_PER_SECOND)
            .max(SPREAD_MS)
    }

    /// Asks for all declarations anew, unless an answer is awaited already. Ends a stream that doesn't answer.
    async fn ask_again(&self, stream: &mut Attached<'_>) -> Result<(), Status> {
        let now = clock::monotonic();
        match stream.asking.due(now) {
            Due::Ask => {}
            Due::Nothing => return Ok(()),
            Due::End => {
                return Err(Status::aborted("the agent was asked to declare its series again and did not"));
            }
        }
        let command_id = format!("resync-{}", self.next_link.fetch_add(1, Ordering::Relaxed));
        let resync =
            Command { command_id: command_id.clone(), action: Some(command::Action::Resync(Resync {})) };
        stream.asking.asked(command_id, now);
        send(stream.replies, attach_response::Message::Command(resync)).await
    }

    /// What comes from here on uses ids that are declared from here on, as on another stream.
    async fn declares_again(&self, stream: &mut Attached<'_>) -> Result<(), Status> {
        let (old, new) = (stream.link, LinkId(self.next_link.fetch_add(1, Ordering::Relaxed)));
        let node = stream.name.clone();
        let told = self.live.ask(move |fleet| {
            let is_current = fleet.is_current(&node, old);
            if is_current {
                fleet.replays(&node, new, clock::monotonic());
            }
            is_current
        });
        if !told.await? {
            return Err(Status::aborted("this stream was replaced"));
        }
        stream.link = new;
        stream.of.stream = clock::unix_ms().max(stream.of.stream + 1);
        Ok(())
    }

    async fn wait(&self, row: &NodeRow, cost: Duration) {
        let wait = self.pace.spend(&row.id, cost, clock::monotonic());
        if !wait.is_zero() {
            tracing::debug!(node = row.name, ?wait, "node says more than its share");
            tokio::time::sleep(wait).await;
        }
    }
}

async fn send(
    replies: &mpsc::Sender<Result<AttachResponse, Status>>,
    message: attach_response::Message,
) -> Result<(), Status> {
    let response = AttachResponse { message: Some(message) };
    replies.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent went away"))
}

fn refuse(error: Malformed) -> Status {
    Status::invalid_argument(error.0)
}

fn configure(cadence: Cadence) -> Option<Configure> {
    let ms = |d: Option<Duration>| d.map(|d| u32::try_from(d.as_millis()).unwrap_or(u32::MAX));
    (cadence != Cadence::default()).then(|| Configure {
        node_interval_ms: ms(cadence.node),
        container_interval_ms: ms(cadence.container),
        vm_interval_ms: ms(cadence.vm),
        vm_slow_interval_ms: ms(cadence.vm_slow),
    })
}
