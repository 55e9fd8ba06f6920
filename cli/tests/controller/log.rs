use std::pin::Pin;

use futures_util::Stream;
use horcrux_proto::v1::audit_service_server::AuditService;
use horcrux_proto::v1::{
    AuditRecord, AuditServiceListRequest, AuditServiceListResponse, FollowRequest, FollowResponse,
    VerifyRequest, VerifyResponse,
};
use tonic::{Request, Response, Status};

use super::Shared;

#[tonic::async_trait]
impl AuditService for Shared {
    /// One row on a page.
    async fn list(
        &self,
        request: Request<AuditServiceListRequest>,
    ) -> Result<Response<AuditServiceListResponse>, Status> {
        self.0.check(&request)?;
        let rows = self.0.rows.lock().unwrap();
        let skip: usize = request.into_inner().page_token.parse().unwrap_or_default();
        let records: Vec<AuditRecord> = rows.iter().rev().skip(skip).take(1).cloned().collect();
        let next_page_token = if skip + 1 < rows.len() { (skip + 1).to_string() } else { String::new() };
        Ok(Response::new(AuditServiceListResponse { records, next_page_token }))
    }

    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

    /// The newest row, a row that is written now, a sign of life, and the end.
    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        self.0.check(&request)?;
        let after = request.into_inner().after_sequence;
        let mut rows = self.0.rows.lock().unwrap();
        let next = rows.last().map_or(1, |row| row.sequence + 1);
        let listed: Vec<AuditRecord> = rows.iter().rev().take(1).cloned().collect();
        let written =
            AuditRecord { sequence: next, actor: format!("after {after}"), ..AuditRecord::default() };
        rows.push(written.clone());
        let said = |record| Ok(FollowResponse { record });
        let messages: Vec<_> =
            listed.into_iter().chain([written]).map(Some).chain([None]).map(said).collect();
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        self.0.check(&request)?;
        let rows = self.0.rows.lock().unwrap().len() as u64;
        let checkpoints = request.into_inner().checkpoints;
        let intact = checkpoints.is_empty();
        let problem = checkpoints.join(" ");
        Ok(Response::new(VerifyResponse { intact, rows, problem, ..VerifyResponse::default() }))
    }
}
