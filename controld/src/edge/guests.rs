//! VmService and ContainerService: thin over `live`.

use std::collections::BTreeSet;
use std::sync::Arc;

use horcrux_proto::authz::Privilege;
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1::container_service_server::ContainerService;
use horcrux_proto::v1::vm_service_server::VmService;
use horcrux_proto::v1::{
    ContainerServiceGetRequest, ContainerServiceGetResponse, ContainerServiceListRequest,
    ContainerServiceListResponse, MetricValue, Vm, VmServiceGetRequest, VmServiceGetResponse,
    VmServiceListRequest, VmServiceListResponse, entity,
};
use tonic::{Request, Response, Status};

use super::call::{Call, absent};
use super::nodes::node_name;
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::app::App;
use crate::live::fleet::Fleet;
use crate::live::page::page;

pub(super) struct Vms(pub(super) Arc<App>);
pub(super) struct Containers(pub(super) Arc<App>);

/// Names in an error that lists what fits.
const CANDIDATES: usize = 10;

/// One object with its values. Absent and forbidden are the same answer.
pub(super) async fn object(
    app: &App,
    call: &Call,
    privilege: Privilege,
    resource: Resource,
) -> Result<(entity::Object, Vec<MetricValue>), Status> {
    call.require_to_know(app, privilege, &Path::of(&resource))?;
    let nowhere = absent(&resource.to_string());
    let found =
        app.live.ask(move |fleet| fleet.find(&resource).map(|o| (o.entity().object, o.values()))).await;
    match found? {
        Some((Some(object), values)) => Ok((object, values)),
        Some((None, _)) | None => Err(nowhere),
    }
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
        let wanted = move |resource: &Resource, at: &_| {
            matches!(resource, Resource::Vm(_)) && node.as_ref().is_none_or(|node| node == at)
        };
        let objects = self.0.objects(principal, wanted).await?;
        let (objects, next_page_token) = page(objects, request.page_size, &request.page_token);
        let vm = |entity| match entity {
            entity::Object::Vm(vm) => Some(vm),
            entity::Object::Node(_) | entity::Object::Container(_) => None,
        };
        let vms = objects.into_iter().filter_map(|(_, entity)| vm(entity)).collect();
        Ok(Response::new(VmServiceListResponse { vms, next_page_token }))
    }

    async fn get(
        &self,
        request: Request<VmServiceGetRequest>,
    ) -> Result<Response<VmServiceGetResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let asked = request.into_inner().name;
        let bare = asked.strip_prefix("vms/").unwrap_or(&asked);
        let resource = match bare.parse() {
            Ok(uuid) => Resource::Vm(uuid),
            Err(_) => named_vm(&self.0, principal, bare).await?,
        };
        match object(&self.0, &call, Privilege::VmAudit, resource).await? {
            (entity::Object::Vm(vm), values) => {
                Ok(Response::new(VmServiceGetResponse { vm: Some(vm), values }))
            }
            (entity::Object::Node(_) | entity::Object::Container(_), _) => {
                Err(Status::not_found("no such VM"))
            }
        }
    }
}

/// The one VM that is called `name`, or `NODE/name`, among those that the principal sees.
pub(super) async fn named_vm(app: &App, principal: &Principal, name: &str) -> Result<Resource, Status> {
    let vms = app.objects(principal, |resource, _| matches!(resource, Resource::Vm(_))).await?;
    let on = |vm: &Vm, called: &str| name == format!("{}/{called}", vm.node.trim_start_matches("nodes/"));
    let called = |entity: &entity::Object| match entity {
        entity::Object::Vm(vm) => {
            vm.facts.as_ref().is_some_and(|f| f.display_name == name || on(vm, &f.display_name))
        }
        entity::Object::Node(_) | entity::Object::Container(_) => false,
    };
    let fits = vms.into_iter().filter(|(_, entity)| called(entity)).map(|(name, _)| name);
    only_one(&fits.collect::<Vec<_>>(), "VM", name)
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
        let wanted = move |resource: &Resource, at: &_| {
            matches!(resource, Resource::Container(..)) && node.as_ref().is_none_or(|node| node == at)
        };
        let objects = self.0.objects(principal, wanted).await?;
        let (objects, next_page_token) = page(objects, request.page_size, &request.page_token);
        let container = |entity| match entity {
            entity::Object::Container(container) => Some(container),
            entity::Object::Node(_) | entity::Object::Vm(_) => None,
        };
        let containers = objects.into_iter().filter_map(|(_, entity)| container(entity)).collect();
        Ok(Response::new(ContainerServiceListResponse { containers, next_page_token }))
    }

    async fn get(
        &self,
        request: Request<ContainerServiceGetRequest>,
    ) -> Result<Response<ContainerServiceGetResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let asked = request.into_inner().name;
        let resource = self.starting_with(principal, &asked).await?;
        match object(&self.0, &call, Privilege::ContainerAudit, resource).await? {
            (entity::Object::Container(container), values) => {
                Ok(Response::new(ContainerServiceGetResponse { container: Some(container), values }))
            }
            (entity::Object::Node(_) | entity::Object::Vm(_), _) => {
                Err(Status::not_found("no such container"))
            }
        }
    }
}

impl Containers {
    /// The one container whose id begins so, or is called so; with `NODE/` before it, on that node.
    async fn starting_with(&self, principal: &Principal, start: &str) -> Result<Resource, Status> {
        if start.is_empty() {
            return Err(Status::invalid_argument("name: must not be empty"));
        }
        let all =
            self.0.objects(principal, |resource, _| matches!(resource, Resource::Container(..))).await?;
        let path = start.strip_prefix("containers/").unwrap_or(start);
        let (node, bare) = match path.split_once('/') {
            Some((node, bare)) => (Some(format!("nodes/{node}")), bare),
            None => (None, path),
        };
        let fits = |entity: &entity::Object| match entity {
            entity::Object::Container(container) => {
                node.as_ref().is_none_or(|node| *node == container.node)
                    && container.facts.as_ref().is_some_and(|facts| {
                        facts.id.starts_with(bare) || facts.display_name.as_deref() == Some(bare)
                    })
            }
            entity::Object::Node(_) | entity::Object::Vm(_) => false,
        };
        let mut names: Vec<_> =
            all.into_iter().filter(|(_, entity)| fits(entity)).map(|(name, _)| name).collect();
        // What is named in full is meant, though other names begin with it.
        if names.iter().any(|name| name == start) {
            names.retain(|name| name == start);
        }
        only_one(&names, "container", path)
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

fn only_one(names: &[String], what: &str, asked: &str) -> Result<Resource, Status> {
    match names {
        [one] => one.parse().map_err(|_| Status::internal("internal error")),
        [] => Err(Status::not_found(format!("no {what} {asked:?} exists, or it is not yours to see"))),
        several => {
            let listed = several.iter().take(CANDIDATES).map(String::as_str).collect::<Vec<_>>().join(", ");
            let text = format!("{} {what}s fit {asked:?}: {listed}", several.len());
            Err(Status::invalid_argument(text))
        }
    }
}
