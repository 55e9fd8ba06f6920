use std::pin::Pin;

use futures_util::Stream;
use horcrux_proto::v1::recording_service_read_response::Part;
use horcrux_proto::v1::recording_service_server::RecordingService;
use horcrux_proto::v1::{
    ConsoleKind, Recording, RecordingServiceListPoliciesRequest, RecordingServiceListPoliciesResponse,
    RecordingServiceListRequest, RecordingServiceListResponse, RecordingServiceReadRequest,
    RecordingServiceReadResponse, RecordingServiceSetPolicyRequest, RecordingServiceSetPolicyResponse,
    RecordingVerdict,
};
use tonic::{Request, Response, Status};

use super::Shared;

/// A login at once, a word a moment later, and another that nobody waits for.
pub(crate) const CAST: &str = "{\"version\":2,\"width\":80,\"height\":24}\n[0.0,\"o\",\"login: \"]\n[0.2,\"o\",\"welcome\"]\n[86400.0,\"o\",\"bye\"]\n";

/// What a terminal would answer, and what hides what comes after it.
const HOSTILE: &str = "{\"version\":2,\"width\":80,\"height\":24}\n[0.0,\"o\",\"one\\u001bP$q\\\"\"]\n[0.0,\"o\",\"q\\u001b\\\\\\u001b[6\"]\n[0.0,\"o\",\"n\\u001b]0;title\\u0007\\u001b[?25l\\u001b[8mtwo\"]\n";

#[tonic::async_trait]
impl RecordingService for Shared {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<RecordingServiceReadResponse, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<RecordingServiceListRequest>,
    ) -> Result<Response<RecordingServiceListResponse>, Status> {
        self.0.check(&request)?;
        Ok(Response::new(RecordingServiceListResponse::default()))
    }

    /// `a` is whole, and `b` was changed; so are `c` and `d`, of a VM that means harm.
    async fn read(
        &self,
        request: Request<RecordingServiceReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.0.check(&request)?;
        let name = request.into_inner().name;
        let intact = ["a", "c"].contains(&&*name);
        let cast = if ["c", "d"].contains(&&*name) { HOSTILE } else { CAST };
        let problem =
            if intact { String::new() } else { "what is there is not what was recorded".to_owned() };
        let recording = Recording {
            vm_display_name: "shop".to_owned(),
            user: "alice@local".to_owned(),
            kind: ConsoleKind::Serial.into(),
            ended_unix_ms: Some(1),
            ..Recording::default()
        };
        let parts = [
            Part::Recording(recording),
            Part::Data(cast.as_bytes()[..50].to_vec().into()),
            Part::Data(cast.as_bytes()[50..].to_vec().into()),
            Part::Verdict(RecordingVerdict { intact, broken_at: 50, problem }),
        ];
        let messages = parts.map(|part| Ok(RecordingServiceReadResponse { part: Some(part) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }

    async fn list_policies(
        &self,
        request: Request<RecordingServiceListPoliciesRequest>,
    ) -> Result<Response<RecordingServiceListPoliciesResponse>, Status> {
        self.0.check(&request)?;
        Ok(Response::new(RecordingServiceListPoliciesResponse::default()))
    }

    async fn set_policy(
        &self,
        request: Request<RecordingServiceSetPolicyRequest>,
    ) -> Result<Response<RecordingServiceSetPolicyResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        let policy = request.policy.clone().unwrap_or_default();
        let what =
            format!("record {} {} {}", policy.subject, policy.scope().as_str_name(), policy.keeps_input);
        self.0.change(&what, &request.request_id, request.validate_only)?;
        Ok(Response::new(RecordingServiceSetPolicyResponse { policy: request.policy }))
    }
}
