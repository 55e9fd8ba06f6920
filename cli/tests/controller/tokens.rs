use horcrux_proto::v1::token_service_server::TokenService;
use horcrux_proto::v1::{
    ApiToken, TokenServiceCreateRequest, TokenServiceCreateResponse, TokenServiceListRequest,
    TokenServiceListResponse, TokenServiceRevokeRequest, TokenServiceRevokeResponse,
};
use tonic::{Request, Response, Status};

use super::Shared;

#[tonic::async_trait]
impl TokenService for Shared {
    async fn list(
        &self,
        request: Request<TokenServiceListRequest>,
    ) -> Result<Response<TokenServiceListResponse>, Status> {
        self.0.check(&request)?;
        Ok(Response::new(TokenServiceListResponse { tokens: vec![] }))
    }

    async fn create(
        &self,
        request: Request<TokenServiceCreateRequest>,
    ) -> Result<Response<TokenServiceCreateResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        if request.code != "123456" {
            return Err(Status::permission_denied("a fresh code is needed"));
        }
        let grants: Vec<String> = request.grants.iter().map(|g| format!("{}@{}", g.role, g.path)).collect();
        let what = format!("token {} for {} s: {}", request.comment, request.ttl_seconds, grants.join(" "));
        self.0.change(&what, &request.request_id, request.validate_only)?;
        let token = ApiToken { id: "a1b2".into(), ..ApiToken::default() };
        Ok(Response::new(TokenServiceCreateResponse { token: Some(token), secret: "hxt_a1b2_x".into() }))
    }

    async fn revoke(
        &self,
        request: Request<TokenServiceRevokeRequest>,
    ) -> Result<Response<TokenServiceRevokeResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        let what = format!("revoke {}", request.token_id);
        self.0.change(&what, &request.request_id, request.validate_only)?;
        Ok(Response::new(TokenServiceRevokeResponse {}))
    }
}
