//! GuestLinkService: links, and the guests who come with them.

use std::net::IpAddr;
use std::sync::Arc;

use horcrux_proto::authz::Privilege::{PermissionsModify, VmConsole};
use horcrux_proto::console::GUEST_PATH;
use horcrux_proto::name::{Resource, VmUuid};
use horcrux_proto::v1::guest_link_service_server::GuestLinkService;
use horcrux_proto::v1::{
    ConsoleGuest, ConsoleKind, GuestConsole, GuestLink, GuestLinkServiceCreateRequest,
    GuestLinkServiceCreateResponse, GuestLinkServiceCreateTicketRequest,
    GuestLinkServiceCreateTicketResponse, GuestLinkServiceGetRequest, GuestLinkServiceGetResponse,
    GuestLinkServiceListRequest, GuestLinkServiceListResponse, GuestLinkServiceOpenRequest,
    GuestLinkServiceOpenResponse, GuestLinkServiceRevokeRequest, GuestLinkServiceRevokeResponse,
};
use horcrux_transport::clock;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, Done, absent};
use super::carried::set_link_cookie;
use super::consoles::{Consoles, USUAL_SECONDS, Wanted, kind_name, mode, mode_name, shown_once, ticket};
use super::fields::text;
use super::recordings::wanted;
use crate::access::audit::Entry;
use crate::access::keys::random_id;
use crate::access::link::{Link, cookie};
use crate::access::name::UserId;
use crate::access::path::Path;
use crate::access::principal::{Principal, Via};
use crate::access::sessions::Ended;
use crate::access::signin::SignInError;
use crate::app::App;
use crate::console::place::Place;
use crate::console::ticket::{Ticket, TicketHash};
use crate::store::links::LinkRow;

pub(super) struct Links(pub(super) Arc<App>);

/// One answer for all links that let nobody in.
pub(super) const WRONG: &str = "the guest link is wrong, was taken back, or has expired";
/// What a guest hears whose maker lost a right.
pub(super) const NOT_SHARED: &str =
    "whoever made the guest link may no longer open this VM's consoles, or let others";

const HOUR: u32 = 3600;
const MIN_SECONDS: u32 = 60;
const MAX_SECONDS: u32 = 7 * 24 * HOUR;
/// Of one user, that have not ended.
const MOST_LINKS: i64 = 100;

#[tonic::async_trait]
impl GuestLinkService for Links {
    async fn create(
        &self,
        request: Request<GuestLinkServiceCreateRequest>,
    ) -> Result<Response<GuestLinkServiceCreateResponse>, Status> {
        let call = Call::of(&request)?;
        let origin = self.origin(&request);
        let request = request.into_inner();
        let (kind, mode) = (request.kind(), mode(request.mode()));
        let what = Some(kind).filter(|kind| matches!(kind, ConsoleKind::Vnc | ConsoleKind::Serial));
        let what = what.and_then(kind_name).ok_or_else(|| Status::invalid_argument("kind: VNC or SERIAL"))?;
        let seconds = if request.ttl_seconds == 0 { HOUR } else { request.ttl_seconds };
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return Err(Status::invalid_argument("ttl_seconds: a minute to 7 days"));
        }
        let comment = text("comment", request.comment)?;
        let (vm, place) = Consoles(Arc::clone(&self.0)).vm(&call, &request.vm).await?;
        let path = Path::of(&Resource::Vm(vm));
        call.require(&self.0, PermissionsModify, &path)?;
        let (principal, now_ms) = (call.principal()?, clock::unix_ms());
        let secret = Ticket::of_link().map_err(SignInError::Key)?;
        let (token, most_ms) = self.token(principal).await?;
        let row = LinkRow {
            id: random_id().map_err(SignInError::Key)?,
            hash: secret.hash.bytes().to_vec(),
            maker: principal.user.to_string(),
            token,
            vm: vm.to_string(),
            kind: kind.into(),
            mode: mode.into(),
            comment,
            created_ms: now_ms,
            expires_ms: most_ms.min(now_ms + i64::from(seconds) * 1000),
            opened_ms: None,
            opened_from: None,
        };
        let act = Act {
            resource: format!("vms/{vm}"),
            decision: format!(
                "{}; {}",
                call.decision(VmConsole, &path),
                call.decision(PermissionsModify, &path)
            ),
            detail: format!(
                "make links/{}: {what}, {}, {seconds} s: {}",
                row.id,
                mode_name(mode),
                row.comment
            ),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let link = Some(shown(&row, place.display_name));
        let store = self.0.store.clone();
        let done = call.act(&self.0, act, async move {
            if store.insert_link(&row, MOST_LINKS).await? {
                return Ok(());
            }
            Err(Status::resource_exhausted("you have 100 guest links: revoke some first"))
        });
        match done.await? {
            Done::Now(()) => {
                let url = format!("{origin}{GUEST_PATH}#{}", secret.text.expose());
                Ok(shown_once(GuestLinkServiceCreateResponse { link, url }))
            }
            Done::Valid => Ok(Response::new(GuestLinkServiceCreateResponse::default())),
            Done::Before => Err(Status::already_exists(
                "request_id: this link was made before, and its secret shown then",
            )),
        }
    }

    async fn list(
        &self,
        request: Request<GuestLinkServiceListRequest>,
    ) -> Result<Response<GuestLinkServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner().vm;
        let vm = if asked.is_empty() {
            String::new()
        } else {
            Consoles(Arc::clone(&self.0)).vm(&call, &asked).await?.0.to_string()
        };
        let principal = call.principal()?;
        let mut links = Vec::new();
        for row in self.0.store.links(&vm, clock::unix_ms()).await? {
            let Ok(vm) = row.vm.parse::<VmUuid>() else { continue };
            if is_own(principal, &row) || principal.may(PermissionsModify, &Path::of(&Resource::Vm(vm))) {
                let place = Place::of(&self.0.live, &vm).await?;
                links.push(shown(&row, place.map(|place| place.display_name).unwrap_or_default()));
            }
        }
        Ok(Response::new(GuestLinkServiceListResponse { links }))
    }

    async fn revoke(
        &self,
        request: Request<GuestLinkServiceRevokeRequest>,
    ) -> Result<Response<GuestLinkServiceRevokeResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let id = request.name.strip_prefix("links/").unwrap_or(&request.name);
        let nowhere = || absent(&format!("links/{id}"));
        let Some(row) = self.0.store.link(id, clock::unix_ms()).await? else {
            let repeated = call.repeats(&self.0, &request.request_id).await?;
            return repeated.then(|| Response::new(GuestLinkServiceRevokeResponse {})).ok_or_else(nowhere);
        };
        let decision = if is_own(call.principal()?, &row) {
            "own link".to_owned()
        } else {
            let path = Path::of(&Resource::Vm(row.vm.parse().map_err(|_| nowhere())?));
            call.require(&self.0, PermissionsModify, &path).map_err(|_| nowhere())?;
            call.decision(PermissionsModify, &path)
        };
        let act = Act {
            resource: format!("vms/{}", row.vm),
            decision,
            detail: format!("revoke links/{} of {}", row.id, row.maker),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_link(&row.id).await?;
            app.sessions.told(Ended::Link(row.id.into()));
            Ok(())
        })
        .await?;
        Ok(Response::new(GuestLinkServiceRevokeResponse {}))
    }

    async fn open(
        &self,
        request: Request<GuestLinkServiceOpenRequest>,
    ) -> Result<Response<GuestLinkServiceOpenResponse>, Status> {
        let mut call = Call::of(&request)?;
        let hash = TicketHash::of_link(&request.into_inner().secret);
        let row = match hash {
            Some(hash) => self.0.store.link_by_hash(hash.bytes(), clock::unix_ms()).await?,
            None => None,
        };
        call.principal = row.as_ref().and_then(|row| guest(&self.0, row, call.source));
        let Some((row, console)) = row.as_ref().zip(self.console(&call).await) else {
            return Err(self.refused(&call, row.as_ref()));
        };
        let entry = Entry {
            decision: call
                .decision(VmConsole, &Path::of(&Resource::Vm(row.vm.parse().map_err(|_| absent(&row.vm))?))),
            detail: format!("open links/{}", row.id),
            ..call.entry(&console.vm)
        };
        self.0.audit.event(&entry, "ok").await?;
        self.0.store.touch_link(&row.id, &call.source.to_string(), clock::unix_ms()).await?;
        let response = Response::new(GuestLinkServiceOpenResponse { console: Some(console) });
        set_link_cookie(response, &row.id, &cookie(&self.0.seal, row))
    }

    async fn get(
        &self,
        request: Request<GuestLinkServiceGetRequest>,
    ) -> Result<Response<GuestLinkServiceGetResponse>, Status> {
        let call = Call::of(&request)?;
        let console = self.console(&call).await.ok_or_else(|| Status::permission_denied(NOT_SHARED))?;
        Ok(Response::new(GuestLinkServiceGetResponse { console: Some(console) }))
    }

    async fn create_ticket(
        &self,
        request: Request<GuestLinkServiceCreateTicketRequest>,
    ) -> Result<Response<GuestLinkServiceCreateTicketResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let link = call.principal()?.link().ok_or_else(|| Status::unauthenticated(WRONG))?;
        call.require(&self.0, VmConsole, &link.path()).map_err(|_| Status::permission_denied(NOT_SHARED))?;
        let place = Place::of(&self.0.live, &link.vm).await?;
        let place = place.ok_or_else(|| Status::failed_precondition("the VM is no more"))?;
        let (vm, kind, mode) = (link.vm, link.kind, link.mode);
        let wanted = Wanted { vm, place, kind, mode, seconds: USUAL_SECONDS };
        let (ticket, expires_unix_ms) =
            ticket(&self.0, &call, wanted, request.request_id, request.validate_only).await?;
        Ok(shown_once(GuestLinkServiceCreateTicketResponse { ticket, expires_unix_ms }))
    }
}

impl Links {
    /// Where a guest's browser finds this controller: as whoever makes the link does, else by its first name.
    fn origin<T>(&self, request: &Request<T>) -> String {
        let asked =
            request.metadata().get(http::header::ORIGIN.as_str()).and_then(|origin| origin.to_str().ok());
        let known = self.0.origins.iter().find(|known| asked == Some(known));
        known.or(self.0.origins.first()).cloned().unwrap_or_default()
    }

    /// The API token that makes a link, and when that ends: its link goes with it.
    async fn token(&self, principal: &Principal) -> Result<(Option<String>, i64), Status> {
        let Via::Token { id } = &principal.via else { return Ok((None, i64::MAX)) };
        let row = self.0.store.token(id).await?;
        let row = row.ok_or_else(|| Status::unauthenticated("the API token was revoked"))?;
        Ok((Some(row.id), row.expires_ms))
    }

    /// What a guest is told of the console that they may open; `None` where they may not, or are none.
    async fn console(&self, call: &Call) -> Option<GuestConsole> {
        let principal = call.principal.as_ref()?;
        let link = principal.link().filter(|link| principal.may(VmConsole, &link.path()))?;
        let vm = Resource::Vm(link.vm);
        let place = Place::of(&self.0.live, &link.vm).await.ok().flatten();
        let demand = wanted(&self.0, principal, &vm, link.kind, clock::unix_ms()).await;
        Some(GuestConsole {
            name: format!("links/{}", link.id),
            vm: vm.to_string(),
            vm_display_name: place.map(|place| place.display_name).unwrap_or_default(),
            kind: link.kind.into(),
            mode: link.mode.into(),
            maker: principal.user.to_string(),
            comment: link.comment.clone(),
            expires_unix_ms: link.expires_ms,
            // Where that can't be found out, no console is opened.
            recorded: demand.is_ok_and(|demand| demand.is_some()),
        })
    }

    /// Somebody came with a link that lets nobody in: on record, and slowed down.
    fn refused(&self, call: &Call, row: Option<&LinkRow>) -> Status {
        if let Err(slow) = self.0.sign_ins.knocks("link", call.source) {
            return slow.into();
        }
        self.0.counts.add("guest_links_refused");
        let mut entry = call.entry(&row.map(|row| format!("vms/{}", row.vm)).unwrap_or_default());
        if call.principal.is_none() {
            entry.actor = "unknown".to_owned();
        }
        entry.decision = "a good guest link".to_owned();
        entry.detail =
            row.map(|row| format!("open links/{}: its maker may not share it", row.id)).unwrap_or_default();
        self.0.audit.denial(&entry);
        Status::not_found(WRONG)
    }
}

/// Who comes with a link, as far as its maker has an account.
pub(super) fn guest(app: &App, row: &LinkRow, source: IpAddr) -> Option<Principal> {
    let maker: UserId = row.maker.parse().ok()?;
    let link = Link::try_from(row).ok()?;
    let policy = app.registry.policy();
    if !policy.facts().users.contains(&maker) {
        return None;
    }
    Some(Principal::new(maker, Via::Link(Arc::new(link)), source, policy, clock::unix_ms()))
}

/// How an open console shows that a guest is at it.
pub(super) fn shown_guest(principal: &Principal) -> Option<ConsoleGuest> {
    principal.link().map(|link| ConsoleGuest {
        link: format!("links/{}", link.id),
        maker: principal.user.to_string(),
        comment: link.comment.clone(),
    })
}

/// A token's own links are those that it made.
fn is_own(principal: &Principal, row: &LinkRow) -> bool {
    let by = match &principal.via {
        Via::Token { id } => row.token.as_deref() == Some(id),
        Via::Session { .. } => true,
        Via::Link(_) => false,
    };
    by && row.maker == principal.user.as_str()
}

fn shown(row: &LinkRow, vm_display_name: String) -> GuestLink {
    GuestLink {
        name: format!("links/{}", row.id),
        vm: format!("vms/{}", row.vm),
        vm_display_name,
        kind: row.kind,
        mode: row.mode,
        maker: row.maker.clone(),
        token: row.token.clone().unwrap_or_default(),
        comment: row.comment.clone(),
        created_unix_ms: row.created_ms,
        expires_unix_ms: row.expires_ms,
        opened_unix_ms: row.opened_ms,
        opened_from: row.opened_from.clone().unwrap_or_default(),
    }
}
