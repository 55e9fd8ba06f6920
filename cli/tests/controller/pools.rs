use horcrux_proto::v1::pool_service_server::PoolService;
use horcrux_proto::v1::{
    ListTagsRequest, ListTagsResponse, Pool, PoolServiceCreateRequest, PoolServiceCreateResponse,
    PoolServiceDeleteRequest, PoolServiceDeleteResponse, PoolServiceListRequest, PoolServiceListResponse,
    PoolServiceUpdateRequest, PoolServiceUpdateResponse, UpdateTagsRequest, UpdateTagsResponse,
};
use tonic::{Request, Response, Status};

use super::Shared;

#[tonic::async_trait]
impl PoolService for Shared {
    async fn list(
        &self,
        request: Request<PoolServiceListRequest>,
    ) -> Result<Response<PoolServiceListResponse>, Status> {
        self.0.check(&request)?;
        let pools = vec![Pool { name: "pools/ci".into(), ..Pool::default() }];
        Ok(Response::new(PoolServiceListResponse { pools }))
    }

    async fn create(
        &self,
        _: Request<PoolServiceCreateRequest>,
    ) -> Result<Response<PoolServiceCreateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update(
        &self,
        _: Request<PoolServiceUpdateRequest>,
    ) -> Result<Response<PoolServiceUpdateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete(
        &self,
        _: Request<PoolServiceDeleteRequest>,
    ) -> Result<Response<PoolServiceDeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_tags(&self, _: Request<ListTagsRequest>) -> Result<Response<ListTagsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_tags(
        &self,
        _: Request<UpdateTagsRequest>,
    ) -> Result<Response<UpdateTagsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
