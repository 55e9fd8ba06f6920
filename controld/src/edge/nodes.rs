//! NodeService: thin over `live` and `fleet`.

use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::authz::Privilege::{NodeEnroll, NodeModify, SysAudit};
use horcrux_proto::name::Resource;
use horcrux_proto::v1::node_service_server::NodeService;
use horcrux_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, LockRequest, LockResponse, NodeServiceDeleteRequest,
    NodeServiceDeleteResponse, NodeServiceGetRequest, NodeServiceGetResponse, NodeServiceListRequest,
    NodeServiceListResponse, UnlockRequest, UnlockResponse,
};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, Done, absent};
use super::fields::text;
use super::guests::object;
use crate::access::path::Path;
use crate::app::App;
use crate::fleet::enrollment::{DEFAULT_TTL, EnrollError, MAX_TTL, MIN_TTL, Purpose};
use crate::live::select::{self, node_name};
use crate::store::nodes::NodeRow;

pub(super) struct Nodes(pub(super) Arc<App>);

impl From<EnrollError> for Status {
    fn from(error: EnrollError) -> Self {
        let message = error.to_string();
        match error {
            EnrollError::Refused | EnrollError::Locked => Status::permission_denied(message),
            EnrollError::Replaced => Status::unauthenticated(message),
            EnrollError::NameTaken(_) => Status::already_exists(message),
            EnrollError::Another(_) => Status::failed_precondition(message),
            EnrollError::NotEnrolled(_) => Status::not_found(message),
            EnrollError::Request => Status::invalid_argument(message),
            EnrollError::Authority(_) | EnrollError::Store(_) | EnrollError::Random => {
                tracing::error!(error = %Chain(&error), "enrollment failed");
                Status::internal("internal error")
            }
        }
    }
}

#[tonic::async_trait]
impl NodeService for Nodes {
    async fn list(
        &self,
        request: Request<NodeServiceListRequest>,
    ) -> Result<Response<NodeServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let objects =
            self.0.objects(call.principal()?, |resource, _| matches!(resource, Resource::Node(_))).await?;
        Ok(Response::new(select::node_list(objects, request.page_size, &request.page_token)))
    }

    async fn get(
        &self,
        request: Request<NodeServiceGetRequest>,
    ) -> Result<Response<NodeServiceGetResponse>, Status> {
        let call = Call::of(&request)?;
        let resource = Resource::Node(node_name(&request.into_inner().name)?);
        let found = object(&self.0, &call, SysAudit, resource).await?;
        select::node(found).map(Response::new)
    }

    async fn delete(
        &self,
        request: Request<NodeServiceDeleteRequest>,
    ) -> Result<Response<NodeServiceDeleteResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (row, at) = match self.changeable(&call, &request.name).await {
            Ok(found) => found,
            Err(status) if status.code() == tonic::Code::NotFound => {
                let repeated = call.repeats(&self.0, &request.request_id).await?;
                return repeated.then(|| Response::new(NodeServiceDeleteResponse {})).ok_or(status);
            }
            Err(status) => return Err(status),
        };
        let act = Act {
            resource: format!("nodes/{}", row.name),
            decision: call.decision(NodeModify, &at),
            detail: "remove".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.delete_node(&row).await?;
            Ok(app.registry.reload().await?)
        })
        .await?;
        Ok(Response::new(NodeServiceDeleteResponse {}))
    }

    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (row, at) = self.changeable(&call, &request.name).await?;
        let reason = text("reason", request.reason)?;
        let act = Act {
            resource: format!("nodes/{}", row.name),
            decision: call.decision(NodeModify, &at),
            detail: format!("lock: {reason}"),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, by) = (Arc::clone(&self.0), call.principal()?.user.to_string());
        let reason = if reason.is_empty() { format!("by {by}") } else { reason };
        call.act(&self.0, act, async move { app.locked(&row, Some(&reason)).await }).await?;
        Ok(Response::new(LockResponse {}))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (row, at) = self.changeable(&call, &request.name).await?;
        let act = Act {
            resource: format!("nodes/{}", row.name),
            decision: call.decision(NodeModify, &at),
            detail: "unlock".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move { app.locked(&row, None).await }).await?;
        Ok(Response::new(UnlockResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let node = node_name(&request.node_name)?;
        let at = Path::of(&Resource::Node(node.clone()));
        call.require(&self.0, NodeEnroll, &at)?;
        let ttl = match request.ttl_seconds {
            0 => DEFAULT_TTL,
            seconds => Duration::from_secs(seconds.into()),
        };
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(Status::invalid_argument("ttl_seconds: 60 to 86400"));
        }
        let purpose = if request.reenroll { Purpose::Reenroll } else { Purpose::Enroll };
        let doing = if request.reenroll { "enroll again" } else { "enroll" };
        self.0.enrollment.check_token(&node, purpose).await?;
        let act = Act {
            resource: format!("nodes/{node}"),
            decision: call.decision(NodeEnroll, &at),
            detail: format!("join token to {doing}, {} s", ttl.as_secs()),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        let made = call.act(&self.0, act, async move {
            Ok(app.enrollment.create_token(&node, purpose, ttl, clock::unix_ms()).await?)
        });
        match made.await? {
            Done::Now((token, expires_unix_ms)) => Ok(Response::new(CreateJoinTokenResponse {
                token: token.expose().to_owned(),
                expires_unix_ms,
            })),
            Done::Valid => Ok(Response::new(CreateJoinTokenResponse::default())),
            Done::Before => {
                Err(Status::already_exists("request_id: this token was made before, and shown then"))
            }
        }
    }
}

impl Nodes {
    /// An enrolled node that the caller may change.
    async fn changeable(&self, call: &Call, name: &str) -> Result<(NodeRow, Path), Status> {
        let name = node_name(name)?;
        let at = Path::of(&Resource::Node(name.clone()));
        call.require_on(&self.0, NodeModify, SysAudit, &at)?;
        let rows = self.0.store.nodes().await?;
        let row = rows.into_iter().find(|row| row.name == name.as_str());
        row.map(|row| (row, at)).ok_or_else(|| absent(&format!("nodes/{name}")))
    }
}
