use std::time::Duration;

use horcrux_proto::v1::node_service_server::NodeService;
use horcrux_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, LockRequest, LockResponse, Node,
    NodeServiceDeleteRequest, NodeServiceDeleteResponse, NodeServiceGetRequest, NodeServiceGetResponse,
    NodeServiceListRequest, NodeServiceListResponse, UnlockRequest, UnlockResponse,
};
use tonic::{Request, Response, Status};

use super::Shared;

#[tonic::async_trait]
impl NodeService for Shared {
    /// Two pages.
    async fn list(
        &self,
        request: Request<NodeServiceListRequest>,
    ) -> Result<Response<NodeServiceListResponse>, Status> {
        self.0.check(&request)?;
        let (name, next) = if request.get_ref().page_token.is_empty() { ("a", "2") } else { ("b", "") };
        let nodes = vec![Node { name: format!("nodes/{name}"), ..Node::default() }];
        Ok(Response::new(NodeServiceListResponse { nodes, next_page_token: next.into() }))
    }

    async fn get(
        &self,
        request: Request<NodeServiceGetRequest>,
    ) -> Result<Response<NodeServiceGetResponse>, Status> {
        self.0.check(&request)?;
        Err(match request.get_ref().name.as_str() {
            "secret" => Status::permission_denied("x@local needs SysAudit"),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Status::internal("")
            }
            _ => Status::not_found("no such node"),
        })
    }

    /// The node `a` can't be enrolled again.
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        if request.node_name == "a" {
            return Err(Status::failed_precondition("a is locked"));
        }
        let kind = if request.reenroll { "reenroll" } else { "enroll" };
        let what = format!("{kind} {} for {} s", request.node_name, request.ttl_seconds);
        self.0.change(&what, &request.request_id, request.validate_only)?;
        let token = format!("hxj_{}", request.node_name);
        Ok(Response::new(CreateJoinTokenResponse { token, expires_unix_ms: 1 }))
    }

    async fn delete(
        &self,
        _: Request<NodeServiceDeleteRequest>,
    ) -> Result<Response<NodeServiceDeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lock(&self, _: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn unlock(&self, _: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
