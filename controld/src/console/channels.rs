//! The channels of SPICE consoles: who may open one, and what each carries.
//!
//! Who holds the console's key, by the credential that opened the console, has a stream of the VM's node for each channel.
//! Nothing here can outlast the console: its end, whatever it is by, is each channel's. The first channel is SPICE's main
//! one, which a client opens before all others: the console ends with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use horcrux_proto::console::{CloseCode, MAX_MESSAGE, Notice};
use horcrux_proto::v1::ConsoleKind;
use horcrux_transport::secret::Secret;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;

use super::down::{PING, pass, say, send};
use super::line::{Line, Lines, Said, ToNode, for_vm};
use super::place::Place;
use super::session::{FromViewer, ToViewer, ended, goodbye};
use super::ticket::{Ticket, TicketHash};
use super::{Consoles, End, Open, PER_NODE, State};
use crate::access::keys::KeyError;
use crate::live::Live;

/// Of one console, open at once. A client has a dozen, and one more for each USB device that it passes on.
const MOST: usize = 32;
/// The digits of a console's id that its channels have too. The others are the channel's number: so a node's records tell
/// which console a channel was of.
const SHARED: usize = 28;

/// A console whose key lets channels be opened.
#[derive(Debug)]
pub(super) struct Held {
    open: Arc<Open>,
    /// Open now.
    numbers: BTreeSet<u16>,
    next: u16,
    main_ended: mpsc::Sender<String>,
}

/// That channels may be opened, until this is dropped.
#[derive(Debug)]
pub struct Channels {
    consoles: Consoles,
    hash: TicketHash,
    pub(super) key: Secret,
    /// Why the VM's side of the main channel ended.
    pub(super) main_ended: mpsc::Receiver<String>,
}

/// One channel's place; it is given up when this is dropped.
#[derive(Debug)]
pub struct Channel {
    consoles: Consoles,
    hash: TicketHash,
    number: u16,
    open: Arc<Open>,
    ending: watch::Receiver<Option<End>>,
    main_ended: mpsc::Sender<String>,
}

/// Why there is none.
#[derive(Debug)]
pub enum NoChannel {
    /// The key isn't good; for the record alone.
    Wrong { vm: Option<String>, why: &'static str },
    /// It is, but there can be no channel now.
    Not(End),
}

impl Consoles {
    /// Lets whoever opened a console open channels of it.
    pub fn channels(&self, open: &Arc<Open>) -> Result<Channels, KeyError> {
        let Ticket { text, hash } = Ticket::channel_key()?;
        // One can be told, and no more will be.
        let (main_ended, told) = mpsc::channel(1);
        let held = Held { open: Arc::clone(open), numbers: BTreeSet::new(), next: 0, main_ended };
        self.state().held.insert(hash, held);
        Ok(Channels { consoles: self.clone(), hash, key: text, main_ended: told })
    }

    /// Takes a channel's place for who comes with a key.
    pub fn channel(&self, hash: TicketHash, user: &str, credential: &str) -> Result<Channel, NoChannel> {
        let mut state = self.state();
        let held = state.held.get(&hash);
        let held = held.ok_or(NoChannel::Wrong { vm: None, why: "unknown, or its console has ended" })?;
        let open = Arc::clone(&held.open);
        let wrong = |why| NoChannel::Wrong { vm: Some(open.vm.to_string()), why };
        if open.user != user || open.credential != credential {
            return Err(wrong("another session came with it"));
        }
        if open.ending.borrow().is_some() {
            return Err(wrong("its console has ended"));
        }
        let not = |code, words: &str| Err(NoChannel::Not(End::new(code, words)));
        if !state.viewers.is_in_control(&open.vm, open.kind, &open.id) {
            return not(CloseCode::Taken, "somebody else has this VM's SPICE: take control first");
        }
        // A console without a channel counts as one.
        let is_full = !held.numbers.is_empty() && state.carried(&open.node()) >= PER_NODE;
        if is_full || held.numbers.len() >= MOST {
            let (who, most) = if is_full { ("this node has", PER_NODE) } else { ("this console has", MOST) };
            return not(CloseCode::TooMany, &format!("{who} {most} channels and consoles open already"));
        }
        let Some(next) = held.next.checked_add(1) else {
            return not(CloseCode::TooMany, "this console has had too many channels: open it again");
        };
        let (number, main_ended) = (held.next, held.main_ended.clone());
        if let Some(held) = state.held.get_mut(&hash) {
            held.next = next;
            held.numbers.insert(number);
        }
        drop(state);
        let ending = open.ending.subscribe();
        Ok(Channel { consoles: self.clone(), hash, number, open, ending, main_ended })
    }
}

impl State {
    /// So many channels a console has.
    pub(super) fn channels(&self, id: &str) -> usize {
        self.held.values().find(|held| held.open.id == id).map_or(0, |held| held.numbers.len())
    }
}

impl Channel {
    /// By which its node knows it.
    fn id(&self) -> String {
        format!("{}{:04x}", self.open.id.get(..SHARED).unwrap_or_default(), self.number)
    }

    /// Runs until it ends, or its console does.
    pub async fn run(self, live: &Live, lines: &Lines, socket: WebSocket) {
        let (mut to_viewer, from_viewer) = socket.split();
        let mut ending = self.ending.clone();
        let end = tokio::select! {
            biased;
            Ok(end) = ended(&mut ending) => end,
            carried = self.carry(live, lines, (&mut to_viewer, from_viewer)) => match carried {
                Ok(why) => return self.has_closed(why, to_viewer).await,
                Err(end) => {
                    if self.number == 0 {
                        self.open.end(end.clone());
                    }
                    end
                }
            },
        };
        goodbye(&mut to_viewer, &end).await;
    }

    /// Returns why the VM's side ended.
    async fn carry(
        &self,
        live: &Live,
        lines: &Lines,
        (to_viewer, from_viewer): (&mut ToViewer, FromViewer),
    ) -> Result<String, End> {
        let place = self.place(live).await?;
        let line = lines.open(&self.id(), &self.open.vm, ConsoleKind::Spice, &place, &self.open.user).await?;
        say(to_viewer, &Notice::ChannelOpened).await?;
        let to_vm = line.to_vm();
        tokio::select! {
            end = up(&self.open, &to_vm, from_viewer) => Err(end),
            ended = down(&self.open, line, to_viewer) => ended,
        }
    }

    /// Where the VM is, unless that is a reason to open nothing.
    async fn place(&self, live: &Live) -> Result<Place, End> {
        let place = Place::of(live, &self.open.vm).await.ok().flatten();
        let place = place.ok_or_else(|| End::new(CloseCode::Gone, "the VM is no more"))?;
        if place.node != self.open.node() {
            return Err(End::new(CloseCode::Moved, format!("the VM is on nodes/{} now", place.node)));
        }
        Ok(place)
    }

    /// The VM's side of it ended: of the main channel, the console says what that means.
    async fn has_closed(&self, why: String, mut to_viewer: ToViewer) {
        tracing::debug!(console = self.open.id, channel = self.number, why, "a channel was closed by the VM");
        let reason = "the VM's side closed it".into();
        let frame = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason };
        // Who doesn't read has the end of the console to come.
        let mut ending = self.ending.clone();
        tokio::select! {
            biased;
            sent = to_viewer.send(Message::Close(Some(frame))) => drop(sent),
            _ = ended(&mut ending) => {}
        }
        if self.number == 0 && self.main_ended.try_send(why).is_err() {
            tracing::debug!(console = self.open.id, "a console ended before its main channel");
        }
    }
}

async fn up(open: &Open, to_vm: &ToNode, mut from_viewer: FromViewer) -> End {
    let wrong = |words: &str| End::new(CloseCode::Protocol, words);
    while let Some(Ok(message)) = from_viewer.next().await {
        match message {
            Message::Binary(bytes) if bytes.len() > MAX_MESSAGE => {
                return wrong("the viewer sent more at once than it may");
            }
            Message::Binary(bytes) => {
                let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                open.from_viewer.fetch_add(count, Ordering::Relaxed);
                if to_vm.send(Ok(for_vm(bytes))).await.is_err() {
                    tracing::trace!("a channel ended before all that was said was taken");
                }
            }
            Message::Text(_) => return wrong("a channel carries bytes alone"),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => break,
        }
    }
    End::left()
}

async fn down(open: &Open, mut line: Line, to_viewer: &mut ToViewer) -> Result<String, End> {
    let mut ping = interval(PING);
    loop {
        tokio::select! {
            said = line.next() => match said {
                Said::Bytes(bytes) => {
                    if let Some(why) = pass(open, None, bytes, &mut line, to_viewer).await? {
                        return Ok(why);
                    }
                }
                Said::Ended(why) => return Ok(why),
            },
            _ = ping.tick() => send(to_viewer, Message::Ping(bytes::Bytes::new())).await?,
        }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.consoles.state().held.remove(&self.hash);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(held) = self.consoles.state().held.get_mut(&self.hash) {
            held.numbers.remove(&self.number);
        }
    }
}
