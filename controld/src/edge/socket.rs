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
use tonic::{Code, Status};

use super::call::Call;
use super::consoles::{kind_name, mode_name};
use super::gate;
use super::links;
use super::recordings::{unrecordable, wanted};
use super::stream::Standing;
use crate::access::audit::{Entry, hex};
use crate::access::keys::random_hex;
use crate::access::path::Path;
use crate::app::App;
use crate::console::channels::NoChannel;
use crate::console::place::Place;
use crate::console::session::{Session, goodbye};
use crate::console::ticket::TicketHash;
use crate::console::{self, End, Opening};
use crate::recording::Demand;
use crate::recording::writer::Recorder;
use crate::store::consoles::TicketRow;
use crate::store::recordings::RecordingRow;

/// What is gathered for a viewer before it is written: four of the longest messages. One more may be waiting then.
const GATHERED: usize = 4 * MAX_MESSAGE;
const WRITE_BUFFER: usize = GATHERED + 2 * MAX_MESSAGE;
/// One answer for all tickets that don't let in.
const WRONG: &str = "the ticket is wrong, was used, or has expired";

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
        let serving = tasks.spawn(async move { serve(&app, &call, socket).await });
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

async fn serve(app: &App, call: &Call, mut socket: WebSocket) {
    let text = match tokio::time::timeout(Duration::from_secs(TICKET_WITHIN), socket.next()).await {
        Ok(Some(Ok(Message::Text(text)))) => text,
        Ok(Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_)))) | Err(_) => {
            let end = End::new(CloseCode::Ticket, "the first message must be the ticket, within 5 s");
            return goodbye(&mut socket, &end).await;
        }
        Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return,
    };
    if let Some(key) = TicketHash::parse_channel_key(&text) {
        drop(text);
        return channel(app, call, key, socket).await;
    }
    let ticket = match redeemed(app, call, &text).await {
        Ok(ticket) => ticket,
        Err(why) => return turned_away(app, call, why, socket).await,
    };
    drop(text);
    if let Err(end) = opened(app, call, ticket, socket).await {
        tracing::debug!(words = end.words, "a console was not opened");
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
async fn channel(app: &App, call: &Call, key: TicketHash, mut socket: WebSocket) {
    let resource = |vm: Option<String>| vm.map_or_else(String::new, |vm| format!("vms/{vm}"));
    let Ok(principal) = call.principal() else { return };
    let credential = principal.credential();
    match app.lines.consoles.channel(key, principal.user.as_str(), &credential) {
        Ok(channel) => channel.run(&app.live, &app.lines, socket).await,
        Err(NoChannel::Not(end)) => goodbye(&mut socket, &end).await,
        Err(NoChannel::Wrong { vm, why }) => {
            let bad = Bad { resource: resource(vm), detail: format!("key to a console's channels: {why}") };
            turned_away(app, call, bad, socket).await;
        }
    }
}

/// A ticket that was good.
struct Good {
    row: TicketRow,
    vm: VmUuid,
    place: Place,
    kind: ConsoleKind,
    mode: ConsoleMode,
}

/// Why one wasn't, for the record alone.
struct Bad {
    resource: String,
    detail: String,
}

/// Uses the ticket up, and then looks whether it is good for this caller at this moment.
async fn redeemed(app: &App, call: &Call, text: &str) -> Result<Good, Bad> {
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
    let principal = call.principal().map_err(|_| bad("nobody came with it"))?;
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
    Ok(Good { row, vm, place, kind, mode })
}

/// Runs the console, with its beginning and its end on record.
async fn opened(app: &App, call: &Call, ticket: Good, mut socket: WebSocket) -> Result<(), End> {
    let Good { row, vm, place, kind, mode } = ticket;
    let path = Path::of(&Resource::Vm(vm));
    let taken = async {
        let standing = Standing::of(app, call)
            .map_err(|status| End::new(CloseCode::TooMany, status.message().to_owned()))?;
        let principal = call.principal().map_err(|_| End::new(CloseCode::Session, "sign in again"))?;
        let demand = wanted(app, principal, &Resource::Vm(vm), kind, clock::unix_ms()).await?;
        let id = random_hex().map_err(|error| End::new(CloseCode::Failed, error.to_string()))?;
        let opening = Opening {
            id,
            user: row.user.clone(),
            guest: links::shown_guest(principal),
            vm,
            display_name: place.display_name.clone(),
            node: place.node.clone(),
            kind,
            mode,
            began_ms: clock::unix_ms(),
            source: call.source.to_string(),
            client: call.agent.clone(),
            recorded: demand.is_some(),
        };
        let seat = app.lines.consoles.enter(opening)?;
        let channels = (kind == ConsoleKind::Spice)
            .then(|| app.lines.consoles.channels(&seat.open, row.credential.clone()))
            .transpose()
            .map_err(|error| End::new(CloseCode::Failed, error.to_string()))?;
        Ok((standing, demand, seat, channels))
    };
    let (standing, demand, mut seat, channels) = match taken.await {
        Ok(taken) => taken,
        Err(end) => {
            goodbye(&mut socket, &end).await;
            return Err(end);
        }
    };
    let id = seat.open.id.clone();
    let told = if demand.is_some() { ", recorded" } else { "" };
    let what = format!("{} console, {}{told}", kind_name(kind).unwrap_or("unknown"), mode_name(mode));
    let decision = call.decision(Privilege::VmConsole, &path);
    let entry = |detail| Entry { decision: decision.clone(), detail, ..call.entry(&format!("vms/{vm}")) };
    let recorder = match demand {
        Some(demand) => match begun(app, &seat.open, demand, &row.node).await {
            Ok(recorder) => Some(recorder),
            Err(end) => {
                if let Err(error) =
                    app.audit.event(&entry(format!("open consoles/{id}: {what}")), &end.words).await
                {
                    tracing::error!(error = %Chain(&error), "a console that can't be recorded is not on record");
                }
                goodbye(&mut socket, &end).await;
                return Err(end);
            }
        },
        None => None,
    };
    // What can't be put on record isn't opened.
    if app.audit.event(&entry(format!("open consoles/{id}: {what}")), "ok").await.is_err() {
        let end = End::new(CloseCode::Failed, "the audit log can't be written");
        goodbye(&mut socket, &end).await;
        return Err(end);
    }
    tracing::info!(console = id, %vm, node = %place.node, user = row.user, what, "console opened");
    let session =
        Session { live: &app.live, lines: &app.lines, place, actor: &row.user, recorder: recorder.as_ref() };
    let guard = guard(app, standing, &path);
    let end = match channels {
        Some(channels) => session.run_channels(&mut seat, channels, socket, guard).await,
        None => session.run(&mut seat, socket, guard).await,
    };
    let open = Arc::clone(&seat.open);
    let (down, up) = open.bytes();
    let seconds = (clock::unix_ms() - open.began_ms) / 1000;
    drop(seat);
    let vouched = match recorder {
        Some(recorder) => vouched(recorder).await,
        None => String::new(),
    };
    let ended =
        format!("close consoles/{id}: {seconds} s, {down} bytes to the viewer, {up} from it{vouched}");
    tracing::info!(console = id, why = end.words, seconds, down, up, "console closed");
    if let Err(error) = app.audit.event(&entry(ended), &end.words).await {
        tracing::error!(error = %Chain(&error), console = id, "a console's end is not on record");
    }
    // A node's agent closes what it carried when nobody takes it; where the viewer was thrown out, its horcrux-privd does.
    // A serial line is others' too; channels see to it themselves.
    let thrown_out = matches!(end.code, console::Code::Closed(_));
    if thrown_out && kind == ConsoleKind::Vnc {
        let node = open.node();
        if let Ok(Some(place)) = Place::of(&app.live, &vm).await
            && place.node == node
        {
            app.lines.close(&id, &place.node_id, &row.user).await;
        }
    }
    Ok(())
}

/// The recording of a console that must have one.
async fn begun(app: &App, open: &console::Open, demand: Demand, node: &str) -> Result<Recorder, End> {
    if open.kind == ConsoleKind::Spice {
        app.counts.add("consoles_unrecordable");
        return Err(unrecordable("it must be recorded, and SPICE can't be: open its screen with VNC"));
    }
    let row = RecordingRow {
        id: open.id.clone(),
        vm: open.vm.to_string(),
        display_name: open.display_name.clone(),
        node: node.to_owned(),
        user: open.user.clone(),
        kind: open.kind.into(),
        keeps_input: demand.keeps_input,
        began_ms: open.began_ms,
        ended_ms: None,
        size: 0,
        shed: 0,
        last_link: None,
    };
    app.recordings.begin(row, open.kind).await.map_err(|error| {
        tracing::error!(console = open.id, error = %Chain(&error), "a console isn't opened: it can't be recorded");
        app.counts.add("consoles_unrecordable");
        unrecordable("it must be recorded, and can't be: the controller's log says why")
    })
}

/// What the record of a console's end says of its recording. The link there is what the recording is checked against.
async fn vouched(recorder: Recorder) -> String {
    match recorder.end().await {
        Some(written) if written.shed > 0 => {
            format!("; recorded but for {} bytes, last link {}", written.shed, hex(&written.link))
        }
        Some(written) => format!("; recorded, last link {}", hex(&written.link)),
        None => "; recorded, and still being written".to_owned(),
    }
}

/// Returns when this caller may have no console of this VM any more.
async fn guard(app: &App, mut standing: Standing, path: &Path) -> End {
    let stopping = || End::new(CloseCode::Restart, "the controller is stopping");
    loop {
        let changed = tokio::select! {
            changed = standing.changed() => changed,
            () = app.stop.cancelled() => return stopping(),
        };
        match changed {
            Ok(()) if standing.principal().may(Privilege::VmConsole, path) => {}
            Ok(()) => {
                let words = match standing.principal().link() {
                    None => "you may not open this VM's consoles any more",
                    Some(_) => links::NOT_SHARED,
                };
                return End::new(CloseCode::Right, words);
            }
            Err(status) if status.code() == Code::Unauthenticated => {
                return End::new(CloseCode::Session, status.message());
            }
            Err(_) => return stopping(),
        }
    }
}
