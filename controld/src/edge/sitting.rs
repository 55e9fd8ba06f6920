//! A viewer whose ticket was good, from there to the end of its console: a place among those that are open, the recording
//! where there must be one, the record, and what may end it.

use std::sync::Arc;

use axum::extract::ws::WebSocket;
use horcrux_proto::authz::Privilege;
use horcrux_proto::console::CloseCode;
use horcrux_proto::name::Resource;
use horcrux_proto::v1::ConsoleKind;
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tonic::{Code, Status};

use super::call::Call;
use super::consoles::{kind_name, mode_name};
use super::links;
use super::recordings::{unrecordable, wanted};
use super::socket::Good;
use super::stream::Standing;
use crate::access::audit::{Entry, hex};
use crate::access::keys::{KeyError, random_hex};
use crate::access::path::Path;
use crate::app::App;
use crate::console::channels::Channels;
use crate::console::session::{Session, goodbye};
use crate::console::{self, End, Opening, Seat};
use crate::recording::Demand;
use crate::recording::writer::Recorder;
use crate::store::recordings::RecordingRow;

/// Runs the console, with its beginning and its end on record.
pub(super) async fn sit(
    app: &App,
    call: &Call,
    standing: Result<Standing, Status>,
    ticket: Good,
    mut socket: WebSocket,
) -> Result<(), End> {
    let path = Path::of(&Resource::Vm(ticket.vm));
    let entered = match standing {
        Ok(standing) => entered(app, call, &ticket).await.map(|entered| (standing, entered)),
        Err(status) => Err(End::new(CloseCode::TooMany, status.message())),
    };
    let (standing, Entered { demand, mut seat, channels }) = match entered {
        Ok(entered) => entered,
        Err(end) => {
            goodbye(&mut socket, &end).await;
            return Err(end);
        }
    };
    let Good { row, vm, place, kind, mode } = ticket;
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
    Ok(())
}

/// A place among the consoles that are open, and what goes with it.
struct Entered {
    demand: Option<Demand>,
    seat: Seat,
    channels: Option<Channels>,
}

async fn entered(app: &App, call: &Call, ticket: &Good) -> Result<Entered, End> {
    let Good { row, vm, place, kind, mode } = ticket;
    let failed = |error: KeyError| End::new(CloseCode::Failed, error.to_string());
    let principal = call.principal().map_err(|_| End::new(CloseCode::Session, "sign in again"))?;
    let demand = wanted(app, principal, &Resource::Vm(*vm), *kind, clock::unix_ms()).await?;
    let opening = Opening {
        id: random_hex().map_err(failed)?,
        user: row.user.clone(),
        credential: row.credential.clone(),
        guest: links::shown_guest(principal),
        vm: *vm,
        display_name: place.display_name.clone(),
        node: place.node.clone(),
        kind: *kind,
        mode: *mode,
        began_ms: clock::unix_ms(),
        source: call.source.to_string(),
        client: call.agent.clone(),
        recorded: demand.is_some(),
    };
    let consoles = &app.lines.consoles;
    let seat = consoles.enter(opening)?;
    let channels = (*kind == ConsoleKind::Spice).then(|| consoles.channels(&seat.open)).transpose();
    Ok(Entered { demand, seat, channels: channels.map_err(failed)? })
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
