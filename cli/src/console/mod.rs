//! `horcruxctl vm console` and `console`.
//!
//! ```text
//! CreateTicket ─► WebSocket, the ticket first ─┬─► serial: this terminal
//!                                              ├─► vnc: a viewer on a local port
//!                                              ├─► spice: the same, with a WebSocket for each of its connections
//!                                              └─► screenshot: one picture
//! ```

mod caller;
mod connection;
mod ending;
mod links;
mod notice;
mod port;
pub(crate) mod raw;
mod screen;
mod screenshot;
mod serial;
mod spice;
mod vnc;

use horcrux_proto::v1::console_service_client::ConsoleServiceClient;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode, ConsoleServiceEndRequest, ConsoleServiceListRequest};

use self::connection::Asked;
use crate::App;
use crate::args::console::{ConsoleArgs, ConsoleCommand, Wanted};
use crate::change::Deed;
use crate::failure::Failure;
use crate::inventory;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::console::ConsoleListView;
use crate::view::shown;

impl App {
    pub async fn console(&self, args: &ConsoleArgs) -> Result<(), Failure> {
        let session = self.session().await?;
        let vm = resource(&session, &args.name).await?;
        let mode = if args.view { ConsoleMode::View } else { ConsoleMode::Control };
        let asked = |kind| Asked { vm: &vm, kind, mode, takes: args.take };
        match args.wanted() {
            Wanted::Serial { log } => serial::run(self, &session, &asked(ConsoleKind::Serial), log).await,
            Wanted::Vnc { listen } => vnc::run(self, &session, &asked(ConsoleKind::Vnc), listen).await,
            Wanted::Spice { listen, file } => {
                spice::run(self, &session, &asked(ConsoleKind::Spice), listen, file).await
            }
            Wanted::Screenshot(path) => {
                let asked = Asked { mode: ConsoleMode::View, ..asked(ConsoleKind::Vnc) };
                screenshot::run(self, &session, &asked, path).await
            }
        }
    }

    pub async fn consoles(&self, command: ConsoleCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            ConsoleCommand::List { vm } => {
                let vm = match vm {
                    Some(name) => inventory::vm(&session, &name).await?.vm.name,
                    None => String::new(),
                };
                let list = |wire, r| async move { on_consoles(wire).list(r).await };
                let open = session.send(ConsoleServiceListRequest { vm }, list).await?;
                self.print(&ConsoleListView::from(open.consoles.as_slice()))
            }
            ConsoleCommand::Link(command) => self.guest_links(&session, command).await,
            ConsoleCommand::End { id, removal } => {
                let deed = Deed::new("end", "ended", format!("the console {}", shown(&id)));
                let question = format!("End the console {}? Its viewer is thrown out.", shown(&id));
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (name, validate_only) = (id.clone(), run.validate_only());
                    let request = ConsoleServiceEndRequest { name, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_consoles(wire).end(r).await })
                })
                .await
            }
        }
    }
}

fn on_consoles(wire: Wire) -> ConsoleServiceClient<Wire> {
    ConsoleServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}

/// The controller knows a VM by its uuid or its name; with its node before it, it is looked up.
async fn resource(session: &Session, name: &str) -> Result<String, Failure> {
    if name.contains('/') && !name.starts_with("vms/") {
        return Ok(inventory::vm(session, name).await?.vm.name);
    }
    Ok(name.to_owned())
}
