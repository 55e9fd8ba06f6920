//! WatchService: a subscription as a stream.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use horcrux_proto::encoded::WatchService;
use horcrux_proto::name::{PoolName, Resource};
use horcrux_proto::v1::{GetRecentRequest, GetRecentResponse, Metric, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::call::{Call, absent};
use super::guests::{all_exist, object};
use super::stream::Standing;
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::app::{App, sees};
use crate::live::select::invalid;
use crate::live::watch::{OUTGOING, Outgoing, Watcher, follow, wanted};
use crate::live::{Filter, Viewer};

pub(super) struct Watch(pub(super) Arc<App>);

const MAX_RECENT_METRICS: usize = 20;
const MAX_RECENT_SECONDS: u32 = 3600;

#[tonic::async_trait]
impl WatchService for Watch {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let call = Call::of(&request)?;
        let standing = Standing::of(&self.0, &call)?;
        let request = request.into_inner();
        let wanted = wanted(&request, |pools| viewer(standing.principal(), pools))?;
        all_exist(&self.0, standing.principal(), wanted.nodes.clone()).await?;
        self.all_pools_exist(standing.principal(), &wanted.pools).await?;
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        let app = self.0.clone();
        self.0.watchers.spawn(async move {
            let mut caller = Caller { app: &app, standing };
            let version = env!("CARGO_PKG_VERSION");
            let ended = follow(&app.live, version, &mut caller, wanted, &outgoing).await;
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
        Ok(Response::new(self.0.recent(&resource, &metrics, seconds).await?))
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

/// Who watches, by its credential.
struct Caller<'a> {
    app: &'a App,
    standing: Standing,
}

impl Watcher<Viewer> for Caller<'_> {
    async fn changed(&mut self, filter: &Filter) -> Result<Viewer, Status> {
        self.standing.changed().await?;
        let principal = self.standing.principal();
        let sight = viewer(principal, &filter.pools);
        if sight != filter.sight && principal.rights.are_empty() {
            return Err(Status::permission_denied("nothing is granted to you any more"));
        }
        Ok(sight)
    }

    async fn send(&mut self, outgoing: &Outgoing, message: Bytes) -> Result<(), Status> {
        self.standing.send(outgoing, message).await
    }

    fn fell_behind(&self) {
        self.app.counts.add("watchers_fell_behind");
    }
}

fn viewer(principal: &Principal, pools: &BTreeSet<PoolName>) -> Viewer {
    Viewer::new(Arc::clone(&principal.rights), principal.policy.labels(), !pools.is_empty())
}
