//! One console: a ticket, and the WebSocket that it opens.

use std::time::Duration;

use bytes::Bytes;
use horcrux_proto::console::{self, ChannelKey, MAX_MESSAGE, Notice, PATH, SUBPROTOCOL};
use horcrux_proto::v1::{ConsoleKind, ConsoleMode, ConsoleServiceCreateTicketRequest};
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::websocket::{self, Receiver, Sender, WebSocketError};

use super::notice::Told;
use super::{ending, on_consoles};
use crate::App;
use crate::change::request_id;
use crate::contexts::Contexts;
use crate::failure::Failure;
use crate::session::{Session, way};
use crate::view::shown;

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// As the contract calls it.
    pub(super) vm: &'a str,
    pub(super) kind: ConsoleKind,
    pub(super) mode: ConsoleMode,
    /// Control, where another viewer has it.
    pub(super) takes: bool,
}

pub(super) struct Console {
    pub(super) to: Outlet,
    pub(super) from: Inlet,
    pub(super) opened: Opened,
}

pub(super) struct Opened {
    pub(super) vm_name: String,
    pub(super) node: String,
    pub(super) in_control: bool,
    /// Of SPICE.
    pub(super) channel_key: Option<ChannelKey>,
}

/// Towards the VM.
pub(super) struct Outlet {
    sender: Sender,
    url: String,
}

/// From the VM.
pub(super) struct Inlet {
    receiver: Receiver,
    url: String,
    told: Told,
}

pub(super) enum Heard {
    Bytes(Bytes),
    /// What follows begins anew.
    Restarted,
    /// For whoever looks.
    Words(String),
}

/// The controller pings every 30 s.
const SILENCE: Duration = Duration::from_secs(120);
/// The controller gives a node 10 s to open a console.
const OPENS_WITHIN: Duration = Duration::from_secs(20);

/// A connection that takes no byte any more isn't waited for.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

impl Console {
    /// Gets a ticket, redeems it and waits until the VM's side is there. What is told meanwhile goes to `say`.
    pub(super) async fn open(
        app: &App,
        session: &Session,
        asked: &Asked<'_>,
        say: impl Fn(&str),
    ) -> Result<Self, Failure> {
        let request = ConsoleServiceCreateTicketRequest {
            vm: asked.vm.to_owned(),
            kind: asked.kind.into(),
            mode: asked.mode.into(),
            request_id: request_id()?,
            ..ConsoleServiceCreateTicketRequest::default()
        };
        let create = |wire, r| async move { on_consoles(wire).create_ticket(r).await };
        let ticket = Secret::from(session.send(request, create).await?.ticket);
        let (mut to, mut from) = websocket(app, session, asked.mode).await?;
        to.text(ticket.expose()).await?;
        let opened = in_time(from.opened(say)).await?;
        if asked.takes && !opened.in_control {
            to.ask(&console::Ask::TakeControl).await?;
        }
        Ok(Self { to, from, opened })
    }
}

/// One more channel of a console, once the VM's side of it is there.
pub(super) async fn channel(
    app: &App,
    session: &Session,
    key: &ChannelKey,
) -> Result<(Outlet, Inlet), Failure> {
    let (mut to, mut from) = websocket(app, session, ConsoleMode::Control).await?;
    to.text(key.expose()).await?;
    let opened = async {
        while from.notice().await? != Notice::ChannelOpened {}
        Ok(())
    };
    in_time(opened).await?;
    Ok((to, from))
}

async fn websocket(app: &App, session: &Session, mode: ConsoleMode) -> Result<(Outlet, Inlet), Failure> {
    let contexts = Contexts::read(&app.home)?;
    let (_, context) = contexts.chosen(app.context.as_ref())?;
    let way = way(context.target()?, context.trust(&app.home)?, app.deadline);
    let ask =
        websocket::Ask { path: PATH, subprotocol: SUBPROTOCOL, max_message: MAX_MESSAGE, silence: SILENCE };
    let (bearer, _) = session.bearer().await?;
    let opened = way.websocket(ask, &bearer).await;
    let (sender, receiver) = opened.map_err(|error| Failure::connecting(&error))?;
    let url = session.url.clone();
    Ok((Outlet { sender, url: url.clone() }, Inlet { receiver, url, told: Told::new(mode) }))
}

async fn in_time<T>(opened: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = |_| Failure::Unavailable("the VM's console didn't open in time".to_owned());
    tokio::time::timeout(OPENS_WITHIN, opened).await.map_err(late)?
}

impl Outlet {
    pub(super) async fn bytes(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.sender.bytes(bytes).await.map_err(|error| lost(&self.url, &error))
    }

    pub(super) async fn close(self) {
        // Whoever leaves doesn't mind that nobody hears it.
        tokio::time::timeout(CLOSES_WITHIN, self.sender.close()).await.ok();
    }

    async fn ask(&mut self, ask: &console::Ask) -> Result<(), Failure> {
        let text = serde_json::to_string(ask).map_err(anyhow::Error::from)?;
        self.text(&text).await
    }

    async fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.sender.text(text).await.map_err(|error| lost(&self.url, &error))
    }
}

impl Inlet {
    /// `None`: the console ended as it should.
    pub(super) async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        loop {
            match self.receiver.next().await.map_err(|error| lost(&self.url, &error))? {
                websocket::Heard::Bytes(bytes) => return Ok(Some(Heard::Bytes(bytes))),
                websocket::Heard::Closed { code, reason } => {
                    return ending::of(&self.url, code, &reason).map(|()| None);
                }
                // A newer controller may tell what is not known here.
                websocket::Heard::Text(text) => match serde_json::from_str(&text) {
                    Ok(Notice::Restarted { .. }) => return Ok(Some(Heard::Restarted)),
                    Ok(notice) => {
                        if let Some(words) = self.told.words(&notice) {
                            return Ok(Some(Heard::Words(words)));
                        }
                    }
                    Err(_) => {}
                },
            }
        }
    }

    /// Waits until this console has control, where it asked for it; otherwise says who has it.
    pub(super) async fn has_control(&mut self, asked: &Asked<'_>) -> Result<(), Failure> {
        loop {
            let notice = self.notice().await?;
            if let Notice::Control { in_control: true, .. } = notice {
                return Ok(());
            }
            let Notice::Viewers { viewers } = notice else { continue };
            let has_it = viewers.iter().find(|viewer| viewer.in_control && !viewer.is_you && !asked.takes);
            if let Some(has_it) = has_it {
                return Err(Failure::Refused(format!(
                    "{} is at this VM with SPICE, which serves one at a time: --take ends their console",
                    shown(&has_it.user)
                )));
            }
        }
    }

    async fn opened(&mut self, say: impl Fn(&str)) -> Result<Opened, Failure> {
        loop {
            let notice = self.notice().await?;
            if let Some(words) = self.told.words(&notice) {
                say(&words);
            }
            if let Notice::Opened { vm_display_name, node, in_control, channel_key, .. } = notice {
                return Ok(Opened { vm_name: vm_display_name, node, in_control, channel_key });
            }
        }
    }

    /// The next, before any byte of the VM's.
    async fn notice(&mut self) -> Result<Notice, Failure> {
        loop {
            match self.receiver.next().await.map_err(|error| lost(&self.url, &error))? {
                websocket::Heard::Bytes(_) => {
                    return Err(Failure::Refused("the console began before it was opened".to_owned()));
                }
                websocket::Heard::Closed { code, reason } => {
                    ending::of(&self.url, code, &reason)?;
                    return Err(Failure::Refused("the console ended before it was opened".to_owned()));
                }
                websocket::Heard::Text(text) => {
                    // A newer controller may tell what is not known here.
                    if let Ok(notice) = serde_json::from_str(&text) {
                        return Ok(notice);
                    }
                }
            }
        }
    }
}

fn lost(url: &str, error: &WebSocketError) -> Failure {
    Failure::lost(url, Chain(error).to_string())
}
