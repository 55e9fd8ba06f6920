//! VmService and ContainerService: thin over `live`.

use std::collections::BTreeSet;
use std::sync::Arc;

use horcrux_proto::authz::Privilege;
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1::container_service_server::ContainerService;
use horcrux_proto::v1::vm_service_server::VmService;
use horcrux_proto::v1::{
    ContainerServiceGetRequest, ContainerServiceGetResponse, ContainerServiceListRequest,
    ContainerServiceListResponse, VmServiceGetRequest, VmServiceGetResponse, VmServiceListRequest,
    VmServiceListResponse,
};
use tonic::{Request, Response, Status};

use super::call::{Call, absent};
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::app::App;
use crate::live::fleet::Fleet;
use crate::live::select::{self, NotOne, Whole, node_name};

pub(super) struct Vms(pub(super) Arc<App>);
pub(super) struct Containers(pub(super) Arc<App>);

/// One object with its values. Absent and forbidden are the same answer.
pub(super) async fn object(
    app: &App,
    call: &Call,
    privilege: Privilege,
    resource: Resource,
) -> Result<Whole, Status> {
    call.require_to_know(app, privilege, &Path::of(&resource))?;
    let nowhere = absent(&resource.to_string());
    app.live.ask(move |fleet| select::whole(fleet, &resource)).await?.ok_or(nowhere)
}

#[tonic::async_trait]
impl VmService for Vms {
    async fn list(
        &self,
        request: Request<VmServiceListRequest>,
    ) -> Result<Response<VmServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let request = request.into_inner();
        let node = known_node(&self.0, principal, &request.node).await?;
        let wanted = move |resource: &Resource, at: &_| select::is_vm(resource, at, node.as_ref());
        let objects = self.0.objects(principal, wanted).await?;
        Ok(Response::new(select::vm_list(objects, request.page_size, &request.page_token)))
    }

    async fn get(
        &self,
        request: Request<VmServiceGetRequest>,
    ) -> Result<Response<VmServiceGetResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let asked = request.into_inner().name;
        let resource = match select::vm_by_uuid(&asked) {
            Some(resource) => resource,
            None => named_vm(&self.0, principal, &asked).await?,
        };
        let found = object(&self.0, &call, Privilege::VmAudit, resource).await?;
        select::vm(found).map(Response::new)
    }
}

/// The one VM that is called `name`, or `NODE/name`, among those that the principal sees.
pub(super) async fn named_vm(app: &App, principal: &Principal, name: &str) -> Result<Resource, Status> {
    let vms = app.objects(principal, |resource, at| select::is_vm(resource, at, None)).await?;
    select::vm_named(vms, name).map_err(|not| not_one(&not))
}

#[tonic::async_trait]
impl ContainerService for Containers {
    async fn list(
        &self,
        request: Request<ContainerServiceListRequest>,
    ) -> Result<Response<ContainerServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let request = request.into_inner();
        let node = known_node(&self.0, principal, &request.node).await?;
        let wanted = move |resource: &Resource, at: &_| select::is_container(resource, at, node.as_ref());
        let objects = self.0.objects(principal, wanted).await?;
        Ok(Response::new(select::container_list(objects, request.page_size, &request.page_token)))
    }

    async fn get(
        &self,
        request: Request<ContainerServiceGetRequest>,
    ) -> Result<Response<ContainerServiceGetResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let asked = request.into_inner().name;
        let all = self.0.objects(principal, |resource, at| select::is_container(resource, at, None)).await?;
        let resource = select::container_named(all, &asked).map_err(|not| not_one(&not))?;
        let found = object(&self.0, &call, Privilege::ContainerAudit, resource).await?;
        select::container(found).map(Response::new)
    }
}

/// The node that a list is of; `None` for all. Who may see nodes hears of one that isn't there; to others it is a filter
/// that nothing passes.
async fn known_node(app: &App, principal: &Principal, name: &str) -> Result<Option<NodeName>, Status> {
    let node = (!name.is_empty()).then(|| node_name(name)).transpose()?;
    all_exist(app, principal, node.iter().cloned().collect()).await?;
    Ok(node)
}

/// Refuses nodes that don't exist, to those who would see them.
pub(super) async fn all_exist(
    app: &App,
    principal: &Principal,
    nodes: BTreeSet<NodeName>,
) -> Result<(), Status> {
    let sees = |node: &NodeName| principal.may(Privilege::SysAudit, &Path::of(&Resource::Node(node.clone())));
    let seen: Vec<NodeName> = nodes.into_iter().filter(sees).collect();
    let missing = move |fleet: &mut Fleet| {
        seen.into_iter().find(|node| fleet.find(&Resource::Node(node.clone())).is_none())
    };
    match app.live.ask(missing).await? {
        None => Ok(()),
        Some(node) => Err(absent(&format!("nodes/{node}"))),
    }
}

/// Absent and forbidden are the same answer.
fn not_one(not: &NotOne) -> Status {
    match not {
        NotOne::None { .. } => Status::not_found(format!("{not}, or it is not yours to see")),
        NotOne::Several { .. } | NotOne::Empty => Status::invalid_argument(not.to_string()),
    }
}
