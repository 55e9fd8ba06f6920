//! The WebSocket of a console: who may open one, and the ticket that it takes.
//!
//! Before the upgrade the exact Origin and a live session are needed, or a bearer token where no browser is. The ticket is
//! the first message. Whatever is wrong with it, the answer is the same, and the ticket is used up. For a further channel of
//! a SPICE console the first message is that console's key, which is no ticket: it works for as long as the console is open.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use horcrux_proto::authz::Privilege;
use horcrux_proto::console::{CloseCode, MAX_MESSAGE, SUBPROTOCOL, TICKET_WITHIN};
use horcrux_proto::name::{Resource, VmUuid};
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use http::StatusCode;
use http::request::Parts;
use tonic::{Code, Status};

use super::call::Call;
use super::stream::Standing;
use super::{gate, sitting};
use crate::access::audit::Entry;
use crate::access::path::Path;
use crate::app::App;
use crate::console::End;
use crate::console::channels::NoChannel;
use crate::console::place::Place;
use crate::console::session::goodbye;
use crate::console::ticket::TicketHash;
use crate::store::consoles::TicketRow;

/// What is gathered for a viewer before it is written: four of the longest messages. One more may be waiting then.
const GATHERED: usize = 4 * MAX_MESSAGE;
const WRITE_BUFFER: usize = GATHERED + 2 * MAX_MESSAGE;
/// One answer for all tickets that don't let in.
const WRONG: &str = "the ticket is wrong, was used, or has expired";
/// For the record alone.
const OVER: &str = "the session, token or link that came with it is over";

pub(super) async fn upgrade(State(app): State<Arc<App>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let call = match gate::console(&app, &parts).await {
        Ok(call) => call,
        Err(status) => {
            app.counts.add("console_upgrades_refused");
            return refused(&status);
        }
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .write_buffer_size(GATHERED)
        .max_write_buffer_size(WRITE_BUFFER);
    if upgrade.selected_protocol().is_none() {
        return (StatusCode::BAD_REQUEST, format!("the subprotocol {SUBPROTOCOL} is needed\n"))
            .into_response();
    }
    let tasks = app.watchers.clone();
    upgrade.on_upgrade(move |socket| async move {
        // Owned by the controller, which waits for it when it stops.
        let serving = tasks.spawn(async move { serve(&app, &parts, &call, socket).await });
        if let Err(error) = serving.await {
            tracing::error!(%error, "a console's task failed");
        }
    })
}

fn refused(status: &Status) -> Response {
    let code = if status.code() == Code::Unauthenticated {
        StatusCode::UNAUTHORIZED
    } else if status.code() == Code::PermissionDenied {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n", status.message())).into_response()
}

async fn serve(app: &App, head: &Parts, came: &Call, mut socket: WebSocket) {
    let text = match tokio::time::timeout(Duration::from_secs(TICKET_WITHIN), socket.next()).await {
        Ok(Some(Ok(Message::Text(text)))) => text,
        Ok(Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_)))) | Err(_) => {
            let end = End::new(CloseCode::Ticket, "the first message must be the ticket, within 5 s");
            return goodbye(&mut socket, &end).await;
        }
        Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return,
    };
    // Heard from here on, so that no end of the credential is missed.
    let standing = Standing::of(app, came);
    // What was so at the upgrade may not be any more.
    let now = gate::console(app, head).await;
    if let Some(key) = TicketHash::parse_channel_key(&text) {
        drop(text);
        return channel(app, came, now.ok(), key, socket).await;
    }
    let ticket = redeemed(app, now.ok(), &text).await;
    drop(text);
    match ticket {
        Ok((call, ticket)) => {
            if let Err(end) = sitting::sit(app, &call, standing, ticket, socket).await {
                tracing::debug!(words = end.words, "a console was not opened");
            }
        }
        Err(why) => turned_away(app, came, why, socket).await,
    }
}

async fn turned_away(app: &App, call: &Call, why: Bad, mut socket: WebSocket) {
    app.counts.add("console_tickets_refused");
    // As denials are: whoever comes in a loop doesn't fill the log.
    let decision = "a good console ticket".to_owned();
    app.audit.denial(&Entry { decision, detail: why.detail, ..call.entry(&why.resource) });
    goodbye(&mut socket, &End::new(CloseCode::Ticket, WRONG)).await;
}

/// One more channel of a console that is open: its beginning and its end are on record, and who may be at it is looked at
/// there.
async fn channel(app: &App, came: &Call, now: Option<Call>, key: TicketHash, mut socket: WebSocket) {
    let bad = |vm: Option<String>, why: &str| Bad {
        resource: vm.map_or_else(String::new, |vm| format!("vms/{vm}")),
        detail: format!("key to a console's channels: {why}"),
    };
    let Some(Ok(principal)) = now.as_ref().map(Call::principal) else {
        return turned_away(app, came, bad(None, OVER), socket).await;
    };
    match app.lines.consoles.channel(key, &principal.name(), &principal.credential()) {
        Ok(channel) => channel.run(&app.live, &app.lines, socket).await,
        Err(NoChannel::Not(end)) => goodbye(&mut socket, &end).await,
        Err(NoChannel::Wrong { vm, why }) => turned_away(app, came, bad(vm, why), socket).await,
    }
}

/// A ticket that was good.
pub(super) struct Good {
    pub(super) row: TicketRow,
    pub(super) vm: VmUuid,
    pub(super) place: Place,
    pub(super) kind: ConsoleKind,
    pub(super) mode: ConsoleMode,
}

/// Why one wasn't, for the record alone.
struct Bad {
    resource: String,
    detail: String,
}

/// Uses the ticket up, and then looks whether it is good at this moment for this caller, whom the gate may not let in now.
async fn redeemed(app: &App, call: Option<Call>, text: &str) -> Result<(Call, Good), Bad> {
    let unknown = |detail: &str| Bad { resource: String::new(), detail: format!("console ticket: {detail}") };
    let hash = TicketHash::parse(text).ok_or_else(|| unknown("not one"))?;
    let row = app.store.redeem_ticket(hash.bytes(), clock::unix_ms()).await.map_err(|error| {
        tracing::error!(error = %Chain(&error), "console ticket not looked up");
        unknown("the store can't be reached")
    })?;
    let row = row.ok_or_else(|| unknown("unknown, used or expired"))?;
    let bad = |detail: &str| Bad {
        resource: format!("vms/{}", row.vm),
        detail: format!("console ticket of {}: {detail}", row.user),
    };
    let call = call.ok_or_else(|| bad(OVER))?;
    let principal = call.principal().map_err(|_| bad(OVER))?;
    if row.user != principal.name() || row.credential != principal.credential() {
        return Err(bad("another session came with it"));
    }
    let vm: VmUuid = row.vm.parse().map_err(|_| bad("damaged"))?;
    let path = Path::of(&Resource::Vm(vm));
    if !principal.may(Privilege::VmConsole, &path) {
        return Err(bad("the right was lost"));
    }
    let place = Place::of(&app.live, &vm).await.ok().flatten().ok_or_else(|| bad("the VM is no more"))?;
    if place.node.as_str() != row.node {
        return Err(bad("the VM was moved"));
    }
    if place.started_ms != row.started_ms {
        return Err(bad("the VM was started again"));
    }
    if place.is_locked {
        return Err(bad("its node is locked"));
    }
    let kind = ConsoleKind::try_from(row.kind).map_err(|_| bad("damaged"))?;
    let mode = ConsoleMode::try_from(row.mode).map_err(|_| bad("damaged"))?;
    Ok((call, Good { row, vm, place, kind, mode }))
}
