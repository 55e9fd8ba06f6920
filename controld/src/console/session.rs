//! One viewer at a WebSocket, from the moment its ticket is found good to its end.
//!
//! Three things go on at once: what the VM says goes down, what the viewer says goes up, and what may end it is listened
//! for. None waits for another, so that a viewer who doesn't read any more is ended all the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use horcrux_proto::console::CloseCode;
use tokio::sync::watch;
use tokio::time::Instant;

use super::down::Down;
use super::line::{Lines, ToNode};
use super::place::Place;
use super::up::Up;
use super::{Code, End, Seat};
use crate::live::Live;
use crate::recording::writer::Recorder;

/// One that answers no ping has vanished.
const SILENT: Duration = Duration::from_secs(75);
/// Nothing was carried in either direction.
const IDLE: Duration = Duration::from_secs(30 * 60);
const LOOK: Duration = Duration::from_secs(1);
/// For the last message to a viewer that may not read.
const GOODBYE: Duration = Duration::from_secs(1);
/// A close frame holds 125 bytes, two of which are its code.
const REASON: usize = 123;

pub(super) type ToViewer = SplitSink<WebSocket, Message>;
pub(super) type FromViewer = SplitStream<WebSocket>;

/// What a session needs of the controller.
#[derive(Debug)]
pub struct Session<'a> {
    pub live: &'a Live,
    pub lines: &'a Lines,
    pub place: Place,
    /// `user@realm`.
    pub actor: &'a str,
    /// Where it is recorded.
    pub recorder: Option<&'a Recorder>,
}

/// Where what the viewer says goes now; `None` while the VM is looked for. The number tells one line from the next.
pub(super) type Current = Option<(u32, ToNode)>;

/// When something came last, in milliseconds since the session's begin.
#[derive(Debug)]
pub(super) struct Clocks {
    began: Instant,
    /// Anything from the viewer.
    heard: AtomicU64,
    /// A console's bytes, in either direction.
    carried: AtomicU64,
}

impl Clocks {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), heard: AtomicU64::new(0), carried: AtomicU64::new(0) }
    }

    pub(super) fn has_heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn has_carried(&self) {
        self.carried.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, clock: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(clock.load(Ordering::Relaxed)))
    }

    /// Returns when nothing has come for too long.
    pub(super) async fn ran_out(&self) -> End {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            if self.since(&self.heard) > SILENT {
                return End::new(CloseCode::Idle, "the viewer answers no more");
            }
            if self.since(&self.carried) > IDLE {
                return End::new(CloseCode::Idle, "nothing was sent or received for half an hour");
            }
        }
    }
}

impl Session<'_> {
    /// Runs until it ends, or until `guard` says that it must. Says goodbye in any case.
    pub async fn run(self, seat: &mut Seat, socket: WebSocket, guard: impl Future<Output = End>) -> End {
        let (mut to_viewer, from_viewer) = socket.split();
        let (set_line, line) = watch::channel(None);
        let clocks = Clocks::new();
        let Seat { open, control, notices, ending, consoles } = seat;
        let recorder = self.recorder;
        let end = {
            let down = Down { session: self, open, clocks: &clocks, control: control.clone(), set_line };
            let up = Up { open, consoles, clocks: &clocks, control: control.clone(), line, recorder };
            tokio::select! {
                biased;
                end = guard => end,
                Ok(end) = ended(ending) => end,
                end = clocks.ran_out() => end,
                end = up.run(from_viewer) => end,
                end = down.run(&mut to_viewer, notices) => end,
            }
        };
        goodbye(&mut to_viewer, &end).await;
        end
    }
}

pub(super) async fn ended(ending: &mut watch::Receiver<Option<End>>) -> Result<End, watch::error::RecvError> {
    let end = ending.wait_for(Option::is_some).await?.clone();
    Ok(end.unwrap_or_else(End::left))
}

/// Closes with a code and words, as far as the viewer still reads.
pub async fn goodbye(to_viewer: &mut (impl futures_util::Sink<Message> + Unpin), end: &End) {
    let Code::Closed(code) = end.code else { return };
    let cut = end.words.floor_char_boundary(REASON);
    let frame = CloseFrame { code: code.number(), reason: end.words[..cut].into() };
    match tokio::time::timeout(GOODBYE, to_viewer.send(Message::Close(Some(frame)))).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!("a viewer didn't hear why its console ended"),
    }
}
