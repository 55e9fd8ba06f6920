//! The services: thin over the model.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use horcrux_live::Live;
use horcrux_live::feed::Filter;
use horcrux_live::select::{self, NotOne, Objects, Whole, node_name};
use horcrux_live::watch::{OUTGOING, Outgoing, Watcher, follow, wanted};
use horcrux_proto::encoded::WatchService;
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1::container_service_server::ContainerService;
use horcrux_proto::v1::node_service_server::NodeService;
use horcrux_proto::v1::system_service_server::SystemService;
use horcrux_proto::v1::vm_service_server::VmService;
use horcrux_proto::v1::{
    Component, ContainerServiceGetRequest, ContainerServiceGetResponse, ContainerServiceListRequest,
    ContainerServiceListResponse, Count, CreateJoinTokenRequest, CreateJoinTokenResponse, GetHealthRequest,
    GetHealthResponse, GetRecentRequest, GetRecentResponse, GetVersionRequest, GetVersionResponse,
    LockRequest, LockResponse, NodeServiceDeleteRequest, NodeServiceDeleteResponse, NodeServiceGetRequest,
    NodeServiceGetResponse, NodeServiceListRequest, NodeServiceListResponse, UnlockRequest, UnlockResponse,
    VmServiceGetRequest, VmServiceGetResponse, VmServiceListRequest, VmServiceListResponse, WatchRequest,
};
use horcrux_transport::clock;
use horcrux_transport::socket::{LocalPeer, Places, Share};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::followed::Followed;
use crate::local::shown::Everything;

/// Watchers at a time.
const WATCHERS: Share = Share { all: 64, per_user: 16 };

/// What is asked about here.
#[derive(Clone, Debug)]
pub(super) struct Served {
    node: NodeName,
    live: Live<Everything>,
    watchers: Arc<Places>,
    fell_behind: Arc<AtomicU64>,
    started_ms: i64,
}

/// Someone on this host.
struct Local {
    fell_behind: Arc<AtomicU64>,
}

impl Watcher<Everything> for Local {
    async fn changed(&mut self, _: &Filter<Everything>) -> Result<Everything, Status> {
        // There are no rights here that could change.
        std::future::pending().await
    }

    async fn send(&mut self, outgoing: &Outgoing, message: Bytes) -> Result<(), Status> {
        outgoing.send(Ok(message)).await.map_err(|_| Status::cancelled("the reader left"))
    }

    fn fell_behind(&self) {
        self.fell_behind.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("a watcher fell behind");
    }
}

/// What only a controller has.
pub(super) fn elsewhere() -> Status {
    Status::unimplemented(
        "this is an agent on its own: it shows its node, and what is on it, as they are now; for all else ask a controller, \
         with `horcruxctl` and no --agent",
    )
}

fn not_one(not: &NotOne) -> Status {
    match not {
        NotOne::None { what, asked } => Status::not_found(format!("no {what} {asked:?} is on this node")),
        NotOne::Several { .. } | NotOne::Empty => Status::invalid_argument(not.to_string()),
    }
}

impl Served {
    pub(super) fn new(node: NodeName, live: Live<Everything>) -> Self {
        Self {
            node,
            live,
            watchers: Arc::new(Places::new(WATCHERS)),
            fell_behind: Arc::default(),
            started_ms: clock::unix_ms(),
        }
    }

    async fn objects(
        &self,
        wanted: impl Fn(&Resource, &NodeName) -> bool + Send + 'static,
    ) -> Result<Objects, Status> {
        Ok(self.live.ask(move |fleet| select::objects(fleet, wanted)).await?)
    }

    async fn whole(&self, resource: Resource) -> Result<Whole, Status> {
        let nowhere = Status::not_found(format!("{resource} is not on this node"));
        self.live.ask(move |fleet| select::whole(fleet, &resource)).await?.ok_or(nowhere)
    }

    /// A list may name its node; it is this one or none.
    fn check_node(&self, name: &str) -> Result<(), Status> {
        if name.is_empty() || node_name(name)? == self.node {
            return Ok(());
        }
        Err(Status::not_found(format!("{name} is not here: this is the agent of nodes/{}", self.node)))
    }
}

#[tonic::async_trait]
impl NodeService for Served {
    async fn list(
        &self,
        request: Request<NodeServiceListRequest>,
    ) -> Result<Response<NodeServiceListResponse>, Status> {
        let request = request.into_inner();
        let objects = self.objects(|resource, _| matches!(resource, Resource::Node(_))).await?;
        Ok(Response::new(select::node_list(objects, request.page_size, &request.page_token)))
    }

    async fn get(
        &self,
        request: Request<NodeServiceGetRequest>,
    ) -> Result<Response<NodeServiceGetResponse>, Status> {
        let name = request.into_inner().name;
        self.check_node(&name)?;
        let found = self.whole(Resource::Node(node_name(&name)?)).await?;
        select::node(found).map(Response::new)
    }

    async fn delete(
        &self,
        _: Request<NodeServiceDeleteRequest>,
    ) -> Result<Response<NodeServiceDeleteResponse>, Status> {
        Err(elsewhere())
    }

    async fn lock(&self, _: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        Err(elsewhere())
    }

    async fn unlock(&self, _: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        Err(elsewhere())
    }

    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        Err(elsewhere())
    }
}

#[tonic::async_trait]
impl VmService for Served {
    async fn list(
        &self,
        request: Request<VmServiceListRequest>,
    ) -> Result<Response<VmServiceListResponse>, Status> {
        let request = request.into_inner();
        self.check_node(&request.node)?;
        let objects = self.objects(|resource, at| select::is_vm(resource, at, None)).await?;
        Ok(Response::new(select::vm_list(objects, request.page_size, &request.page_token)))
    }

    async fn get(
        &self,
        request: Request<VmServiceGetRequest>,
    ) -> Result<Response<VmServiceGetResponse>, Status> {
        let asked = request.into_inner().name;
        let resource = match select::vm_by_uuid(&asked) {
            Some(resource) => resource,
            None => {
                let all = self.objects(|resource, at| select::is_vm(resource, at, None)).await?;
                select::vm_named(all, &asked).map_err(|not| not_one(&not))?
            }
        };
        let found = self.whole(resource).await?;
        select::vm(found).map(Response::new)
    }
}

#[tonic::async_trait]
impl ContainerService for Served {
    async fn list(
        &self,
        request: Request<ContainerServiceListRequest>,
    ) -> Result<Response<ContainerServiceListResponse>, Status> {
        let request = request.into_inner();
        self.check_node(&request.node)?;
        let objects = self.objects(|resource, at| select::is_container(resource, at, None)).await?;
        Ok(Response::new(select::container_list(objects, request.page_size, &request.page_token)))
    }

    async fn get(
        &self,
        request: Request<ContainerServiceGetRequest>,
    ) -> Result<Response<ContainerServiceGetResponse>, Status> {
        let asked = request.into_inner().name;
        let all = self.objects(|resource, at| select::is_container(resource, at, None)).await?;
        let resource = select::container_named(all, &asked).map_err(|not| not_one(&not))?;
        let found = self.whole(resource).await?;
        select::container(found).map(Response::new)
    }
}

#[tonic::async_trait]
impl WatchService for Served {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let who = request.extensions().get::<LocalPeer>().copied();
        let request = request.into_inner();
        let wanted = wanted(&request, |_| Everything)?;
        if !wanted.pools.is_empty() {
            return Err(elsewhere());
        }
        for node in &wanted.nodes {
            self.check_node(node.as_str())?;
        }
        let LocalPeer { uid } = who.ok_or_else(|| Status::internal("the socket does not say who asks"))?;
        let place = self.watchers.enter(uid);
        let place = place.ok_or_else(|| Status::resource_exhausted("too many watch this agent"))?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let live = self.live.clone();
        let mut watcher = Local { fell_behind: Arc::clone(&self.fell_behind) };
        let work = Box::pin(async move {
            follow(&live, env!("CARGO_PKG_VERSION"), &mut watcher, wanted, &outgoing).await
        });
        Ok(Response::new(Box::pin(Followed::new(work, messages, place))))
    }

    async fn get_recent(&self, _: Request<GetRecentRequest>) -> Result<Response<GetRecentResponse>, Status> {
        Err(elsewhere())
    }
}

#[tonic::async_trait]
impl SystemService for Served {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: "horcrux.v1".to_owned(),
            setup_required: false,
        }))
    }

    async fn get_health(&self, _: Request<GetHealthRequest>) -> Result<Response<GetHealthResponse>, Status> {
        let mut counts: Vec<Count> = self
            .live
            .ask(|fleet| fleet.counts.clone())
            .await?
            .into_iter()
            .map(|(name, value)| Count { name: name.to_owned(), value })
            .collect();
        let value = self.fell_behind.load(Ordering::Relaxed);
        counts.push(Count { name: "watchers_fell_behind".to_owned(), value });
        Ok(Response::new(GetHealthResponse {
            components: vec![Component { name: "live".into(), ok: true, detail: String::new() }],
            started_unix_ms: self.started_ms,
            counts,
        }))
    }
}
