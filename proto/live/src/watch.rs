//! One watcher: what it asked for, and what it is sent until it leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use horcrux_proto::name::{PoolName, Resource};
use horcrux_proto::v1::{Gap, Heartbeat, Hello, Topic, WatchRequest, watch_response::Message};
use horcrux_transport::clock;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tonic::Status;

use crate::feed::{Filter, Sight, encode};
use crate::select::node_name;
use crate::{Live, Stopped, Subscription, TICK};

/// Something is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages between a watcher's task and its connection. What doesn't fit waits in the group's ring.
pub const OUTGOING: usize = 4;
const MAX_FILTERS: usize = 1000;

pub type Outgoing = mpsc::Sender<Result<Bytes, Status>>;

/// Who watches.
pub trait Watcher<S>: Send {
    /// Waits until what it may see may have changed, and says what it is now; refuses a watcher that may no longer watch.
    /// Can be dropped while it waits, and asked again.
    fn changed(&mut self, filter: &Filter<S>) -> impl Future<Output = Result<S, Status>> + Send;

    /// Sends a message once there is room for it.
    fn send(
        &mut self,
        outgoing: &Outgoing,
        message: Bytes,
    ) -> impl Future<Output = Result<(), Status>> + Send;

    /// It was too slow, and is told what it missed.
    fn fell_behind(&self);
}

/// How a watcher's wait ended.
enum Next {
    /// It fell behind by so many ticks, and was told of so many events.
    Behind(u64, u64),
    /// It may see something else now.
    Refiltered,
}

/// Sends a watcher what it is owed until it leaves or may no longer watch.
pub async fn follow<S: Sight>(
    live: &Live<S>,
    version: &str,
    watcher: &mut impl Watcher<S>,
    mut filter: Filter<S>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let hello = Hello {
        controller_version: version.to_owned(),
        server_unix_ms: clock::unix_ms(),
        tick_ms: u32::try_from(TICK.as_millis()).unwrap_or(u32::MAX),
    };
    watcher.send(outgoing, encode(Message::Hello(hello))).await?;
    let mut again = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    let mut quiet = true;
    let mut next = None;
    loop {
        let Subscription { snapshot, mut ticks, events: mut seen } = live.subscribe(filter.clone()).await?;
        // Either way the snapshot replaces all that the watcher holds.
        match next {
            None => {}
            Some(Next::Refiltered) => {
                watcher.send(outgoing, encode(Message::Gap(Gap::default()))).await?;
            }
            Some(Next::Behind(missed_ticks, told)) => {
                watcher.fell_behind();
                // The group lives on while others watch; made anew, it counts from zero.
                let gap = Gap { missed_ticks, missed_events: seen.saturating_sub(told) };
                watcher.send(outgoing, encode(Message::Gap(gap))).await?;
            }
        }
        for piece in snapshot {
            watcher.send(outgoing, piece).await?;
        }
        next = Some(loop {
            tokio::select! {
                // First what the watcher may no longer see: a snapshot for one that fell behind is taken by it.
                biased;
                sight = watcher.changed(&filter) => {
                    let sight = sight?;
                    if sight == filter.sight {
                        continue;
                    }
                    filter.sight = sight;
                    break Next::Refiltered;
                }
                tick = ticks.recv() => match tick {
                    Ok(tick) => {
                        quiet = false;
                        seen = tick.events;
                        for message in tick.messages.iter() {
                            watcher.send(outgoing, message.clone()).await?;
                        }
                    }
                    // What the ring still holds is superseded by the snapshot.
                    Err(RecvError::Lagged(missed)) => break Next::Behind(missed + ticks.len() as u64, seen),
                    Err(RecvError::Closed) => return Err(Stopped.into()),
                },
                _ = again.tick() => {
                    if quiet {
                        let beat = Heartbeat { server_unix_ms: clock::unix_ms() };
                        watcher.send(outgoing, encode(Message::Heartbeat(beat))).await?;
                    }
                    quiet = true;
                }
                () = outgoing.closed() => return Ok(()),
            }
        });
    }
}

/// What a request asks for; `sight` says what of it may be seen, given the pools that it names.
pub fn wanted<S>(
    request: &WatchRequest,
    sight: impl FnOnce(&BTreeSet<PoolName>) -> S,
) -> Result<Filter<S>, Status> {
    if request.nodes.len() + request.vms.len() + request.pools.len() > MAX_FILTERS {
        return Err(Status::invalid_argument("at most 1000 filters"));
    }
    let all = [Topic::NodeMetrics, Topic::VmMetrics, Topic::ContainerMetrics, Topic::Status, Topic::Events];
    let topics: BTreeSet<i32> = if request.topics.is_empty() {
        all.iter().map(|&t| t.into()).collect()
    } else {
        request.topics.iter().copied().collect()
    };
    if topics.iter().any(|&t| !all.iter().any(|&known| i32::from(known) == t)) {
        return Err(Status::invalid_argument("topics: one is not known here"));
    }
    let vm = |text: &String| match text.parse() {
        Ok(Resource::Vm(uuid)) => Ok(uuid),
        _ => Err(Status::invalid_argument("vms: each is vms/UUID")),
    };
    let pool = |text: &String| match text.parse() {
        Ok(Resource::Pool(pool)) => Ok(pool),
        _ => Err(Status::invalid_argument("pools: each is pools/POOL")),
    };
    let pools = request.pools.iter().map(pool).collect::<Result<_, _>>()?;
    Ok(Filter {
        topics,
        nodes: request.nodes.iter().map(|n| node_name(n)).collect::<Result<_, _>>()?,
        vms: request.vms.iter().map(vm).collect::<Result<_, _>>()?,
        instances: request.instances,
        sight: sight(&pools),
        pools,
    })
}
