use horcrux_proto::v1::console_service_server::ConsoleService;
use horcrux_proto::v1::{
    Console, ConsoleServiceCreateTicketRequest, ConsoleServiceCreateTicketResponse, ConsoleServiceEndRequest,
    ConsoleServiceEndResponse, ConsoleServiceListRequest, ConsoleServiceListResponse,
};
use tonic::{Request, Response, Status};

use super::Shared;

pub(crate) const TICKET: &str = "hxc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[tonic::async_trait]
impl ConsoleService for Shared {
    async fn create_ticket(
        &self,
        request: Request<ConsoleServiceCreateTicketRequest>,
    ) -> Result<Response<ConsoleServiceCreateTicketResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        if request.vm == "vault" {
            return Err(Status::permission_denied("alice@local needs VmConsole on /vms/vault"));
        }
        let (kind, mode) = (request.kind().as_str_name(), request.mode().as_str_name());
        let what = format!("ticket {} {kind} {mode}", request.vm);
        self.0.change(&what, &request.request_id, request.validate_only)?;
        Ok(Response::new(ConsoleServiceCreateTicketResponse {
            ticket: TICKET.to_owned(),
            expires_unix_ms: 0,
            vm: request.vm,
        }))
    }

    async fn list(
        &self,
        request: Request<ConsoleServiceListRequest>,
    ) -> Result<Response<ConsoleServiceListResponse>, Status> {
        self.0.check(&request)?;
        let vm = request.into_inner().vm;
        let console = Console { name: "consoles/a".to_owned(), vm, ..Console::default() };
        Ok(Response::new(ConsoleServiceListResponse { consoles: vec![console] }))
    }

    async fn end(
        &self,
        request: Request<ConsoleServiceEndRequest>,
    ) -> Result<Response<ConsoleServiceEndResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        self.0.change(&format!("end {}", request.name), &request.request_id, request.validate_only)?;
        Ok(Response::new(ConsoleServiceEndResponse {}))
    }
}
