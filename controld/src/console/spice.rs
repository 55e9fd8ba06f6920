//! A SPICE console's first WebSocket: it carries no bytes of the VM's. As long as it is open its channels may be, and what
//! ends it ends them.
//!
//! QEMU serves one SPICE client at a time: a second one's main channel has it close the first one's. So who has control is
//! who may have channels, and who loses it has lost the console. Others wait until it is theirs, or take it.

use std::convert::Infallible;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::StreamExt as _;
use horcrux_proto::console::{Ask, ChannelKey, CloseCode, Notice};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::channels::Channels;
use super::down::{LOOK, PING, say, send};
use super::session::{Clocks, FromViewer, Session, ToViewer, ended, goodbye};
use super::{Consoles, End, Open, Seat};

impl Session<'_> {
    /// Runs until it ends, or until `guard` says that it must. Its channels have ended then, or are about to.
    pub async fn run_channels(
        self,
        seat: &mut Seat,
        mut channels: Channels,
        socket: WebSocket,
        guard: impl Future<Output = End>,
    ) -> End {
        let (mut to_viewer, from_viewer) = socket.split();
        let clocks = Clocks::new();
        let Seat { open, control, notices, ending, consoles } = seat;
        let open: &Open = open;
        let in_control = *control.borrow();
        let end = tokio::select! {
            biased;
            end = guard => end,
            Ok(end) = ended(ending) => end,
            end = clocks.ran_out() => end,
            end = asked(open, consoles, &clocks, from_viewer) => end,
            end = self.tell((open, in_control, &clocks), &mut channels, &mut to_viewer, notices) => {
                match end { Err(end) => end }
            }
        };
        open.end(end.clone());
        goodbye(&mut to_viewer, &end).await;
        end
    }

    async fn tell(
        &self,
        (open, in_control, clocks): (&Open, bool, &Clocks),
        channels: &mut Channels,
        to_viewer: &mut ToViewer,
        notices: &mut mpsc::Receiver<Notice>,
    ) -> Result<Infallible, End> {
        let opened = Notice::Opened {
            console: format!("consoles/{}", open.id),
            vm: format!("vms/{}", open.vm),
            vm_display_name: open.display_name.clone(),
            node: format!("nodes/{}", self.place.node),
            in_control,
            recorded: open.recorded,
            channel_key: Some(ChannelKey::from(channels.key.expose())),
        };
        say(to_viewer, &opened).await?;
        let (mut ping, mut look) = (interval(PING), interval(LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut carried = open.bytes();
        loop {
            tokio::select! {
                Some(notice) = notices.recv() => {
                    if let Notice::Control { in_control: false, by } = &notice {
                        return Err(End::new(CloseCode::Taken, format!("{by} took it")));
                    }
                    say(to_viewer, &notice).await?;
                }
                Some(why) = channels.main_ended.recv() => return Err(self.closed(open, &why, to_viewer).await?),
                _ = ping.tick() => send(to_viewer, Message::Ping(Bytes::new())).await?,
                _ = look.tick() => {
                    let place = self.place(&open.vm).await?;
                    if place.node != self.place.node && place.runs() {
                        return Err(End::new(CloseCode::Moved, moved(&place)));
                    }
                    if std::mem::replace(&mut carried, open.bytes()) != carried {
                        clocks.has_carried();
                    }
                }
            }
        }
    }

    /// What it means that the VM closed the main channel. No client goes on with another: it has to begin anew.
    async fn closed(&self, open: &Open, why: &str, to_viewer: &mut ToViewer) -> Result<End, End> {
        let told = if why.is_empty() { "its screen closed" } else { why };
        say(to_viewer, &Notice::Waiting { why: told.to_owned() }).await?;
        let place = self.follow(&open.vm, why, false).await?;
        Ok(if place.node == self.place.node {
            End::new(CloseCode::Gone, "the VM was started again: open its console again")
        } else {
            End::new(CloseCode::Moved, moved(&place))
        })
    }
}

fn moved(place: &super::place::Place) -> String {
    format!("the VM was moved to nodes/{}, and SPICE begins anew there: open its console again", place.node)
}

/// What the viewer asks for, until it leaves.
async fn asked(open: &Open, consoles: &Consoles, clocks: &Clocks, mut from_viewer: FromViewer) -> End {
    while let Some(Ok(message)) = from_viewer.next().await {
        clocks.has_heard();
        match message {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(Ask::TakeControl) => consoles.take_control(open),
                // Who has no more use for it leaves.
                Ok(Ask::GiveControl { .. }) | Err(_) => {
                    return End::new(CloseCode::Protocol, "the viewer asked for what there is not");
                }
            },
            Message::Binary(_) => {
                return End::new(CloseCode::Protocol, "of SPICE, each channel has a WebSocket of its own");
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => break,
        }
    }
    End::left()
}
