//! What a VM says, on its way to one viewer. A VM that moves to another node is followed there: its viewer is told to wait,
//! and then to begin anew.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::Message;
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _};
use horcrux_proto::console::{CloseCode, Notice};
use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::NodeState;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::line::{AGENT_LEFT, Line, Said};
use super::place::Place;
use super::session::{Clocks, Current, Session, ToViewer};
use super::{Code, End, Open};
use crate::recording::writer::Recorder;

pub(super) const PING: Duration = Duration::from_secs(30);
/// How often it is asked where the VM is.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// A VM whose line ended is looked for: how often, how long where it is off, and how long where it moves or its node is away.
const FOLLOW: Duration = Duration::from_millis(250);
const OFF_FOR: Duration = Duration::from_secs(2);
const FOLLOW_FOR: Duration = Duration::from_secs(60);
/// How long a line must have held for another to be opened where the VM runs on.
const HELD: Duration = Duration::from_secs(5);

/// With this much, nothing more is waited for: three of the longest messages are less, four are more.
const AT_ONCE: usize = 200 << 10;

pub(super) struct Down<'a> {
    pub(super) session: Session<'a>,
    pub(super) open: &'a Open,
    pub(super) clocks: &'a Clocks,
    pub(super) control: watch::Receiver<bool>,
    pub(super) set_line: watch::Sender<Current>,
}

impl Down<'_> {
    pub(super) async fn run(mut self, to_viewer: &mut ToViewer, notices: &mut mpsc::Receiver<Notice>) -> End {
        match self.go_on(to_viewer, notices).await {
            Err(end) => end,
        }
    }

    async fn go_on(
        &mut self,
        to_viewer: &mut ToViewer,
        notices: &mut mpsc::Receiver<Notice>,
    ) -> Result<Infallible, End> {
        let mut number = 0;
        // Until when a line that ended is tried to be opened again.
        let mut until = Instant::now();
        loop {
            let Session { lines, place, actor, .. } = &self.session;
            let line = match lines.open(&self.open.id, &self.open.vm, self.open.kind, place, actor).await {
                Ok(line) => line,
                Err(end) if Instant::now() >= until || end.code == Code::Closed(CloseCode::Refused) => {
                    return Err(end);
                }
                Err(end) => {
                    tokio::time::sleep(LOOK).await;
                    self.session.place = self.session.follow(&self.open.vm, &end.words, true).await?;
                    continue;
                }
            };
            self.open.is_at(&self.session.place.node);
            let began = Instant::now();
            let notice = if number == 0 { self.opened() } else { self.restarted() };
            say(to_viewer, &notice).await?;
            if let Some(recorder) = self.session.recorder.filter(|_| number > 0) {
                recorder.anew();
            }
            drop(self.set_line.send(Some((number, line.to_vm()))));
            let why = self.carry(line, to_viewer, notices).await?;
            drop(self.set_line.send(None));
            let told = if why.is_empty() { "its screen or line closed" } else { &why };
            say(to_viewer, &Notice::Waiting { why: told.to_owned() }).await?;
            let held = began.elapsed() >= HELD || why == AGENT_LEFT;
            self.session.place = self.session.follow(&self.open.vm, &why, held).await?;
            number += 1;
            until = Instant::now() + FOLLOW_FOR;
        }
    }

    fn opened(&self) -> Notice {
        Notice::Opened {
            console: format!("consoles/{}", self.open.id),
            vm: format!("vms/{}", self.open.vm),
            vm_display_name: self.open.display_name.clone(),
            node: format!("nodes/{}", self.session.place.node),
            in_control: *self.control.borrow(),
            recorded: self.open.recorded,
            channel_key: None,
        }
    }

    fn restarted(&self) -> Notice {
        Notice::Restarted { node: format!("nodes/{}", self.session.place.node) }
    }

    /// Returns why the VM's side ended.
    async fn carry(
        &self,
        mut line: Line,
        to_viewer: &mut ToViewer,
        notices: &mut mpsc::Receiver<Notice>,
    ) -> Result<String, End> {
        let (mut ping, mut look) = (interval(PING), interval(LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                said = line.next() => match said {
                    Said::Bytes(bytes) => {
                        self.clocks.has_carried();
                        let recorder = self.session.recorder;
                        if let Some(why) = pass(self.open, recorder, bytes, &mut line, to_viewer).await? {
                            return Ok(why);
                        }
                    }
                    Said::Ended(why) => return Ok(why),
                },
                Some(notice) = notices.recv() => say(to_viewer, &notice).await?,
                _ = ping.tick() => send(to_viewer, Message::Ping(Bytes::new())).await?,
                _ = look.tick() => {
                    let place = self.session.place(&self.open.vm).await?;
                    if place.node != self.session.place.node && place.runs() {
                        return Ok(format!("it was moved to nodes/{}", place.node));
                    }
                }
            }
        }
    }
}

/// Passes on what was said, and what has been said meanwhile with it: what goes out at once costs one write. Returns why the
/// VM's side ended, where it has.
pub(super) async fn pass(
    open: &Open,
    recorder: Option<&Recorder>,
    bytes: Bytes,
    line: &mut Line,
    to_viewer: &mut ToViewer,
) -> Result<Option<String>, End> {
    let (mut next, mut count, mut ended) = (Some(bytes), 0, None);
    while let Some(bytes) = next.take() {
        if let Some(recorder) = recorder {
            recorder.said(&bytes);
        }
        count += bytes.len();
        to_viewer.feed(Message::Binary(bytes)).await.map_err(|_| End::left())?;
        if count < AT_ONCE {
            match line.next().now_or_never() {
                Some(Said::Bytes(bytes)) => next = Some(bytes),
                Some(Said::Ended(why)) => ended = Some(why),
                None => {}
            }
        }
    }
    to_viewer.flush().await.map_err(|_| End::left())?;
    open.to_viewer.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    Ok(ended)
}

impl Session<'_> {
    /// Where the VM is, unless that is a reason to end.
    pub(super) async fn place(&self, vm: &VmUuid) -> Result<Place, End> {
        let place = Place::of(self.live, vm).await;
        let place = place.map_err(|_| End::new(CloseCode::Restart, "the controller is stopping"))?;
        let place = place.ok_or_else(|| End::new(CloseCode::Gone, "the VM is no more"))?;
        if place.is_locked {
            return Err(locked(&place));
        }
        Ok(place)
    }

    /// Where the VM runs on, after its line ended for some reason.
    pub(super) async fn follow(&self, vm: &VmUuid, why: &str, held: bool) -> Result<Place, End> {
        let began = Instant::now();
        loop {
            // What has become of it is told a moment after its line ended.
            tokio::time::sleep(FOLLOW).await;
            let place = self.place(vm).await?;
            let here = &self.place;
            let is_away =
                matches!(place.node_state, NodeState::Down | NodeState::Late | NodeState::Unspecified);
            let moved = place.node != here.node;
            let restarted = place.started_ms != here.started_ms;
            // What is typed here isn't for a node that says of itself that the VM is there, and has nobody else's word.
            let is_claimed = moved && place.is_contested;
            if place.runs() && !is_away && !place.is_leaving && !is_claimed && (moved || restarted || held) {
                return Ok(place);
            }
            let patience = if is_away || place.is_leaving { FOLLOW_FOR } else { OFF_FOR };
            if began.elapsed() >= patience {
                return Err(if is_claimed {
                    let (there, here) = (&place.node, &here.node);
                    let words =
                        format!("nodes/{there} says that it runs there, nodes/{here} didn't give it up");
                    End::new(CloseCode::Moved, words)
                } else if is_away {
                    End::new(CloseCode::Node, format!("nodes/{} is not connected", place.node))
                } else if !place.runs() {
                    End::new(CloseCode::Gone, format!("the VM is {}", place.state_name()))
                } else if place.is_leaving {
                    End::new(CloseCode::Moved, "the VM is still being moved")
                } else {
                    End::new(CloseCode::Failed, if why.is_empty() { "the VM closed it" } else { why })
                });
            }
        }
    }
}

/// What a viewer is told whose VM's node was locked.
fn locked(place: &Place) -> End {
    End::new(CloseCode::Node, format!("nodes/{} is locked", place.node))
}

pub(super) async fn say(to_viewer: &mut ToViewer, notice: &Notice) -> Result<(), End> {
    match serde_json::to_string(notice) {
        Ok(text) => send(to_viewer, Message::Text(text.into())).await,
        Err(error) => Err(End::new(CloseCode::Failed, format!("tell the viewer: {error}"))),
    }
}

pub(super) async fn send(to_viewer: &mut ToViewer, message: Message) -> Result<(), End> {
    to_viewer.send(message).await.map_err(|_| End::left())
}
