//! NodeService: thin over `live` and `fleet`.

use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::authz::Privilege;
use horcrux_proto::name::{InvalidField, NodeName, Resource};
use horcrux_proto::v1::node_service_server::NodeService;
use horcrux_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, Node, NodeServiceDeleteRequest,
    NodeServiceDeleteResponse, NodeServiceGetRequest, NodeServiceGetResponse, NodeServiceListRequest,
    NodeServiceListResponse, entity,
};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tonic::{Request, Response, Status};

use super::auth::caller;
use super::guests::{object, page};
use crate::app::App;
use crate::fleet::enrollment::{DEFAULT_TTL, EnrollError, MAX_TTL, MIN_TTL};

pub(super) struct Nodes(pub(super) Arc<App>);

impl From<EnrollError> for Status {
    fn from(error: EnrollError) -> Self {
        let message = error.to_string();
        match error {
            EnrollError::Refused => Status::permission_denied(message),
            EnrollError::NameTaken(_) => Status::already_exists(message),
            EnrollError::BadHostname(_) | EnrollError::Request => Status::invalid_argument(message),
            EnrollError::Authority(_) | EnrollError::Store(_) | EnrollError::Random => {
                tracing::error!(error = %Chain(&error), "enrollment failed");
                Status::internal("internal error")
            }
        }
    }
}

pub(super) fn invalid(error: &InvalidField) -> Status {
    Status::invalid_argument(error.to_string())
}

/// `nodes/NODE` or a bare name.
pub(super) fn node_name(text: &str) -> Result<NodeName, Status> {
    text.strip_prefix("nodes/").unwrap_or(text).parse().map_err(|e| invalid(&e))
}

#[tonic::async_trait]
impl NodeService for Nodes {
    async fn list(
        &self,
        request: Request<NodeServiceListRequest>,
    ) -> Result<Response<NodeServiceListResponse>, Status> {
        let principal = caller(&request)?;
        let request = request.into_inner();
        let objects = self.0.objects(&principal, |resource, _| matches!(resource, Resource::Node(_))).await?;
        let (objects, next_page_token) = page(objects, request.page_size, &request.page_token);
        let node = |entity| match entity {
            entity::Object::Node(node) => Some(node),
            entity::Object::Vm(_) | entity::Object::Container(_) => None,
        };
        let nodes: Vec<Node> = objects.into_iter().filter_map(|(_, entity)| node(entity)).collect();
        Ok(Response::new(NodeServiceListResponse { nodes, next_page_token }))
    }

    async fn get(
        &self,
        request: Request<NodeServiceGetRequest>,
    ) -> Result<Response<NodeServiceGetResponse>, Status> {
        let principal = caller(&request)?;
        let resource = Resource::Node(node_name(&request.into_inner().name)?);
        match object(&self.0, &principal, Privilege::SysAudit, resource).await? {
            (entity::Object::Node(node), values) => {
                Ok(Response::new(NodeServiceGetResponse { node: Some(node), values }))
            }
            (entity::Object::Vm(_) | entity::Object::Container(_), _) => {
                Err(Status::not_found("no such node"))
            }
        }
    }

    async fn delete(
        &self,
        request: Request<NodeServiceDeleteRequest>,
    ) -> Result<Response<NodeServiceDeleteResponse>, Status> {
        let principal = caller(&request)?;
        let request = request.into_inner();
        let name = node_name(&request.name)?;
        principal.require(Privilege::NodeModify, &Resource::Node(name.clone()))?;
        if request.request_id.len() > 128 {
            return Err(Status::invalid_argument("request_id: at most 128 bytes"));
        }
        self.0.delete_node(&name, &request.request_id).await?;
        tracing::info!(node = %name, by = principal.identity(), "node deleted");
        Ok(Response::new(NodeServiceDeleteResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let principal = caller(&request)?;
        let request = request.into_inner();
        let node = (!request.node_name.is_empty()).then(|| node_name(&request.node_name)).transpose()?;
        let ttl = match request.ttl_seconds {
            0 => DEFAULT_TTL,
            seconds => Duration::from_secs(seconds.into()),
        };
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(Status::invalid_argument("ttl_seconds: 60 to 86400"));
        }
        let (token, expires_unix_ms) =
            self.0.enrollment.create_token(node.as_ref(), ttl, clock::unix_ms()).await?;
        tracing::info!(by = principal.identity(), node = request.node_name, "join token created");
        Ok(Response::new(CreateJoinTokenResponse { token: token.expose().to_owned(), expires_unix_ms }))
    }
}
