//! ConsoleService: tickets, and the consoles that are open.

use std::sync::Arc;

use horcrux_proto::authz::Privilege;
use horcrux_proto::console::CloseCode;
use horcrux_proto::name::{Resource, VmUuid};
use horcrux_proto::v1::console_service_server::ConsoleService;
use horcrux_proto::v1::{
    ConsoleKind, ConsoleMode, ConsoleServiceCreateTicketRequest, ConsoleServiceCreateTicketResponse,
    ConsoleServiceEndRequest, ConsoleServiceEndResponse, ConsoleServiceListRequest,
    ConsoleServiceListResponse,
};
use horcrux_transport::clock;
use http::HeaderValue;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, Done, absent};
use super::guests::named_vm;
use crate::access::path::Path;
use crate::access::principal::{Principal, Via};
use crate::access::signin::SignInError;
use crate::app::App;
use crate::console::place::Place;
use crate::console::ticket::Ticket;
use crate::console::{End, Open};
use crate::live::select;
use crate::store::consoles::TicketRow;

pub(super) struct Consoles(pub(super) Arc<App>);

pub(super) const USUAL_SECONDS: u32 = 60;
const MOST_SECONDS: u32 = 300;
/// That one user has made, and can still use.
const MOST_TICKETS: i64 = 100;

#[tonic::async_trait]
impl ConsoleService for Consoles {
    async fn create_ticket(
        &self,
        request: Request<ConsoleServiceCreateTicketRequest>,
    ) -> Result<Response<ConsoleServiceCreateTicketResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (kind, mode) = (request.kind(), mode(request.mode()));
        let seconds = if request.ttl_seconds == 0 { USUAL_SECONDS } else { request.ttl_seconds };
        if seconds > MOST_SECONDS {
            return Err(Status::invalid_argument("ttl_seconds: at most 300"));
        }
        let (vm, place) = self.vm(&call, &request.vm).await?;
        let wanted = Wanted { vm, place, kind, mode, seconds };
        let (ticket, expires_unix_ms) =
            ticket(&self.0, &call, wanted, request.request_id, request.validate_only).await?;
        let answer = ConsoleServiceCreateTicketResponse { ticket, expires_unix_ms, vm: format!("vms/{vm}") };
        Ok(shown_once(answer))
    }

    async fn list(
        &self,
        request: Request<ConsoleServiceListRequest>,
    ) -> Result<Response<ConsoleServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let asked = request.into_inner().vm;
        let vm = if asked.is_empty() { None } else { Some(self.vm(&call, &asked).await?.0) };
        let consoles = self.0.lines.consoles.list(|open| {
            let sees = is_own(principal, open)
                || principal.may(Privilege::VmConsole, &Path::of(&Resource::Vm(open.vm)));
            sees && vm.as_ref().is_none_or(|vm| *vm == open.vm)
        });
        Ok(Response::new(ConsoleServiceListResponse { consoles }))
    }

    async fn end(
        &self,
        request: Request<ConsoleServiceEndRequest>,
    ) -> Result<Response<ConsoleServiceEndResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let principal = call.principal()?;
        let id = request.name.strip_prefix("consoles/").unwrap_or(&request.name).to_owned();
        let nowhere = || absent(&format!("consoles/{id}"));
        let Some(open) = self.0.lines.consoles.find(&id) else {
            let repeated = call.repeats(&self.0, &request.request_id).await?;
            return repeated.then(|| Response::new(ConsoleServiceEndResponse {})).ok_or_else(nowhere);
        };
        let path = Path::of(&Resource::Vm(open.vm));
        let decision = if is_own(principal, &open) {
            "own console".to_owned()
        } else {
            if !principal.may(Privilege::VmConsole, &path) {
                call.require(&self.0, Privilege::VmConfig, &path).map_err(|_| nowhere())?;
            }
            call.require(&self.0, Privilege::VmConfig, &path)?;
            call.decision(Privilege::VmConfig, &path)
        };
        let act = Act {
            resource: format!("vms/{}", open.vm),
            decision,
            detail: format!("end consoles/{id} of {}", open.user),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let by = principal.user.to_string();
        call.act(&self.0, act, async move {
            open.end(End::new(CloseCode::Ended, format!("{by} ended it")));
            Ok(())
        })
        .await?;
        Ok(Response::new(ConsoleServiceEndResponse {}))
    }
}

impl Consoles {
    /// The VM that was asked for, where the caller may open its consoles.
    pub(super) async fn vm(&self, call: &Call, asked: &str) -> Result<(VmUuid, Place), Status> {
        let resource = match select::vm_by_uuid(asked) {
            Some(resource) => resource,
            None => named_vm(&self.0, call.principal()?, asked).await?,
        };
        let path = Path::of(&resource);
        call.require_on(&self.0, Privilege::VmConsole, Privilege::VmAudit, &path)?;
        let nowhere = || absent(&resource.to_string());
        let Resource::Vm(vm) = &resource else { return Err(nowhere()) };
        let place = Place::of(&self.0.live, vm).await?.ok_or_else(nowhere)?;
        Ok((*vm, place))
    }
}

/// An API token may do no more than its grants allow: of its owner's consoles only those that it opened are its own.
fn is_own(principal: &Principal, open: &Open) -> bool {
    match &principal.via {
        Via::Token { .. } => open.credential == principal.credential(),
        Via::Session { .. } | Via::Link(_) => open.is_of(principal.user.as_str()),
    }
}

/// What a ticket is to open.
pub(super) struct Wanted {
    pub(super) vm: VmUuid,
    pub(super) place: Place,
    pub(super) kind: ConsoleKind,
    pub(super) mode: ConsoleMode,
    pub(super) seconds: u32,
}

/// Makes a ticket for whoever calls. Returns its text and when it ends.
pub(super) async fn ticket(
    app: &Arc<App>,
    call: &Call,
    wanted: Wanted,
    request_id: String,
    validate_only: bool,
) -> Result<(String, i64), Status> {
    let Wanted { vm, place, kind, mode, seconds } = wanted;
    let what = kind_name(kind).ok_or_else(|| Status::invalid_argument("kind: VNC, SERIAL or SPICE"))?;
    if kind == ConsoleKind::Spice && mode == ConsoleMode::View {
        return Err(Status::invalid_argument(
            "mode: with SPICE one can't only look, for what a client sends isn't looked into: use VNC for that",
        ));
    }
    openable(&place)?;
    let ticket = Ticket::generate().map_err(SignInError::Key)?;
    let now_ms = clock::unix_ms();
    let principal = call.principal()?;
    let row = TicketRow {
        hash: ticket.hash.bytes().to_vec(),
        user: principal.name(),
        credential: principal.credential(),
        vm: vm.to_string(),
        node: place.node.to_string(),
        started_ms: place.started_ms,
        kind: kind.into(),
        mode: mode.into(),
        created_ms: now_ms,
        expires_ms: now_ms + i64::from(seconds) * 1000,
    };
    let act = Act {
        resource: format!("vms/{vm}"),
        decision: call.decision(Privilege::VmConsole, &Path::of(&Resource::Vm(vm))),
        detail: format!("console ticket: {what}, {}, {seconds} s", mode_name(mode)),
        request_id,
        validate_only,
    };
    let (store, expires_ms) = (app.store.clone(), row.expires_ms);
    let done = call.act(app, act, async move {
        if store.insert_ticket(&row, MOST_TICKETS).await? {
            return Ok(());
        }
        Err(Status::resource_exhausted("you have 100 console tickets that were not used: they expire soon"))
    });
    match done.await? {
        Done::Now(()) => Ok((ticket.text.expose().to_owned(), expires_ms)),
        Done::Valid => Ok((String::new(), expires_ms)),
        Done::Before => {
            Err(Status::already_exists("request_id: this ticket was made before, and shown then"))
        }
    }
}

/// An answer that holds a secret: nothing on its way keeps it.
pub(super) fn shown_once<T>(answer: T) -> Response<T> {
    let mut response = Response::new(answer);
    let no_store = HeaderValue::from_static("no-store");
    response.metadata_mut().as_mut().insert(http::header::CACHE_CONTROL, no_store);
    response
}

/// Refuses what can't be opened now, in words that say what to do.
fn openable(place: &Place) -> Result<(), Status> {
    let not = |why: String| Err(Status::failed_precondition(why));
    if place.is_unmanaged {
        return not("no libvirt knows this VM: its consoles can't be opened".to_owned());
    }
    if place.is_locked {
        return not(format!("nodes/{} is locked", place.node));
    }
    if !place.runs() {
        return not(format!("the VM is {}: start it first", place.state_name()));
    }
    match &place.forbidden {
        Some(why) => not(format!("nodes/{} lets no console be opened: {why}", place.node)),
        None => Ok(()),
    }
}

/// Unspecified means control.
pub(super) fn mode(asked: ConsoleMode) -> ConsoleMode {
    match asked {
        ConsoleMode::View => ConsoleMode::View,
        ConsoleMode::Control | ConsoleMode::Unspecified => ConsoleMode::Control,
    }
}

/// As records name it; `None` for what isn't opened.
pub(super) fn kind_name(kind: ConsoleKind) -> Option<&'static str> {
    match kind {
        ConsoleKind::Vnc => Some("vnc"),
        ConsoleKind::Serial => Some("serial"),
        ConsoleKind::Spice => Some("spice"),
        ConsoleKind::Unspecified => None,
    }
}

pub(super) fn mode_name(mode: ConsoleMode) -> &'static str {
    match mode {
        ConsoleMode::View => "view",
        ConsoleMode::Control | ConsoleMode::Unspecified => "control",
    }
}
