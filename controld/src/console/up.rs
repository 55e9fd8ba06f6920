//! What a viewer says: the console's bytes, where it may type, and what it asks for beside them.

use axum::extract::ws::Message;
use bytes::Bytes;
use futures_util::StreamExt as _;
use horcrux_proto::console::{Ask, CloseCode, MAX_MESSAGE};
use horcrux_proto::v1::ConsoleKind;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

use super::line::{ToNode, for_vm};
use super::rfb::{Filter, Input};
use super::session::{Clocks, Current, FromViewer};
use super::{Consoles, End, Open};
use crate::recording::writer::Recorder;

pub(super) struct Up<'a> {
    pub(super) open: &'a Open,
    pub(super) consoles: &'a Consoles,
    pub(super) clocks: &'a Clocks,
    pub(super) control: watch::Receiver<bool>,
    pub(super) line: watch::Receiver<Current>,
    pub(super) recorder: Option<&'a Recorder>,
}

/// Where it goes, and what of it may.
struct Talk {
    /// Of the line.
    number: u32,
    to_vm: ToNode,
    /// Of a screen.
    filter: Filter,
    /// What of the filter's wishes was recorded last.
    wishes: Vec<Bytes>,
}

impl Up<'_> {
    pub(super) async fn run(mut self, mut from_viewer: FromViewer) -> End {
        let mut talk: Option<Talk> = None;
        loop {
            tokio::select! {
                message = from_viewer.next() => {
                    let Some(Ok(message)) = message else { return End::left() };
                    self.clocks.has_heard();
                    match message {
                        Message::Binary(bytes) => {
                            if let Err(end) = self.bytes(&mut talk, bytes).await {
                                return end;
                            }
                        }
                        Message::Text(text) => match serde_json::from_str(&text) {
                            Ok(Ask::TakeControl) => self.consoles.take_control(self.open),
                            Ok(Ask::GiveControl { to }) => self.consoles.give_control(self.open, &to),
                            Err(_) => return End::new(CloseCode::Protocol, "the viewer asked for what there is not"),
                        },
                        Message::Ping(_) | Message::Pong(_) => {}
                        Message::Close(_) => return End::left(),
                    }
                }
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return End::left();
                    }
                    // Keys that are down are let go of at once, not with what the viewer says next.
                    let input = input(*self.control.borrow_and_update());
                    let Some(talk) = &mut talk else { continue };
                    let mut released = Vec::new();
                    talk.filter.set_input(input, &mut released);
                    send(talk, released, self.recorder).await;
                }
            }
        }
    }

    async fn bytes(&mut self, talk: &mut Option<Talk>, bytes: Bytes) -> Result<(), End> {
        if bytes.len() > MAX_MESSAGE {
            return Err(End::new(CloseCode::Protocol, "the viewer sent more at once than it may"));
        }
        self.clocks.has_carried();
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.open.from_viewer.fetch_add(count, Ordering::Relaxed);
        // While the VM is looked for, nothing takes what is typed.
        let Some((number, to_vm)) = self.line.borrow_and_update().clone() else { return Ok(()) };
        // Not marked as seen: a change is for who waits for it.
        let input = input(*self.control.borrow());
        let new = || Talk { number, to_vm: to_vm.clone(), filter: Filter::new(input), wishes: Vec::new() };
        let talk = talk.get_or_insert_with(new);
        if talk.number != number {
            // What the viewer sent before it knew is of the conversation before.
            talk.filter.restart();
            (talk.number, talk.to_vm, talk.wishes) = (number, to_vm, Vec::new());
        }
        match self.open.kind {
            ConsoleKind::Vnc => {
                let mut passed = Vec::new();
                talk.filter
                    .pass(bytes, &mut passed)
                    .map_err(|error| End::new(CloseCode::Protocol, format!("the viewer: {error}")))?;
                if let Some(recorder) = self.recorder {
                    record_wishes(recorder, &talk.filter, &mut talk.wishes);
                }
                send(talk, passed, self.recorder).await;
            }
            // SPICE's bytes go by its channels.
            ConsoleKind::Serial | ConsoleKind::Spice | ConsoleKind::Unspecified => {
                if *self.control.borrow() {
                    send(talk, vec![bytes], self.recorder).await;
                }
            }
        }
        Ok(())
    }
}

fn input(in_control: bool) -> Input {
    if in_control { Input::Pass } else { Input::Drop }
}

/// What a replay needs to read the picture: it holds no key and no pointer.
fn record_wishes(recorder: &Recorder, filter: &Filter, recorded: &mut Vec<Bytes>) {
    let now: Vec<Bytes> = filter.version().into_iter().chain(filter.wishes()).cloned().collect();
    now.iter().filter(|wish| !recorded.contains(wish)).for_each(|wish| recorder.wished(wish));
    *recorded = now;
}

/// Waits while the VM takes no more; what is left when its line ends goes with it.
async fn send(talk: &Talk, pieces: Vec<Bytes>, recorder: Option<&Recorder>) {
    for bytes in pieces {
        if let Some(recorder) = recorder {
            recorder.typed(&bytes);
        }
        if talk.to_vm.send(Ok(for_vm(bytes))).await.is_err() {
            tracing::trace!("a line ended before all that was typed was taken");
            return;
        }
    }
}
