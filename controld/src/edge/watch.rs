//! WatchService: a subscription as a stream.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use horcrux_proto::encoded::WatchService;
use horcrux_proto::name::{PoolName, Resource};
use horcrux_proto::v1::{
    Gap, GetRecentRequest, GetRecentResponse, Heartbeat, Hello, Metric, Topic, WatchRequest,
    watch_response::Message,
};
use horcrux_transport::clock;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::call::{Call, absent};
use super::guests::{all_exist, object};
use super::nodes::{invalid, node_name};
use super::stream::Standing;
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::app::{App, sees};
use crate::live::feed::encode;
use crate::live::{Filter, Subscription, TICK, Viewer};

pub(super) struct Watch(pub(super) Arc<App>);

/// Something is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages between a watcher's task and its connection. What doesn't fit waits in the group's ring.
const OUTGOING: usize = 4;
const MAX_FILTERS: usize = 1000;
const MAX_RECENT_METRICS: usize = 20;
const MAX_RECENT_SECONDS: u32 = 3600;

type Outgoing = mpsc::Sender<Result<Bytes, Status>>;

#[tonic::async_trait]
impl WatchService for Watch {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let call = Call::of(&request)?;
        let standing = Standing::of(&self.0, &call)?;
        let request = request.into_inner();
        let wanted = wanted(&request, standing.principal())?;
        all_exist(&self.0, standing.principal(), wanted.nodes.clone()).await?;
        self.all_pools_exist(standing.principal(), &wanted.pools).await?;
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        let app = self.0.clone();
        self.0.watchers.spawn(async move {
            let ended = follow(&app, standing, wanted, &outgoing).await;
            if let Err(status) = ended {
                // A watcher that left doesn't hear it.
                drop(outgoing.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_recent(
        &self,
        request: Request<GetRecentRequest>,
    ) -> Result<Response<GetRecentResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let resource: Resource = request.name.parse().map_err(|e| invalid(&e))?;
        let Some(privilege) = sees(&resource) else {
            return Err(Status::invalid_argument("name: nodes/…, vms/… or containers/…"));
        };
        object(&self.0, &call, privilege, resource.clone()).await?;
        if request.metrics.is_empty() || request.metrics.len() > MAX_RECENT_METRICS {
            return Err(Status::invalid_argument("metrics: 1 to 20"));
        }
        let metrics: Vec<Metric> = request.metrics().collect();
        if metrics.contains(&Metric::Unspecified) {
            return Err(Status::invalid_argument("metrics: one is not known here"));
        }
        let seconds = match request.seconds {
            0 => MAX_RECENT_SECONDS,
            seconds => seconds.min(MAX_RECENT_SECONDS),
        };
        let series = self.0.recent(&resource, &metrics, seconds).await?;
        Ok(Response::new(GetRecentResponse { series }))
    }
}

impl Watch {
    /// A pool is absent to who may neither fill it nor holds anything on it.
    async fn all_pools_exist(&self, principal: &Principal, pools: &BTreeSet<PoolName>) -> Result<(), Status> {
        if pools.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<String> = self.0.store.pools().await?.into_iter().map(|row| row.name).collect();
        let held = |pool: &PoolName| {
            let at = Path::of(&Resource::Pool(pool.clone()));
            !principal.rights.on(&at, principal.policy.labels()).is_empty()
        };
        match pools.iter().find(|pool| !known.contains(pool.as_str()) || !held(pool)) {
            None => Ok(()),
            Some(pool) => Err(absent(&format!("pools/{pool}"))),
        }
    }
}

/// How a watcher's wait ended.
enum Next {
    /// It fell behind by so many ticks, and was told of so many events.
    Behind(u64, u64),
    /// It may see something else now.
    Refiltered,
}

/// Sends a watcher what it is owed until it leaves or may no longer watch.
async fn follow(
    app: &App,
    mut standing: Standing,
    mut filter: Filter,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let hello = Hello {
        controller_version: env!("CARGO_PKG_VERSION").to_owned(),
        server_unix_ms: clock::unix_ms(),
        tick_ms: u32::try_from(TICK.as_millis()).unwrap_or(u32::MAX),
    };
    standing.send(outgoing, encode(Message::Hello(hello))).await?;
    let mut again = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    let mut quiet = true;
    let mut next = None;
    loop {
        let Subscription { snapshot, mut ticks, events: mut seen } =
            app.live.subscribe(filter.clone()).await?;
        // Either way the snapshot replaces all that the watcher holds.
        match next {
            None => {}
            Some(Next::Refiltered) => {
                standing.send(outgoing, encode(Message::Gap(Gap::default()))).await?;
            }
            Some(Next::Behind(missed_ticks, told)) => {
                app.counts.add("watchers_fell_behind");
                // The group lives on while others watch; made anew, it counts from zero.
                let gap = Gap { missed_ticks, missed_events: seen.saturating_sub(told) };
                standing.send(outgoing, encode(Message::Gap(gap))).await?;
            }
        }
        for piece in snapshot {
            standing.send(outgoing, piece).await?;
        }
        next = Some(loop {
            tokio::select! {
                // First what the watcher may no longer see: a snapshot for one that fell behind is taken by it.
                biased;
                changed = standing.changed() => {
                    changed?;
                    let principal = standing.principal();
                    let sight = viewer(principal, &filter.pools);
                    if sight == filter.sight {
                        continue;
                    }
                    if principal.rights.are_empty() {
                        return Err(Status::permission_denied("nothing is granted to you any more"));
                    }
                    filter.sight = sight;
                    break Next::Refiltered;
                }
                tick = ticks.recv() => match tick {
                    Ok(tick) => {
                        quiet = false;
                        seen = tick.events;
                        for message in tick.messages.iter() {
                            standing.send(outgoing, message.clone()).await?;
                        }
                    }
                    // What the ring still holds is superseded by the snapshot.
                    Err(RecvError::Lagged(missed)) => break Next::Behind(missed + ticks.len() as u64, seen),
                    Err(RecvError::Closed) => return Err(Status::unavailable("the controller is stopping")),
                },
                _ = again.tick() => {
                    if quiet {
                        let beat = Heartbeat { server_unix_ms: clock::unix_ms() };
                        standing.send(outgoing, encode(Message::Heartbeat(beat))).await?;
                    }
                    quiet = true;
                }
                () = outgoing.closed() => return Ok(()),
            }
        });
    }
}

fn viewer(principal: &Principal, pools: &BTreeSet<PoolName>) -> Viewer {
    Viewer::new(Arc::clone(&principal.rights), principal.policy.labels(), !pools.is_empty())
}

fn wanted(request: &WatchRequest, principal: &Principal) -> Result<Filter, Status> {
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
        sight: viewer(principal, &pools),
        pools,
    })
}
